"""One picture as an array: grey or colour, as it is stored."""

from __future__ import annotations

from typing import IO

import numpy as np
from PIL import Image

from egnn_prune.errors import DataError

#: Pillow's name of what a picture with this many channels must be.
MODES = {1: "L", 3: "RGB"}
#: Pictures that are the same in another mode, to the last bit.
SAME = {"1": "L", "P": "RGB"}
WORDS = {"L": "grey", "RGB": "colour", "RGBA": "transparent", "LA": "transparent and grey"}


def opened(source: IO[bytes], name: str) -> Image.Image:
    """A decoded picture.

    Args:
        source: its bytes, as PNG, JPEG, WebP or what else Pillow reads.
        name: what errors call it.

    Raises:
        DataError: it is damaged or no picture.
    """
    try:
        picture = Image.open(source)
        picture.load()
    except Exception as error:  # Pillow raises whatever its decoders stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name} is damaged or no image ({reason}); replace it or leave it away"
        ) from None
    if picture.mode == "P" and "transparency" in picture.info:
        return picture.convert("RGBA")
    return picture.convert(SAME[picture.mode]) if picture.mode in SAME else picture


def check_mode(picture: Image.Image, mode: str, name: str) -> None:
    """Compare a picture's mode with the one that all must have.

    Args:
        picture: from :func:`opened`.
        mode: ``L`` (grey) or ``RGB``.
        name: what errors call it.

    Raises:
        DataError: it is of another mode; says how to convert it.
    """
    if picture.mode != mode:
        raise DataError(
            f"{name} is a {WORDS.get(picture.mode, picture.mode)} image where {WORDS[mode]} is "
            f"expected; convert it with Pillow: image.convert({mode!r})"
        )


def check_size(picture: Image.Image, size: tuple[int, int], name: str, advice: str) -> None:
    """Compare a picture's width and height with those that all must have.

    Raises:
        DataError: it is of another size.
    """
    if picture.size != size:
        raise DataError(
            f"{name} is {picture.width} x {picture.height} pixels, not {size[0]} x {size[1]} like "
            f"the others; {advice}"
        )


def pixels(picture: Image.Image) -> np.ndarray:
    """Pixels of a grey or colour picture, uint8 ``[C, H, W]``."""
    array = np.asarray(picture)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
