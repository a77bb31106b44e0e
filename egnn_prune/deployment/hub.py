"""Trained models in a folder as model hubs hold them, uploaded and loaded from there."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egnn_prune.deployment.checkpoint import read_estimator, read_header, save
from egnn_prune.deployment.model_card import MOST_SCORES, model_card
from egnn_prune.deployment.trained_model import TrainedModel, file_of
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system.files import atomic, read_json, write_json
from egnn_prune.system.lazy_imports import naming_extras
from egnn_prune.uncertainty import Estimator

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
#: What is uploaded, whatever else lies in the folder.
FILES = (WEIGHTS, CONFIG, CARD)
#: How the errors that a run of ``specialise`` measures on its test structures end.
ERRORS = ("_mev_per_atom", "_mev_per_angstrom", "_mev_per_angstrom3")
#: How hubs call repositories.
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def save_pretrained(
    model: str | Path | Estimator,
    folder: str | Path,
    *,
    scores: Mapping[str, float] | None = None,
    repository: str = "OWNER/NAME",
    license: str | None = None,
    which: str = "pruned",
    **metadata: Any,
) -> Path:
    """Write a model as hubs hold it: ``model.safetensors``, ``config.json``, a card ``README.md``.

    Args:
        model: the folder of a run, a ``.safetensors`` file, or an estimator in memory.
        folder: where to; made where there is none. Files of these names are replaced.
        scores: errors on structures that no fit saw, for the card; by default those of the run.
        repository: how the card's example calls the model.
        license: of the weights, by the hub's name for it, such as ``"mit"``.
        which: ``"pruned"`` or ``"dense"``, of a run's folder.
        metadata: of an estimator in memory, what :func:`egnn_prune.save` takes, such as
            ``target="energy", unit="eV"``.

    Returns:
        The folder.

    Raises:
        InputError: the model cannot be read, holds no error bars, or the folder cannot be written.
        ConfigError: metadata for a file, which has its own, or a score that is no finite number.
    """
    folder = Path(folder)
    scores = None if scores is None else _checked(scores)
    if isinstance(model, Estimator):
        save(model, folder / WEIGHTS, **metadata)
    else:
        if metadata:
            raise ConfigError(
                f"a saved model says itself what it is; leave {', '.join(metadata)} away"
            )
        path = file_of(model, which)
        read_estimator(path)  # nothing damaged is handed on
        if scores is None:
            scores = _of_run(path)
        with atomic(folder / WEIGHTS) as temporary:
            shutil.copyfile(path, temporary)
    estimator, known = read_estimator(folder / WEIGHTS)
    card = model_card(estimator, known, scores, repository=repository, license=license)
    with atomic(folder / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")
    write_json(folder / CONFIG, {"library_name": "egnn_prune", **read_header(folder / WEIGHTS)})
    return folder


def push_to_hub(
    model: str | Path | Estimator,
    repository: str,
    *,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload a model of egnn_prune",
    **options: Any,
) -> str:
    """Upload a model with its card to the Hugging Face hub; the repository is made where needed.

    Args:
        model: what :func:`save_pretrained` takes, or a folder that it wrote, whose card you may
            have edited; only its three files are uploaded.
        repository: such as ``"me/ethanol"``.
        revision: the branch; by default the main one.
        private: whether a new repository is.
        token: of the hub; by default the one that ``hf auth login`` stored.
        message: of the commit.
        options: what else :func:`save_pretrained` takes.

    Returns:
        The address of the commit.

    Raises:
        MissingExtraError: ``huggingface_hub`` is not installed.
        ConfigError: the repository has no such name, or an option does not fit the model.
        InputError: the model cannot be read, or the hub refuses.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ConfigError(f"a repository is called OWNER/NAME, not {repository!r}")
    with naming_extras("uploading to the Hugging Face hub needs"):
        from huggingface_hub import HfApi
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if not isinstance(model, Estimator) and (Path(model) / WEIGHTS).is_file():
            if options:
                raise ConfigError(
                    f"{model} is as save_pretrained left it; leave {', '.join(options)} away"
                )
            read_estimator(Path(model) / WEIGHTS)
            folder = Path(model)
        else:
            save_pretrained(model, folder, repository=repository, **options)
        with _hub(f"{repository} cannot be written to"):
            api = HfApi(token=token)
            api.create_repo(repository, private=private, repo_type="model", exist_ok=True)
            done = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                repo_type="model",
                revision=revision,
                commit_message=message,
                allow_patterns=list(FILES),
            )
    return str(getattr(done, "commit_url", done))


