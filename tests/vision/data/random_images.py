"""Images of random pixels, each the same whenever it is made."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def random_image(k: int, mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Image number ``k`` of a mode and size (width, height)."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(np.random.default_rng(k).integers(0, 256, shape, dtype=np.uint8))


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
