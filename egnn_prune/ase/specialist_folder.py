"""The folder of a specialist that learns: which network is the current one, and how it came."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from egnn_prune.deployment import checkpoint
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system import files

#: Says which network is the current one.
FILE = "specialist.json"


class SpecialistFolder:
    """Networks that were learned on the way, ``model-000.safetensors`` ..., and a small JSON.

    Args:
        path: the folder; what is there already is gone on with.
        origin: the network that learning began from: a path, or an object in memory.

    Attributes:
        attempts: what every call of ``learn`` came to, the oldest first.

    Raises:
        ConfigError: the folder went on from another network.
        InputError: what is there is damaged.
    """

    def __init__(self, path: Path, origin: Any) -> None:
        self.path, named = path, isinstance(origin, (str, Path))
        self._origin = str(Path(origin).expanduser().resolve()) if named else type(origin).__name__
        self._model: str | None = None
        self._teacher: str | None = None
        self.attempts: list[dict[str, Any]] = []
        if not (path / FILE).exists():
            return
        found = files.read_json(path / FILE)
        try:
            began, self._model, self._teacher, self.attempts = (
                found[key] for key in ("origin", "model", "teacher", "attempts")
            )
        except (KeyError, TypeError):
            raise InputError(
                f"{path / FILE} is damaged; repair it, or choose another folder"
            ) from None
        if began != self._origin:
            raise ConfigError(
                f"{path} goes on from {began}, not from {self._origin}; choose another folder"
            )
        if self.model is not None and not self.model.is_file():
            raise InputError(
                f"{path} holds no {self._model}, which {FILE} names; choose another folder"
            )

    @property
    def model(self) -> Path | None:
        """The current network's file; ``None`` as long as it is the one that all began from."""
        return None if self._model is None else self.path / Path(self._model).name

    def taught_by(self, name: str) -> None:
        """Whose labels are collected here; nothing is written before :meth:`claim`.

        Raises:
            ConfigError: there are labels of another teacher.
        """
        if self._teacher not in (None, name):
            raise ConfigError(
                f"the labels in {self.path} are of the teacher {self._teacher}, not of {name}; "
                "choose another folder"
            )
        self._teacher = name

    def claim(self) -> None:
        """Write down whose folder it is from now on.

        Raises:
            InputError: the folder cannot be written to.
        """
        self._write()

    def learned(self, model: TrainedModel) -> None:
        """Write a new network, with which another run goes on.

        Raises:
            InputError: it cannot be written; the folder stays as it was.
        """
        before, number = self._model, sum(a["accepted"] for a in self.attempts)
        name = f"model-{number:03d}.safetensors"
        _save(model, self.path / name)
        self._model = name
        try:
            self._write()
        except InputError:
            self._model = before
            raise

    def tried(self, attempts: list[dict[str, Any]]) -> None:
        """Write down all attempts, each as :func:`described`; a full disk stops nothing."""
        self.attempts = attempts
        try:
            self._write()
        except InputError as error:
            warnings.warn(f"{error}; the simulation goes on without", UserWarning, stacklevel=3)

    def _write(self) -> None:
        names = ("origin", "model", "teacher")
        content = {name: getattr(self, f"_{name}") for name in names}
        files.write_json(self.path / FILE, content | {"attempts": self.attempts})


def described(found: Any) -> dict[str, Any]:
    """An :class:`~egnn_prune.evaluation.improvement.Improvement` as plain JSON."""
    names = ("accepted", "before", "after", "trained_on", "held_out", "seconds")
    return {k: getattr(found, k) for k in names} | {"reason": getattr(found, "reason", "")}


def _save(model: TrainedModel, path: Path) -> None:
    known: dict[str, Any] = {}
    if model.domain is not None:
        known["training_domain"] = model.domain.to_json()
    if model.ood_threshold is not None:
        known["validation_epistemic_std"] = {"q99": model.ood_threshold}
    units = {"pos": "Angstrom"}
    target, unit = model.target or "energy", model.unit or "eV"
    checkpoint.save(model.estimator, path, target=target, unit=unit, units=units, **known)
