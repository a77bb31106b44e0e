"""Which networks and passes of which cases are measured, and about how long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from egnn_prune.bench.cases import CASES, NETWORKS, PASSES, Case, Pairs

Extent = Literal["some", "all", "none"]
"""What a case selects, everything that there is, or nothing."""

#: Speed of the textbook in an estimate, in FLOP/s, and the cost of others beside it.
_SPEED = 5e10
_COST = {"egnn-pytorch": 5.0, "nequip": 3.0, "ours": 0.6, "ours-50": 0.2, "ours-75": 0.1}
_OF_PASS = {"infer": 1.0, "train": 3.3, "forces": 2.2}
#: Calls outside of the turns: the first one, the comparison, the memory.
_EXTRA_CALLS = 4
_COMPILE_SECONDS, _FRESH_SECONDS = 3.5, 7.0


@dataclass(frozen=True)
class Entry:
    """A network that takes turns with others."""

    variant: str
    compiled: bool

    def __str__(self) -> str:
        return f"{self.variant} compiled" if self.compiled else self.variant


@dataclass(frozen=True)
class Turns:
    """How often everybody is timed.

    Attributes:
        seconds: to spend on the turns of one pass of one case.
        least: turns, whatever they take.
        most: turns, however short they are.
    """

    seconds: float = 4.0
    least: int = 5
    most: int = 41

    def of(self, one: float) -> int:
        """Turns, when one takes so many seconds."""
        return max(self.least, min(self.most, int(self.seconds / max(one, 1e-9))))


USUAL, QUICK = Turns(), Turns(seconds=1.0, least=3)


@dataclass(frozen=True)
class Unit:
    """One pass of one case: what takes turns.

    Attributes:
        case: the graphs and the size of the networks.
        name: the pass.
        entries: whose networks.
        fresh: variants that also run, eager, in processes of their own.
    """

    case: Case
    name: str
    entries: tuple[Entry, ...]
    fresh: tuple[str, ...] = ()

    def seconds(self, turns: Turns) -> float:
        """A rough guess of how long it takes."""
        case = self.case
        textbook = 8 * case.edges * case.layers * case.hidden**2 / _SPEED + 2e-4 * case.layers
        textbook *= _OF_PASS[self.name] * (20 if case.network == "irreps" else 1)
        turn = sum(textbook * _COST.get(e.variant, 1.0) for e in self.entries)
        compiled = sum(e.compiled for e in self.entries)
        programs = _COMPILE_SECONDS * case.layers * compiled * _OF_PASS[self.name] ** 0.5
        processes = _FRESH_SECONDS * len(self.fresh)
        return 1.0 + turn * (turns.of(turn) + _EXTRA_CALLS) + programs + processes


@dataclass(frozen=True)
class Choice:
    """What was asked for; ``None`` leaves it to each case.

    Attributes:
        cases: names of :data:`CASES`.
        variants: names of variants.
        passes: names of passes.
        compiled: which networks are compiled, too.
        fresh: which networks run in fresh processes, too.
        quick: a small selection that takes two minutes.
    """

    cases: Sequence[str] | None = None
    variants: Sequence[str] | None = None
    passes: Sequence[str] | None = None
    compiled: Extent = "some"
    fresh: Extent = "some"
    quick: bool = False


def plan(choice: Choice) -> list[Unit]:
    """The units in the order in which they run."""
    units = []
    for case in CASES.values():
        if choice.cases is None or case.name in choice.cases:
            units += [unit for name in PASSES if (unit := _unit(case, name, choice))]
    return units


def _unit(case: Case, name: str, choice: Choice) -> Unit | None:
    """What is asked for of a pass of a case; a case that is named has its usual selection."""
    quick = choice.quick and (choice.cases is None or bool(case.quick.eager))
    selection = case.quick if quick else case.usual
    usual = {of_pass for _, of_pass in selection.eager}
    if name not in (usual if choice.passes is None else choice.passes):
        return None
    if not selection.eager:  # no part of quick runs
        return None
    there = {variant for variant, of_pass in selection.eager if of_pass == name}
    if choice.variants is not None:
        there = set(choice.variants)
    elif not there:
        there = {variant for variant, _ in selection.eager}
    variants = [v for v in NETWORKS[case.network] if v in there]
    if not variants:
        return None

    def part(extent: Extent, some: Pairs) -> list[str]:
        found = {"none": [], "all": variants, "some": [v for v in variants if (v, name) in some]}
        return found[extent]

    compiled = part(choice.compiled, selection.compiled)
    entries = (*(Entry(v, False) for v in variants), *(Entry(v, True) for v in compiled))
    return Unit(case, name, entries, tuple(part(choice.fresh, selection.fresh)))
