"""The file of an exported program: what it says of itself, and the program in it."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from egnn_prune.deployment.export import DESCRIPTION
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import ConfigError, InputError

#: The longest description that is read, in bytes.
LONGEST = 2**24
INPUTS = ("z", "x", "pos", "edge_index", "batch", "edge_shift", "cell")
OUTPUTS = ("energy", "variance", "forces", "stress")
WRITE_ONE = "`egnn-prune export MODEL FILE.pt2` writes one"


@dataclass(frozen=True)
class ProgramDescription:
    """What a program says of itself (:func:`egnn_prune.deployment.export.described`), checked."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    elements: tuple[int, ...]
    cutoff: float | None
    error_bars: bool
    target: str
    unit: str
    domain: TrainingDomain | None

    @classmethod
    def from_json(cls, stored: Any) -> ProgramDescription:
        """Read the description of a file.

        Raises:
            InputError: it is none.
        """
        try:
            domain, cutoff = stored.get("training_domain"), stored["cutoff"]
            found = cls(
                inputs=tuple(stored["inputs"]),
                outputs=tuple(stored["outputs"]),
                elements=tuple(int(z) for z in stored["elements"]),
                cutoff=None if cutoff is None else float(cutoff),
                error_bars=bool(stored.get("error_bars", True)),  # older files do not say
                target=str(stored.get("target", "")),
                unit=str(stored.get("unit", "")),
                domain=TrainingDomain.from_json(domain) if domain else None,
            )
            known = set(found.inputs) <= set(INPUTS) and set(found.outputs) <= set(OUTPUTS)
            if not known or found.outputs[:2] != OUTPUTS[:2]:
                raise ValueError("inputs or outputs are not known")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"its description cannot be used ({error})") from None
        return found


def description_of(path: Path) -> ProgramDescription:
    """What a program's file says of itself; nothing of the program is read.

    Raises:
        ConfigError: the file is something else, for which there is another way.
        InputError: there is no such file, or it is no program of this package.
    """
    if path.is_dir() or path.suffix == ".safetensors":
        raise ConfigError(
            f"{path} is a model, which egnn_prune.ase.PrunedCalculator takes; of a program "
            f"that runs without this package, {WRITE_ONE}"
        )
    if path.suffix == ".onnx":
        raise ConfigError(f"{path} is for ONNX Runtime, not for torch; {WRITE_ONE}")
    if not path.is_file():
        raise InputError(f"there is no program {path}; {WRITE_ONE}")
    try:
        with zipfile.ZipFile(path) as archive:
            # torch's versions name the folder differently
            (entry,) = (i for i in archive.infolist() if i.filename.endswith(f"/{DESCRIPTION}"))
            if entry.file_size > LONGEST:
                raise ValueError("its description is too long")
            stored = json.loads(archive.read(entry))
        return ProgramDescription.from_json(stored)
    except InputError as error:
        raise InputError(f"{path} is no exported program: {error}; {WRITE_ONE}") from None
    except Exception as error:  # zipfile and zlib raise some ten different ones
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} is no exported program of egnn_prune, or is damaged ({reason}); {WRITE_ONE}"
        ) from None


def program_in(content: bytes, source: str) -> nn.Module:
    """The program in a file. Loading it runs what the file holds: trust whoever wrote it.

    Raises:
        InputError: torch cannot read it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of its own reader
            return torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # torch raises errors of every type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"torch {torch.__version__} cannot read the program {source} ({reason}); write it "
            "anew by `egnn-prune export` with this version of torch"
        ) from error