def pretrained_file(
    model: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The ``model.safetensors`` of a folder here, or of a repository of the Hugging Face hub.

    Only this file is downloaded; what was downloaded before is not again.

    Args:
        model: a folder that :func:`save_pretrained` wrote, or ``"OWNER/NAME"``. A folder here comes
            first.
        revision: of the repository: a branch, a tag, or the hash of a commit, which pins it.
        token: of private repositories.
        cache_dir: where downloads are kept; by default the hub's own place.
        local_files_only: ask nobody: what was downloaded before, or an error.

    Raises:
        MissingExtraError: ``huggingface_hub`` is not installed.
        ConfigError: a revision of a folder here, or it is neither a folder nor a repository's name.
        InputError: the folder holds no model, or the hub has none.
    """
    if Path(model).expanduser().is_dir():
        if revision is not None:
            raise ConfigError(f"{model} is a folder here, which has no revision; leave it away")
        path = Path(model).expanduser() / WEIGHTS
        if not path.is_file():
            raise InputError(f"{model} holds no {WEIGHTS}; save_pretrained writes such folders")
        return path
    if not REPOSITORY.fullmatch(str(model)):
        raise ConfigError(f"there is no folder {model}, and a repository is called OWNER/NAME")
    with naming_extras("downloading from the Hugging Face hub needs"):
        from huggingface_hub import hf_hub_download
    with _hub(f"there is no folder {model}, and the repository of that name cannot be read"):
        return Path(
            hf_hub_download(
                str(model),
                WEIGHTS,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        )


def from_pretrained(
    model: str | Path, *, device: str = "auto", revision: str | None = None, **options: Any
) -> TrainedModel:
    """A model of a folder here or of the Hugging Face hub, ready for use. Nothing is unpickled.

    Args:
        model: as for :func:`pretrained_file`, with a network that reads structures; load others by
            ``egnn_prune.load_estimator(pretrained_file(...))``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        revision: as for :func:`pretrained_file`.
        options: what else it takes.

    Returns:
        The model with its unit and thresholds, which
        :class:`~egnn_prune.ase.PrunedCalculator` takes, too.

    Raises:
        InputError: the file is damaged or not a model of this package; see
            :func:`pretrained_file`.
    """
    path = pretrained_file(model, revision=revision, **options)
    return TrainedModel.load(path, device=device)


def _of_run(path: Path) -> dict[str, float] | None:
    """What a run measured of one of its models on its test structures."""
    file = path.parent / "metrics.json"
    if not file.is_file():
        return None
    models = read_json(file).get("models")
    found = models.get(path.stem) if isinstance(models, dict) else None
    if not isinstance(found, dict):
        return None
    numbers = {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    told = [name for name in numbers if name.endswith(ERRORS)]
    told += [name for name in numbers if name.startswith("test_") or name.endswith("_calibrated")]
    return {name: numbers[name] for name in told[:MOST_SCORES]} or None


def _checked(scores: Mapping[str, float]) -> dict[str, float]:
    for name, value in scores.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise ConfigError(f"a score is a finite number, but {name} is {value!r}")
        if math.isinf(value):
            raise ConfigError(f"a score is a finite number, but {name} is {value!r}")
    return {str(name): float(value) for name, value in scores.items()}


@contextmanager
def _hub(what: str) -> Iterator[None]:
    """Failures of the hub in one sentence."""
    try:
        yield
    except Exception as error:  # of requests or httpx, of the hub, of the disk
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{what} ({reason})") from None


__all__ = ["from_pretrained", "pretrained_file", "push_to_hub", "save_pretrained"]
