"""What all studies share: settings checked, seeds worked through, results written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from matplotlib.figure import Figure

from egnn_prune.configs.settings import Settings, main_job
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.main_job import Job
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.result_store import Row, different, over_seeds
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.system.device import choose_device


class StudySettings(Protocol):
    """Settings of any study; most have those of the main job besides."""

    out: str | None
    seeds: list[int]
    threads: int | None


S = TypeVar("S", bound=StudySettings)


@dataclass(frozen=True)
class Results:
    """What a study writes.

    Attributes:
        rows: as ``NAME.csv``.
        text: tables, printed and as ``NAME.txt``.
        figure: as ``NAME.png``.
        columns: the first ones of the CSV file, in their order.
    """

    rows: list[Row]
    text: str
    figure: Figure | None = None
    columns: Sequence[str] = ()


def run_study(
    name: str,
    settings: S,
    check: Callable[[S], None],
    run_seed: Callable[[S, int], list[Row]],
    results: Callable[[S, list[Row]], Results],
) -> Path:
    """Run all seeds and write what they found; interrupted, the same call goes on.

    Args:
        name: of the files.
        settings: of the study.
        check: refuses what only this study cannot use.
        run_seed: all rows of a seed; a function of a module, which keeps what is finished.
        results: of the rows of all seeds, those of earlier runs in this folder among them.

    Returns:
        The study's folder.

    Raises:
        ConfigError: one sentence about the first wrong setting.
    """
    different("seeds", settings.seeds)
    check(settings)
    if isinstance(settings, Settings):
        for seed in settings.seeds:
            validate(seed_settings(settings, seed))
        refuse_unused(settings)
    out = study_folder(settings)
    workers = getattr(settings, "workers", 1)  # the sanity checks have none
    with alone_in(out):
        found = results(settings, over_seeds(run_seed, settings, settings.seeds, workers))
        write_rows(found.rows, out / f"{name}.csv", found.columns)
        write_atomic(out / f"{name}.txt", f"{found.text}\n".encode())
        if found.figure:
            write_atomic(out / f"{name}.png", png_bytes(found.figure))
    figure = f", {name}.png" if found.figure else ""
    print(f"{found.text}\nWritten: {name}.csv, {name}.txt{figure} in {out}")
    return out


def study_folder(settings: StudySettings) -> Path:
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
