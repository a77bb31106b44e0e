"""What every question gets: the form, the seed, the networks, and the rows found so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.studies.questions.forms import FORMS, Form
from egnn_prune.studies.questions.networks import Networks


class Asked:
    """One question of one seed.

    Args:
        question: its name.
        form: ``quick`` or ``full``.
        folder: of the study.
        seed: which.
        first: the seed that rates are chosen for, and that is timed.
    """

    def __init__(self, question: str, form: str, folder: Path, seed: int, first: int) -> None:
        self.question, self.form, self.seed, self.first = question, FORMS[form], seed, first
        self.name, self.folder = form, folder
        self._networks: dict[tuple[str, int], Networks] = {}

    @property
    def is_first(self) -> bool:
        """Whether this is the seed that chooses for the others."""
        return self.seed == self.first

    def rows(self, seed: int | None = None) -> Rows:
        """What was found of a seed, by default of this one."""
        seed = self.seed if seed is None else seed
        path = self.folder / f"{self.question}-{self.name}-seed{seed}.json"
        # as JSON gives it back: with lists
        asked = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.form).items()}
        return Rows(path, asked, question=self.question, seed=seed)

    def networks(self, system: str = "", train: int = 0) -> Networks:
        """Of a system and number of training structures, by default those of the form."""
        key = (system or self.form.system, train or self.form.train)
        if key not in self._networks:
            folder = self.folder / "networks" / self.name
            self._networks[key] = Networks(self.form, folder, key[0], self.seed, key[1])
        return self._networks[key]


@dataclass(frozen=True)
class Question:
    """A question of the protocol.

    Attributes:
        cells: values that tell the rows of a seed apart.
        find: called with the values of a cell, gives the rest of its row.
    """

    cells: Callable[[Asked], list[Row]]
    find: Callable[..., Row]


__all__ = ["Asked", "Form", "Question"]
