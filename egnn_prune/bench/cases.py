"""What is timed: how many graphs of how many atoms, and how wide and deep the network is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PASSES = ("infer", "train", "forces")
"""Prediction without gradients; a training step with AdamW; energy and forces."""
VARIANTS = ("textbook", "egnn-pytorch", "nequip", "ours", "ours-50", "ours-75", "ours-90")
"""Whose network; ``ours-50`` is ours with half of all channels removed, uniformly."""

NOTES = {
    "egnn-pytorch": "its own function on padded batches of all pairs: inner widths of 2 (2 h + 1) "
    "and 4 h, which no option changes, and messages from an atom to itself; its floor is "
    "that of the products it does",
    "nequip": "its own code with its own radial functions at equal irreps, eager; its floor is "
    "that of the products it does",
}
"""What a reader has to know of networks that compute something else."""

BASIC = ("textbook", "ours")
COMPACT = ("ours-50", "ours-75", "ours-90")
EVERY_EGNN = ("textbook", "egnn-pytorch", "ours", *COMPACT)
IRREPS = ("nequip", "ours", "ours-50")
FEATURES = 5
"""Columns of the node features of every case."""
NEIGHBOURS = 20.0
"""Average number of atoms within the cutoff, away from the surface."""


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
        network: which family is compared.
        variants: measured unless others are asked for.
        passes: the same.
        compiled: pairs of variant and pass that are measured compiled, too.
        fresh: passes whose first calls are timed in processes of their own, too.
        quick: what is left of ``passes`` in a quick run.
        quick_compiled: what is left of ``compiled``.
    """

    name: str
    graphs: int
    nodes: int
    hidden: int
    layers: int
    cutoff: float | None = None
    network: Literal["egnn", "irreps"] = "egnn"
    variants: tuple[str, ...] = BASIC
    passes: tuple[str, ...] = ("infer", "train")
    compiled: tuple[tuple[str, str], ...] = ()
    fresh: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    quick_compiled: tuple[tuple[str, str], ...] = ()

    @property
    def possible(self) -> tuple[str, ...]:
        """The variants that compute this family of networks."""
        return EVERY_EGNN if self.network == "egnn" else IRREPS

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


def _compiled(passes: str, *variants: str) -> tuple[tuple[str, str], ...]:
    return tuple((variant, name) for name in passes.split() for variant in variants)


CUTOFF = 5.0
_QM9 = Case(
    "qm9-128",
    *(96, 18, 128, 7),
    variants=EVERY_EGNN,
    passes=PASSES,
    compiled=(*_compiled("infer train", *BASIC), *_compiled("infer", *COMPACT)),
    fresh=("infer",),
)
_GROWTH = Case("edges-1e3", 1, 89, 32, 2, cutoff=CUTOFF)
_DEPTH = Case("depth-2", 64, 18, 64, 2, passes=("train",))
_BATCH = Case("batch-1", 1, 18, 64, 4, passes=("infer",))
_WIDTH = Case("width-32", 16, 18, 32, 4)
CASES: dict[str, Case] = {
    case.name: case
    for case in (
        _QM9,
        replace(_QM9, name="qm9-64", hidden=64, quick=("infer", "train")),
        replace(
            _QM9,
            name="n-body",
            **{"graphs": 100, "nodes": 5, "hidden": 64, "layers": 4},
            compiled=_compiled("infer train", *BASIC),
            quick=PASSES,
            quick_compiled=_compiled("infer", *BASIC),
        ),
        Case(
            "atoms-2000",
            *(1, 2000, 64, 4),
            cutoff=CUTOFF,
            variants=(*BASIC, "ours-75"),
            passes=PASSES,
            fresh=("infer",),
            quick=("forces",),
        ),
        Case(
            "irreps-32",
            *(32, 18, 32, 3),
            cutoff=CUTOFF,
            network="irreps",
            variants=IRREPS,
            passes=PASSES,
            quick=("forces",),
        ),
        *(replace(_WIDTH, name=f"width-{n}", hidden=n) for n in (32, 64, 128, 256)),
        *(replace(_BATCH, name=f"batch-{n}", graphs=n) for n in (1, 10, 100, 1000)),
        *(replace(_DEPTH, name=f"depth-{n}", layers=n) for n in (2, 4, 8)),
        _GROWTH,
        replace(_GROWTH, name="edges-1e4", nodes=650, quick=("infer", "train")),
        replace(_GROWTH, name="edges-1e5", nodes=5600, quick=("infer", "train")),
        replace(_GROWTH, name="edges-1e6", nodes=53000),
    )
}
"""Every case by its name, in the order in which they are run."""
