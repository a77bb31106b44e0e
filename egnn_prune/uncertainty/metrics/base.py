"""What all metrics of this folder share: columns kept per sample, and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from egnn_prune.errors import InputError
from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.checks import checked_gaussian

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class SampleMetric(Metric):
    """A metric that keeps numbers per sample, in float64, and can draw them.

    Most of these scores rank or bin the samples, so they cannot be summed batch by batch. The
    states are lists which torchmetrics concatenates over batches and processes. Call ``update`` for
    every batch and ``compute`` at the end; ``forward`` would score each batch for itself, and small
    batches cannot be ranked.

    Args:
        columns: names of the states.
        kwargs: what every torchmetrics metric takes.
    """

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False

    def __init__(self, *columns: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # torchmetrics gives a process without data an empty tensor of this type to gather
        self.set_dtype(torch.float64)
        self.columns = columns
        for name in columns:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def keep(self, *values: Tensor) -> None:
        """Append ``[B]`` numbers to every column."""
        for name, value in zip(self.columns, values, strict=True):
            getattr(self, name).append(value.detach().double())

    def kept(self) -> tuple[Tensor, ...]:
        """The columns of all samples so far, ``[N]`` each.

        Raises:
            InputError: there are none.
        """
        states = [getattr(self, name) for name in self.columns]
        if any(len(state) == 0 for state in states):
            raise InputError(
                f"{type(self).__name__} has seen no sample; call update with at least one first"
            )
        return tuple(dim_zero_cat(state) for state in states)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Draw what lies behind the score; subclasses override it."""
        raise NotImplementedError

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None
    ) -> tuple[Figure, Axes]:
        """Draw what lies behind the score, or given values of it over time.

        Args:
            val: values of ``compute`` or ``forward``, drawn as torchmetrics does; ``None`` draws
                the samples so far.
            ax: where to draw; a new figure by default, which is the caller's to close.

        Raises:
            InputError: there is no sample yet.
        """
        from matplotlib import pyplot as plt

        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            columns = () if val is not None else self.kept()
        axes = plt.subplots()[1] if ax is None else ax
        if val is not None:
            self._plot(val, axes)
        else:
            self.draw(axes, *(column.cpu() for column in columns))
        return axes.figure, axes  # type: ignore[return-value]


class GaussianMetric(SampleMetric):
    """A score of Gaussian predictive distributions; subclasses override :meth:`score`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("mean", "variance", "target", **kwargs)

    def update(self, mean: Numbers, variance: Numbers, target: Numbers) -> None:
        """Add samples.

        Raises:
            InputError: shapes differ, or a number cannot be scored (see :func:`checked_gaussian`).
        """
        self.keep(*checked_gaussian(mean, variance, target))

    def compute(self) -> Tensor:
        """The score, a float64 scalar.

        Raises:
            InputError: there are too few samples.
        """
        mean, variance, target = self.kept()
        return self.score(mean, variance, target)

    def score(self, mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
        """The score of checked ``[N]`` columns."""
        raise NotImplementedError


def histogram(axes: Axes, terms: Tensor, name: str) -> None:
    """Distribution of a score over the samples; the counts are logarithmic, for the tails."""
    axes.hist(terms.numpy(), bins=50, color="0.7", log=True)
    axes.axvline(float(terms.mean()), color="C3", label=f"mean {float(terms.mean()):.3g}")
    axes.set(xlabel=name, ylabel="samples")
    axes.legend()
