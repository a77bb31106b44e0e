"""Which commands there are, and where each is."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

NAME = "egnn-prune"


class Entry(NamedTuple):
    """A command.

    Attributes:
        home: ``module:name`` in ``egnn_prune.cli``: a Job or a Tool, imported when it is called.
        summary: one line for ``--help``.
    """

    home: str
    summary: str

    def load(self) -> Any:
        """The :class:`~egnn_prune.cli.jobs.Job` or :class:`~egnn_prune.cli.arguments.Tool`."""
        module, _, name = self.home.partition(":")
        return getattr(importlib.import_module(f"egnn_prune.cli.{module}"), name)


COMMANDS = {
    "train": Entry("jobs:TRAIN", "train, select, prune, fine-tune, compact, compare: the main job"),
    "compare": Entry("jobs:COMPARE", "criteria against the dense baseline, over seeds"),
    "specialise": Entry("jobs:SPECIALISE", "make a pretrained potential small for your structures"),
    "predict": Entry("predict:main", "predict a file of structures, each with its error bar"),
    "md": Entry("md:main", "molecular dynamics with a trained model"),
    "audit": Entry("audit:main", "compare two potentials: what differs, what got worse"),
    "vision": Entry("jobs:VISION", "the same engine on images"),
    "study criteria": Entry("jobs:CRITERIA", "error against sparsity for several criteria"),
    "study sanity": Entry("jobs:SANITY", "controls that a pruning method has to beat"),
    "study calibration": Entry("jobs:CALIBRATION", "error bars of dense and pruned networks"),
    "study selection": Entry("jobs:SELECTION", "which graphs to fine-tune a pruned network on"),
    "study acquisition": Entry("jobs:ACQUISITION", "which structures to label next"),
    "study centroid": Entry("jobs:CENTROID", "training on uncertain graphs, on a toy"),
    "study forces": Entry("jobs:FORCES", "error bars of forces, by what was learned"),
    "study specialisation": Entry("jobs:SPECIALISATION", "what a potential made small can do"),
    "study what-to-label": Entry("jobs:WHAT_TO_LABEL", "which structures a potential learns from"),
    "study error-bars": Entry("jobs:ERROR_BARS", "error bars of potentials that were made small"),
    "study questions": Entry(
        "jobs:QUESTIONS", "the study: what pruning costs, what error bars give"
    ),
    "sweep": Entry("jobs:CRITERIA", "short for study criteria"),
    "bench": Entry("bench:main", "time our networks against others, beside a floor"),
    "export": Entry("export:main", "write a model as a torch.export program or as ONNX"),
    "status": Entry("status:main", "what the runs in a folder are doing, and how far they are"),
    "clean": Entry("clean:main", "what can be removed from a folder of runs, and remove it"),
    "report": Entry("report:main", "draw the figures and page of a run, study or audit again"),
}
SHELLS = ("bash", "zsh", "fish")
