"""What all calibrations share: how they are fitted, applied, stored and loaded."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.calibration.points import positive_variance, regression
from egnn_prune.uncertainty.estimator import Predicted


class Calibration(nn.Module):
    """A map from the error bars that a model states to those that its errors deserve.

    Fitted on a *validation* prediction, never on training or test data, and then applied to any
    prediction of the same model. No calibration moves the mean of a regression.

    What is fitted stands in one-dimensional buffers, empty until then, in the dtype of the
    prediction (fitting itself computes in float64). So it is saved, moved and cast with the model.
    The number of knots or scores depends on the data, therefore loading takes the sizes from the
    file: interpolating onto a fixed number of knots would lose the exact conformal quantile.

    Attributes:
        name: the method's name in ``CALIBRATIONS``.
        fitted_names: the buffers.
        coverage: the coverage of :meth:`interval` unless another is asked for.
    """

    name: ClassVar[str]
    fitted_names: ClassVar[tuple[str, ...]] = ()
    coverage: float = 0.9

    def __init__(self) -> None:
        super().__init__()
        for name in self.fitted_names:
            self.register_buffer(name, torch.empty(0))

    def fit(self, prediction: Predicted, y: Numbers) -> Self:
        """Fit on a validation prediction.

        Args:
            prediction: what the model predicts for validation data.
            y: ``[...]`` targets in the shape of the mean, or labels ``[B]`` for classes; a tensor,
                a NumPy array or a list.

        Raises:
            InputError: there are fewer than 10 targets, shapes differ, something is NaN, infinite
                or a zero variance, or the prediction is of the other kind (regression, classes).
        """
        raise NotImplementedError

    def forward(self, prediction: Predicted) -> Predicted:
        """The calibrated prediction, differentiable, of the same shapes, dtype and device.

        Raises:
            ConfigError: nothing was fitted.
            InputError: the prediction is of the other kind (regression, classes).
        """
        raise NotImplementedError

    def interval(
        self, prediction: Predicted, coverage: float | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Central interval :math:`\mu \mp z_{(1+c)/2}\, \sigma` of the calibrated Gaussian.

        Args:
            prediction: as the model states it, *not* yet calibrated.
            coverage: share c of targets to cover, in (0, 1); ``None`` for :attr:`coverage`.

        Returns:
            Lower and upper ends ``[...]``, in the unit of the target.

        Raises:
            ConfigError: nothing was fitted, or ``coverage`` is out of range.
            InputError: the prediction is not a regression, or a variance is not positive.
        """
        z = NormalDist().inv_cdf((1 + self.checked_coverage(coverage)) / 2)
        prediction = regression(self(regression(prediction)))
        half = z * positive_variance(prediction).sqrt()
        return prediction.mean - half, prediction.mean + half

    def settings(self) -> dict[str, Any]:
        """Constructor arguments, as plain JSON."""
        return {}

    def checked_coverage(self, coverage: float | None) -> float:
        """The coverage to work with, checked."""
        return checked_coverage(self.coverage if coverage is None else coverage)

    def fitted(self, name: str, like: Tensor) -> Tensor:
        """A buffer in the dtype and on the device of ``like``.

        Raises:
            ConfigError: nothing was fitted.
        """
        value: Tensor = getattr(self, name)
        if value.numel() == 0:
            raise ConfigError(
                f"the calibration {self.name!r} is not fitted; call fit with a validation "
                "prediction and its targets, or load it"
            )
        return value.to(like)

    def store(self, like: Tensor, **values: Tensor) -> None:
        """Keep what was fitted, in the dtype and on the device of ``like``."""
        for name, value in values.items():
            setattr(self, name, value.reshape(-1).to(like))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take size and dtype of every buffer from the state, its device from the module."""
        for name in self.fitted_names:
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.dim() == 1:
                setattr(self, name, torch.empty_like(stored, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class NoCalibration(Calibration):
    """Leaves every prediction as it is: what the other methods are compared with."""

    name = "none"

    def fit(self, prediction: Predicted, y: Numbers) -> Self:
        """Nothing to fit."""
        return self

    def forward(self, prediction: Predicted) -> Predicted:
        """The prediction itself."""
        return prediction


def checked_coverage(coverage: float) -> float:
    """The coverage, unless it is out of range.

    Raises:
        ConfigError: it is.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage must lie between 0 and 1, such as 0.9, not {coverage}")
    return coverage
