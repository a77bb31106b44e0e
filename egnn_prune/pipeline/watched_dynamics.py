"""A specialist with its teacher, put together from the folder of a run of ``specialise``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from egnn_prune.ase.specialist import SpecialistCalculator
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.pipeline.specialise_context import LABELLED
from egnn_prune.pipeline.specialise_data import read_dataset
from egnn_prune.training.potential_task import PotentialSettings

#: Of the training on the way: the network is trained already. One look, after the end.
LR, EMA = 3e-3, 0.99


def watched_calculator(
    model: str | Path,
    teacher: str | None,
    on_uncertain: str,
    *,
    learn_steps: int | None = None,
    **options: Any,
) -> SpecialistCalculator:
    """The calculator, with the run's own training and validation structures where they are there.

    Args:
        model: the folder of a run, or a ``.safetensors`` file in one or elsewhere.
        teacher: see :class:`~egnn_prune.ase.teacher.Teacher`.
        on_uncertain: see :class:`~egnn_prune.ase.specialist.SpecialistCalculator`.
        learn_steps: optimiser steps of every time that the network learns; by default those of
            :func:`egnn_prune.evaluation.improvement.improved`.
        options: what else the calculator takes.

    Raises:
        ConfigError: an argument cannot be used.
        InputError: model, teacher, structures or folder cannot be used.
    """
    if learn_steps is not None and learn_steps < 1:
        raise ConfigError(f"learn_steps must be 1 or more, not {learn_steps}")
    train, val = labelled_structures(Path(model).expanduser())
    settings = None
    if learn_steps is not None:
        settings = PotentialSettings(steps=learn_steps, lr=LR, validations=1, ema=EMA)
    return SpecialistCalculator(
        model, teacher, on_uncertain, train=train, val=val, settings=settings, **options
    )


def labelled_structures(model: Path) -> tuple[list[Data], list[Data]]:
    """What a run of ``specialise`` trained and validated on; nothing for other models.

    Raises:
        DataError: the file is damaged.
    """
    path = (model if model.is_dir() else model.parent) / LABELLED
    if not path.is_file():
        return [], []
    try:
        dataset = read_dataset(path)
        return list(dataset.split("train")), list(dataset.split("val"))
    except Exception as error:  # NumPy and zipfile raise whatever they raise
        raise DataError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}); run specialise again"
        ) from None
