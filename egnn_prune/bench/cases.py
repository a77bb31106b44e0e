"""What is timed: how many graphs of how many atoms, and how wide and deep the network is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

PASSES = ("infer", "train", "forces")
"""Prediction without gradients; a training step with AdamW; energy and forces."""
VARIANTS = (
    *("textbook", "egnn-pytorch", "nequip"),
    *("ours", "ours-recompute", "ours-50", "ours-75", "ours-90"),
)
"""Whose network; ``ours-50`` is ours with half of all channels removed, uniformly;
``ours-recompute`` keeps nothing of the edges for the way back."""

NOTES = {
    "egnn-pytorch": "its own function on padded batches of all pairs: inner widths of 2 (2 h + 1) "
    "and 4 h, which no option changes, and messages from an atom to itself; its floor is "
    "that of the products it does",
    "nequip": "its own code with its own radial functions at equal irreps, eager; its floor is "
    "that of the products it does",
}
"""What a reader has to know of networks that compute something else."""

BASIC = ("textbook", "ours")
RECOMPUTE = "ours-recompute"
COMPACT = ("ours-50", "ours-75", "ours-90")
NETWORKS = {
    "egnn": ("textbook", "egnn-pytorch", "ours", RECOMPUTE, *COMPACT),
    "irreps": ("nequip", "ours", *COMPACT),
}
"""The variants of each family of networks."""
FEATURES = 5
"""Columns of the node features of every case."""
NEIGHBOURS = 20.0
"""Average number of atoms within the cutoff, away from the surface."""


Pairs = tuple[tuple[str, str], ...]
"""Of a variant and a pass."""


def pairs(variants: Iterable[str], passes: Iterable[str] = PASSES) -> Pairs:
    """Every variant on every pass."""
    variants = tuple(variants)
    return tuple((variant, name) for name in passes for variant in variants)


@dataclass(frozen=True)
class Selection:
    """What is measured of a case unless something else is asked for.

    Attributes:
        eager: networks as they are.
        compiled: networks compiled by ``torch.compile``.
        fresh: eager networks whose first calls are timed in processes of their own, too.
    """

    eager: Pairs = ()
    compiled: Pairs = ()
    fresh: Pairs = ()


@dataclass(frozen=True)
class Case:
    """One row of the benchmark's plan.

    Attributes:
        name: as ``--cases`` takes it.
        graphs: in the batch.
        nodes: of each graph.
        hidden: width of everything; the copies of each irrep of an e3nn network.
        layers: message-passing layers.
        cutoff: beyond which atoms are not connected; all pairs without one.
        network: which family is compared, of :data:`NETWORKS`.
        usual: what is measured.
        quick: what is measured of it in two minutes.
    """

    name: str
    graphs: int
    nodes: int
    hidden: int
    layers: int
    cutoff: float | None = None
    network: Literal["egnn", "irreps"] = "egnn"
    usual: Selection = Selection()
    quick: Selection = Selection()

    @property
    def edges(self) -> int:
        """About how many edges there will be, for plans; the true number is counted."""
        degree = self.nodes - 1.0
        if self.cutoff is not None:
            degree = min(degree, 0.8 * NEIGHBOURS)
        return round(self.graphs * self.nodes * degree)

    def says(self) -> str:
        """What the case is, in one line."""
        linked = "all pairs" if self.cutoff is None else f"cutoff {self.cutoff:g}"
        width = f"hidden {self.hidden}"
        if self.network == "irreps":
            width = f"{self.hidden} copies of each irrep to l = 2"
        graphs = "1 graph" if self.graphs == 1 else f"{self.graphs} graphs"
        return f"{graphs} of {self.nodes} atoms, {linked}, {width}, {self.layers} layers"


CUTOFF = 5.0
_OURS = ("ours", *COMPACT)
_INFER, _BOTH = ("infer",), ("infer", "train")
_ALL = ("textbook", "egnn-pytorch", *_OURS)
_WITH_OTHERS = (
    *pairs(_ALL, _INFER),
    *pairs((*_ALL, RECOMPUTE), ("train",)),
    *pairs(("textbook", *_OURS), ("forces",)),
)
_QM9 = Case(
    "qm9-128",
    *(96, 18, 128, 7),
    usual=Selection(
        pairs(_ALL, _INFER)
        + pairs(("textbook", *_OURS, RECOMPUTE), ("train",))
        + pairs(("textbook", *_OURS), ("forces",)),
        pairs(("textbook", *_OURS), _INFER) + pairs(BASIC, ("train",)),
        pairs(("textbook", *_OURS), _INFER),
    ),
)
_SMALLER = Case(
    "qm9-64",
    *(96, 18, 64, 7),
    usual=Selection(
        _WITH_OTHERS,
        pairs((*BASIC, "ours-75"), _INFER) + pairs(("textbook",), ("train",)),
        pairs((*BASIC, "ours-75"), _INFER),
    ),
    quick=Selection(pairs(_ALL, _INFER), fresh=pairs(BASIC, _INFER)),
)
_N_BODY = Case(
    "n-body",
    *(100, 5, 64, 4),
    usual=Selection(_WITH_OTHERS, pairs(BASIC, _BOTH), pairs(BASIC, _INFER)),
    quick=Selection(_WITH_OTHERS, pairs(BASIC, _INFER)),
)
_ATOMS = Case(
    "atoms-2000",
    *(1, 2000, 64, 4),
    cutoff=CUTOFF,
    usual=Selection(pairs((*BASIC, "ours-75")), fresh=pairs(BASIC, _INFER)),
    quick=Selection(pairs(BASIC, ("forces",))),
)
_IRREPS = Case(
    "irreps-32",
    *(32, 18, 32, 3),
    cutoff=CUTOFF,
    network="irreps",
    usual=Selection(pairs(("nequip", "ours", "ours-50"))),
    quick=Selection(pairs(("nequip", "ours", "ours-50"), ("forces",))),
)
_BASIC = Selection(pairs(BASIC, _BOTH))
_WIDTH = Case("width-32", 16, 18, 32, 4, usual=_BASIC)
_BATCH = Case("batch-1", 1, 18, 64, 4, usual=Selection(pairs(BASIC, _INFER)))
_DEPTH = Case("depth-2", 64, 18, 64, 2, usual=Selection(pairs((*BASIC, RECOMPUTE), ("train",))))
_GROWTH = Case("edges-1e3", 1, 89, 32, 2, cutoff=CUTOFF, usual=_BASIC)
CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *(_QM9, _SMALLER, _N_BODY, _ATOMS, _IRREPS),
        *(replace(_WIDTH, name=f"width-{n}", hidden=n) for n in (32, 64, 128, 256)),
        *(replace(_BATCH, name=f"batch-{n}", graphs=n) for n in (1, 10, 100, 1000)),
        *(replace(_DEPTH, name=f"depth-{n}", layers=n) for n in (2, 4, 8)),
        replace(_GROWTH, quick=_BASIC),
        replace(_GROWTH, name="edges-1e4", nodes=650, quick=_BASIC),
        replace(_GROWTH, name="edges-1e5", nodes=5600, quick=_BASIC),
        replace(_GROWTH, name="edges-1e6", nodes=53000),
    )
}
"""Every case by its name, in the order in which they are run."""
