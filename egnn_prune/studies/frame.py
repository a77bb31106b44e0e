"""What all studies share: settings checked, seeds worked through, results written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from matplotlib.figure import Figure
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from egnn_prune.configs.over_seeds import main_job
from egnn_prune.configs.settings import Settings, check
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.errors import InputError
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.main_job import Job
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.page import study_page
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.result_store import Row
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.runs.seed_jobs import over_seeds
from egnn_prune.system.device import choose_device
from egnn_prune.system.files import read_json, write_json


class Placed(Protocol):
    """Settings with a folder for the results."""

    @property
    def out(self) -> str | None:
        """The folder; without one that of a default."""


class StudySettings(Placed, Protocol):
    """Settings of any study; most have those of the main job besides."""

    seeds: list[int]
    threads: int | None


PAGE = "report.html"
#: What a study found and with which settings, so that its page can be drawn again.
STORED, KIND, VERSION = "study.json", "study", 1

S = TypeVar("S", bound=StudySettings)


@dataclass(frozen=True)
class Results:
    """What a study writes.

    Attributes:
        rows: as ``NAME.csv``.
        text: tables, printed and as ``NAME.txt``.
        figure: as ``NAME.png``.
        columns: the first ones of the CSV file, in their order.
        apart: those whose values get a table each on the page.
    """

    rows: list[Row]
    text: str
    figure: Figure | None = None
    columns: Sequence[str] = ()
    apart: Sequence[str] = ()


@dataclass(frozen=True)
class Study(Generic[S]):
    """An experiment over seeds; call it with its settings to run it and write what it found.

    Interrupted, the same call goes on where it stopped.

    Attributes:
        name: of the files.
        run_seed: all rows of a seed; a function of a module, which keeps what is finished.
        results: of the rows of all seeds.
        check: refuses what only this study cannot use, beside what ranges say.
    """

    name: str
    run_seed: Callable[[S, int], list[Row]]
    results: Callable[[S, list[Row]], Results]
    check: Callable[[S], None] | None = None

    def __call__(self, settings: S) -> Path:
        """Run all seeds; write ``NAME.csv``, ``.txt``, ``.png`` and ``report.html``.

        Returns:
            Their folder.

        Raises:
            ConfigError: one sentence about the first wrong setting.
        """
        check(settings)
        if self.check is not None:
            self.check(settings)
        if isinstance(settings, Settings):
            for seed in settings.seeds:
                validate(seed_settings(settings, seed))
            refuse_unused(settings)
        out = study_folder(settings)
        with alone_in(out):
            rows = over_seeds(self.run_seed, settings, settings.seeds, out)
            self.draw(settings, rows, out)
            content = {
                **{"kind": KIND, "schema_version": VERSION, "study": self.run_seed.__module__},
                **{"settings": asdict(settings), "rows": rows},  # type: ignore[call-overload]
            }
            write_json(out / STORED, content)
        return out

    def draw(self, settings: S, rows: list[Row], out: Path) -> None:
        """Write tables, figure and page of rows into a folder, and print the tables."""
        found = self.results(settings, rows)
        path = out / f"{self.name}.csv"
        written = [write_rows(found.rows, path, found.columns)]
        written.append(write_atomic(path.with_suffix(".txt"), f"{found.text}\n".encode()))
        png = png_bytes(found.figure) if found.figure else None
        if png:
            written.append(write_atomic(path.with_suffix(".png"), png))
        config = OmegaConf.to_yaml(OmegaConf.structured(settings))
        html = study_page(
            *(self.name, found.rows, found.text),
            png=png,
            columns=found.columns,
            apart=found.apart,
            config=config,
        )
        written.append(write_atomic(out / PAGE, html.encode("utf-8")))
        print(f"{found.text}\nWritten: {', '.join(p.name for p in written)} in {out}")


def redraw(folder: Path, known: Mapping[str, type]) -> None:
    """Draw tables, figure and page of a study again, from its ``study.json``; nothing is computed.

    Args:
        folder: of the study.
        known: by module of a study the dataclass of its settings.

    Raises:
        InputError: the file is missing, damaged, or of a version with other settings or rows.
    """
    path = folder / STORED
    stored = read_json(path)
    module = str(stored.get("study"))
    if stored.get("kind") != KIND or stored.get("schema_version") != VERSION or module not in known:
        raise InputError(f"{path} is of another kind or version")
    study = study_of(module)
    try:
        content = OmegaConf.merge(OmegaConf.structured(known[module]), stored["settings"])
        study.draw(OmegaConf.to_object(content), stored["rows"], folder)
    except InputError:
        raise
    except (OmegaConfBaseException, LookupError, TypeError, ValueError, AttributeError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{path} is damaged or of another version ({what}); give the study's own command "
            "again, which computes nothing twice"
        ) from None


def study_of(module: str) -> Study[Any]:
    """The study that is worked on in a module."""
    found = (one for one in vars(import_module(module)).values() if isinstance(one, Study))
    return next(one for one in found if one.run_seed.__module__ == module)


def study_folder(settings: Placed) -> Path:
    """Where the study's results go: ``out``, or what that is by default."""
    return Path(str(settings.out or type(settings)().out)).expanduser()


def seed_settings(settings: Settings, seed: int) -> Settings:
    """The main job of a seed, in a folder of its own."""
    job = main_job(settings)
    job.seed, job.out = seed, str(study_folder(settings) / f"seed{seed}")
    return job


def open_job(settings: Settings) -> Job:
    """A main job whose stages are run one by one."""
    return Job(settings, RunFolder(settings), choose_device(settings.device))
