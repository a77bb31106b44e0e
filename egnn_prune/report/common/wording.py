"""What a run counts: molecules, or the coordinates and graphs of a data set of positions."""

from __future__ import annotations

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
