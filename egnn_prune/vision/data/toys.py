"""Small data sets that come with scikit-learn: moons and digits."""

from __future__ import annotations

import numpy as np
import torch

from egnn_prune.vision.data.image_set import ImageSet
from egnn_prune.vision.data.parts import Parts


def from_moons() -> Parts:
    """Two interleaving half circles of 1,000 points ``[N, 2]`` with noise 0.2: always the same."""
    return {"train": _moons}


def from_digits() -> Parts:
    """1,797 handwritten digits ``[N, 1, 8, 8]``; the original's 0 to 16 becomes 0 to 255.

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits (UCI, 1998).
    """
    return {"train": _digits}


def _moons() -> ImageSet:
    from sklearn.datasets import make_moons

    points, labels = make_moons(1000, noise=0.2, random_state=42)
    images = torch.from_numpy(points.astype(np.float32))
    return ImageSet(images, torch.from_numpy(labels).long(), ("upper", "lower"))


def _digits() -> ImageSet:
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = torch.from_numpy((found.images * 255 / 16).round().astype(np.uint8))
    labels = torch.from_numpy(found.target).long()
    return ImageSet(pixels[:, None], labels, tuple(map(str, found.target_names)))
