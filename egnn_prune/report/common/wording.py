"""What a run counts: molecules, or the coordinates and graphs of a data set of positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from egnn_prune.report.common.files import Metrics, number


@dataclass(frozen=True)
class Words:
    """The words for what a run's numbers are about, in the singular.

    Attributes:
        graph: What is drawn, split and calibrated on.
        value: What one prediction with one error bar is made for.
        positions: Whether the run predicts positions, several numbers per graph.
        reference: What is predicted without any network, subtracted in the parity plot.
        simplest: The same as the subject of a sentence.
    """

    graph: str
    value: str
    positions: bool
    reference: str
    simplest: str


def unequal_steps(metrics: Metrics) -> str:
    """How many steps each model took, where they took different numbers; nothing elsewhere.

    Args:
        metrics: The checked content of ``metrics.json``; ``steps`` has a list a stage, one number
            for each of its fits.
    """
    steps = metrics.get("steps")
    steps = steps if isinstance(steps, Mapping) else {}
    dense, baseline, pruned, scratch = (
        [number(n) for n in found] if isinstance(found := steps.get(name), list) else []
        for name in ("dense", "baseline", "pruned", "scratch")
    )
    if len(baseline) != 1 or len(pruned) != 1:
        return ""  # of an earlier version, or an ensemble's
    whole = [*dense, *baseline] if len(dense) == 1 else []
    if baseline == pruned and (len(scratch) != 2 or len(whole) != 2 or scratch == whole):
        return ""
    before = f" after the first {dense[0]:,.0f}" if len(dense) == 1 else ""
    more = f"; the same shape from scratch {sum(scratch):,.0f} in all" if scratch else ""
    return (
        "Fits ended early by themselves (training.patience), so the models did not take equal "
        f"numbers of optimiser steps:{before} the dense model took {baseline[0]:,.0f} extra steps "
        f"and the pruned one {pruned[0]:,.0f}{more}."
    )


def words(metrics: Metrics) -> Words:
    """The words of a run; only runs that predict positions have a ``test_mse``.

    Args:
        metrics: The checked content of ``metrics.json``.
    """
    if number(metrics["models"]["dense"].get("test_mse")) >= 0:
        return Words("graph", "coordinate", True, "starting position", "Predicting no movement")
    # Files from before per_element_fit was written down come from energies.
    if metrics["dataset"].get("per_element_fit", True):
        reference, simplest = "per-element reference", "The per-element linear fit alone"
    else:
        reference, simplest = "training mean", "The training mean alone"
    return Words("molecule", "molecule", False, reference, simplest)
