"""What a simulation that was killed goes on from: its last saved step."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system.files import write_arrays
from egnn_prune.system.growing_file import GrowingFile

#: The file, in the folder of a simulation that has not ended.
FILE = "unfinished.npz"
#: Seconds from one save to the next.
EVERY_S = 10.0


class Part(Protocol):
    """Something with a state of its own."""

    def state(self) -> dict[str, Any]:
        """As plain JSON."""

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite."""


@dataclass
class DynamicsState:
    """The state of a simulation in a file; one that goes on makes the steps that it had made.

    Kept are step, positions, cell and momenta in full precision, the thermostat's random numbers,
    and how long the files were that grow: what a killed run wrote behind is cut off and made again.
    The file is there as long as the simulation has not ended.

    Args:
        path: the file.
        settings: whose simulation it is, as plain JSON.
        files: that grow, by name, of which a resumed run keeps as much as the state stands for.
        parts: others with a state, by name.
        every: seconds from one save to the next.
        clock: tells the time, in seconds.

    Raises:
        ConfigError: the file is of a simulation with other settings.
        InputError: the file is damaged.
    """

    path: Path
    settings: dict[str, Any]
    files: dict[str, GrowingFile] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    every: float = field(default_factory=lambda: EVERY_S)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._found: dict[str, Any] | None = None
        self._arrays: dict[str, NDArray[np.float64]] = {}
        self._saved = self.clock()
        if not self.path.exists():
            return
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                names = [name for name in ("cell",) if name in arrays]  # absent in older files
                self._arrays = {name: arrays[name] for name in ("positions", "momenta", *names)}
                found = json.loads(str(arrays["facts"]))
            theirs = dict(found["settings"])
            sizes = {str(name): int(size) for name, size in found["sizes"].items()}
            self._found = {**found, "sizes": sizes}
            self.step, self.seconds = int(found["step"]), float(found["seconds"])
        except Exception as error:  # NumPy and zipfile raise whatever they raise
            raise InputError(
                f"{self.path}, which the simulation would go on from, is damaged "
                f"({type(error).__name__}); delete it to begin anew"
            ) from None
        other = [k for k, v in self.settings.items() if theirs.get(k) != v]
        if other:
            said = ", ".join(f"{k.replace('_', ' ')} {_short(theirs.get(k))}" for k in other)
            raise ConfigError(
                f"{self.path.parent} holds an unfinished simulation with other settings ({said}); "
                f"repeat its command to go on with it, choose another folder, or delete {self.path}"
            )

    step: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)

    @property
    def resumed(self) -> bool:
        """Whether there is something to go on from."""
        return self._found is not None

    def size(self, name: str) -> int:
        """Bytes of a file that are kept."""
        return 0 if self._found is None else self._found["sizes"].get(name, 0)

    def place(self, atoms: Atoms) -> None:
        """Put atoms where they were, with the momenta that they had.

        Raises:
            InputError: they are other atoms.
        """
        if self._found is None:
            return
        if self._arrays["positions"].shape != atoms.positions.shape:
            raise InputError(f"{self.path} is of another structure; delete it to begin anew")
        if "cell" in self._arrays:
            atoms.set_cell(self._arrays["cell"], apply_constraint=False)
        atoms.set_positions(self._arrays["positions"], apply_constraint=False)
        atoms.set_momenta(self._arrays["momenta"], apply_constraint=False)

    def resume(self, dynamics: Any) -> None:
        """Give the integrator and all parts the state that they had."""
        if self._found is None:
            return
        try:
            dynamics.nsteps = self.step
            if self._found["rng"] is not None:
                dynamics.rng.bit_generator.state = self._found["rng"]
            for name, part in self.parts.items():
                part.set_state(self._found["parts"][name])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{self.path} is damaged or of another version ({error!r}); delete it to begin anew"
            ) from None

    def save_when_due(self, atoms: Atoms, dynamics: Any, seconds: float) -> None:
        """Save, if the last time is long enough ago."""
        if self.clock() - self._saved >= self.every:
            self.save(atoms, dynamics, seconds)

    def save(self, atoms: Atoms, dynamics: Any, seconds: float) -> None:
        """Save the step that is complete now.

        Args:
            atoms: that move.
            dynamics: ASE's integrator.
            seconds: wall time of this process's steps.

        Raises:
            OSError: the disk is full; the save before stays.
        """
        if not dynamics.nsteps:
            return  # the start is soon computed again
        for file in self.files.values():
            file.sync()
        rng = getattr(dynamics, "rng", None)
        facts = {
            "settings": self.settings,
            "step": dynamics.nsteps,
            "seconds": self.seconds + seconds,
            "rng": None if rng is None else rng.bit_generator.state,
            "sizes": {name: file.size for name, file in self.files.items()},
            "parts": {name: part.state() for name, part in self.parts.items()},
        }
        write_arrays(
            self.path,
            positions=atoms.get_positions(),
            momenta=atoms.get_momenta(),
            cell=atoms.cell.array,
            facts=np.array(json.dumps(facts)),
        )
        self._saved = self.clock()

    def done(self) -> None:
        """The simulation has ended; the same command begins anew."""
        self.path.unlink(missing_ok=True)


def fingerprint(atoms: Atoms) -> str:
    """Twelve hexadecimal digits that name a start."""
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.positions, atoms.get_momenta(), atoms.get_masses()):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(f"{atoms.cell.tolist()} {atoms.pbc.tolist()}".encode())
    return digest.hexdigest()[:12]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def row_text(row: Mapping[str, Any], heading: bool = False) -> str:
    """A row as CSV, with the names before it where it is the first; NaN is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    if heading:
        writer.writeheader()
    writer.writerow({name: value for name, value in row.items() if value == value})
    return text.getvalue()


def rows_of(path: Path, texts: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The opposite of :func:`row_text`: numbers, but for the columns of texts.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {k: v if k in texts else float(v or "nan") for k, v in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}); delete {path.with_name(FILE)} to begin anew"
        ) from None
