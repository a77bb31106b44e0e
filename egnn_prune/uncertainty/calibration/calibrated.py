"""An estimator together with its calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.uncertainty.calibration.base import Calibration
from egnn_prune.uncertainty.calibration.methods import build_calibration
from egnn_prune.uncertainty.estimator import Estimator, Predicted


class Calibrated(Estimator):
    """An estimator whose predictions are calibrated.

    The network belongs to the estimator alone: its weights stand in the state once, under
    ``estimator.network.``, next to ``calibration.``.

    Args:
        estimator: fitted, if it needs that.
        calibration: fitted on a validation prediction of this estimator, see :func:`calibrate`.
    """

    def __init__(self, estimator: Estimator, calibration: Calibration) -> None:
        nn.Module.__init__(self)  # not Estimator's, which would register the network twice
        self.estimator = estimator
        self.calibration = calibration
        self.atoms = None

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        """The estimator's network."""
        return self.estimator.network

    def fit(self, batches: Iterable[Any]) -> Self:
        """Refused: a calibration holds for the estimator that it was fitted to.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a calibrated estimator cannot be fitted again, its calibration would no longer hold; "
            "fit calibrated.estimator and call calibrate with it"
        )

    def estimate(self, batch: Any) -> Predicted:
        """The calibrated prediction, with autograd."""
        calibrated: Predicted = self.calibration(self.estimator.estimate(batch))
        return calibrated

    def interval(self, batch: Any, coverage: float | None = None) -> tuple[Tensor, Tensor]:
        """Prediction interval without gradients; see :meth:`Calibration.interval`.

        Args:
            batch: what the network takes.
            coverage: in (0, 1); ``None`` for the calibration's own, 0.9 unless it was made for
                another.
        """
        with torch.no_grad():
            return self.calibration.interval(self.estimator.predict(batch), coverage)

    def settings(self) -> dict[str, Any]:
        """Name and settings of the calibration, and the estimator's settings, as plain JSON."""
        return {
            "calibration": self.calibration.name,
            "calibration_settings": self.calibration.settings(),
            "estimator_settings": self.estimator.settings(),
        }


def calibrate(
    estimator: Estimator,
    batches: Iterable[Any],
    method: str | Calibration = "variance",
    targets: Callable[[Any], Tensor] | None = None,
) -> Calibrated:
    """Fit a calibration on validation batches.

    Args:
        estimator: fitted, if it needs that; its network may lie on any device.
        batches: *validation* batches: graphs with targets ``y``, or pairs of inputs and targets, of
            which the inputs are predicted on.
        method: a name in ``CALIBRATIONS``, or a calibration to fit, such as
            ``SplitConformal(0.8)``.
        targets: takes the targets from a batch, such as ``lambda batch: batch.forces`` where the
            estimator predicts forces; by default ``y``, or the second of a pair.

    Returns:
        The calibrated estimator. Estimator and network are shared with it, not copied.

    Raises:
        ConfigError: there is no method of that name, or the estimator is calibrated already.
        InputError: there are no batches, they hold no targets, or these cannot be fitted to.
    """
    if isinstance(estimator, Calibrated):
        raise ConfigError("this estimator is calibrated already; calibrate its .estimator instead")
    calibration = build_calibration(method) if isinstance(method, str) else method
    predictions: list[Predicted] = []
    found: list[Tensor] = []
    for batch in batches:
        pair = isinstance(batch, tuple | list)
        if pair and len(batch) != 2:
            raise InputError(
                f"validation batches are graphs or pairs of inputs and targets, not {len(batch)} "
                "things; hand over pairs"
            )
        predictions.append(estimator.predict(batch[0] if pair else batch).detach())
        y = targets(batch) if targets else (batch[1] if pair else getattr(batch, "y", None))
        if not isinstance(y, Tensor):
            raise InputError(
                "a validation batch has no targets; give it a tensor y, hand over pairs of inputs "
                "and targets, or say with targets= where they are"
            )
        found.append(y.detach().cpu())
    if not predictions:
        raise InputError("there are no validation batches to calibrate on")
    kind: Any = type(predictions[0])
    calibration.fit(kind.cat(predictions), torch.cat(found))
    device = next((p.device for p in estimator.parameters()), torch.device("cpu"))
    return Calibrated(estimator, calibration.to(device))
