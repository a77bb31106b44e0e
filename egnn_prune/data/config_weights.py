"""How much each structure counts in training, as GAP and MACE write it: ``config_weight``."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from torch import Tensor

from egnn_prune.errors import DataError

#: The key of a comment line, the array of an ``.npz``, and the field ``[1]`` of a graph.
KEY = "config_weight"
#: MACE's weights of single quantities, which are not read.
OF_ONE_QUANTITY = re.compile(r"config_\w+_weight")


def config_weight(atoms: Atoms, where: str) -> float:
    """The weight of a structure; 1 where it has none.

    Raises:
        DataError: it is not one finite number of at least 0.
    """
    value = atoms.info.get(KEY, 1.0)
    if np.size(value) != 1 or np.asarray(value).dtype.kind not in "iuf":
        raise DataError(_wrong(where, value))
    weight = float(np.ravel(value)[0])
    if not 0 <= weight < np.inf:
        raise DataError(_wrong(where, value))
    return weight


def check_weights(weights: np.ndarray, name: str) -> None:
    """Refuse weights ``[M]`` of which one is not a finite number of at least 0.

    Raises:
        DataError: names the first.
    """
    if weights.dtype.kind not in "iuf":
        raise DataError(f"{KEY} of {name} must hold numbers, not {weights.dtype}")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise DataError(_wrong(f"molecule {wrong[0]} of {name}", weights[wrong[0]]))


def about_weights(weights: np.ndarray, train: Tensor, name: str) -> list[str]:
    """What is said of the weights of a training split; nothing where all are 1.

    Args:
        weights: ``[M]``, of all structures.
        train: row numbers of those that are trained on.
        name: the file.

    Raises:
        DataError: all training structures have the weight 0.
    """
    of_training = np.asarray(weights)[train.numpy()]
    if not of_training.any():
        raise DataError(
            f"all training structures of {name} have {KEY}=0, so nothing would be learned; give "
            "some a larger weight"
        )
    if (of_training == 1).all():
        return []
    return [
        f"{KEY}: {of_training.min():g} to {of_training.max():g} in training, mean "
        f"{of_training.mean():.4g}; it multiplies a structure's training loss, and no error"
    ]


def without_weights(notes: Sequence[str]) -> list[str]:
    """What is said of a source whose weights are not used, in place of :func:`about_weights`."""
    own = [note for note in notes if not note.startswith(f"{KEY}:")]
    unused = f"not used: {KEY}; all structures count alike here"
    return own if len(own) == len(notes) else [*own, unused]


def not_read(atoms: Atoms) -> list[str]:
    """What is said of weights of single quantities, such as ``config_forces_weight``."""
    found = sorted(name for name in atoms.info if OF_ONE_QUANTITY.fullmatch(name))
    if not found:
        return []
    return [f"not used: {', '.join(found)}; only {KEY}, which multiplies the whole loss, is read"]


def _wrong(where: str, value: object) -> str:
    return (
        f"{where} has {KEY}={str(value)[:40]}, and a weight is one finite number of at least 0; "
        "write one, or leave the key away (then it is 1)"
    )
