"""What a network can be asked for: shapes, widths and probabilities that make sense."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

from egnn_prune.errors import ConfigError


def whole_numbers(values: Iterable[int], what: str) -> tuple[int, ...]:
    """The values as a tuple of at least one positive integer.

    Args:
        values: such as hidden widths; a list that a configuration file holds will do.
        what: how the message calls them.

    Raises:
        ConfigError: none at all, or one that is no positive whole number.
    """
    found = tuple(values) if isinstance(values, Iterable) else (values,)
    if not found or isinstance(values, str) or not all(_is_positive(v) for v in found):
        raise ConfigError(
            f"{what} must be one or more whole numbers of at least 1, such as [30, 20], "
            f"not {values!r}"
        )
    return tuple(int(v) for v in found)


def image_shape(shape: tuple[int, ...], name: str, least: int = 1) -> tuple[int, int, int]:
    """``(channels, height, width)`` of the images that a convolutional network is built for.

    Args:
        shape: of one input.
        name: of the network.
        least: the smallest height and width, in pixels, that leave something after its pooling.

    Raises:
        ConfigError: the inputs are no images, or too small.
    """
    if len(shape) != 3:
        raise ConfigError(
            f"{name} takes images of shape (channels, height, width), not inputs of shape {shape}; "
            "network.name=mlp takes any shape"
        )
    channels, height, width = shape
    if min(height, width) < least:
        raise ConfigError(
            f"{name} needs images of at least {least} x {least} pixels, not {height} x {width}; "
            "use larger images or a smaller network such as mlp"
        )
    return channels, height, width


def one_of(value: str, choices: Iterable[str], what: str) -> str:
    """The value, if it is one of the choices.

    Raises:
        ConfigError: it is not.
    """
    if value not in tuple(choices):
        raise ConfigError(f"{what} must be one of {', '.join(choices)}, not {value!r}")
    return value


def _is_positive(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
