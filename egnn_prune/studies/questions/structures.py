"""Structures of the study: drawn by seed, nested in size, tested on the same ones."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from ase.build import molecule
from torch_geometric.data import Data

from egnn_prune.adapters import load
from egnn_prune.ase.structures import graph_of
from egnn_prune.errors import ConfigError
from egnn_prune.studies.questions.forms import Form
from egnn_prune.studies.specialisation_systems import System, all_of_ethanol, frames_of_3bpa
from egnn_prune.studies.what_to_label_pools import hot_frames_of_3bpa
from egnn_prune.training.distillation import label

#: Of the quick form: another potential that comes with SevenNet labels shaken molecules, how many
#: there are to draw from, and how far their atoms, and those of "hot" ones, are moved, in Angstrom.
LABELS, SHAKEN, MOVED, HOTTER = "7net-l3i5", 60, 0.08, 0.16


def structures(form: Form, name: str, seed: int, train: int) -> System:
    """A system of a seed: more training structures contain fewer, validation ones stay the same.

    Args:
        form: how many there are for validation and tests.
        name: ``ethanol``, ``3bpa`` or ``shaken``.
        seed: of the draw; test structures are those of all seeds.
        train: how many to train on.

    Raises:
        ConfigError: there are too few, or the data are not here.
    """
    pool, held_out = _parts(name)
    if form.val + train > len(pool):
        raise ConfigError(
            f"{name} has {len(pool):,} structures for training and validation, not "
            f"{form.val + train:,}; ask for fewer"
        )
    rows = np.random.default_rng(seed).permutation(len(pool))
    val, chosen = rows[: form.val], rows[form.val : form.val + train]
    tested = np.random.default_rng(0).permutation(len(held_out))[: form.test]
    train_part, val_part = ([pool[i] for i in rows] for rows in (chosen, val))
    return System(name, train_part, val_part, [held_out[i] for i in tested], "data")


@lru_cache
def _parts(name: str) -> tuple[list[Data], list[Data]]:
    """What seeds draw from, and what is held out from all of them."""
    if name == "shaken":
        made = _shaken(2 * SHAKEN, MOVED, 0)
        return made[:SHAKEN], made[SHAKEN:]
    if name == "ethanol":
        return all_of_ethanol()
    return frames_of_3bpa("train_300K"), frames_of_3bpa("test_300K")


@lru_cache
def hot(name: str) -> list[Data]:
    """Labelled structures of a system that are hotter than all that networks are trained on.

    Of 3BPA those frames of mixed temperatures whose energy is above that of every frame at 300 K.
    """
    if name == "shaken":
        return _shaken(SHAKEN, HOTTER, 1)
    return hot_frames_of_3bpa()


def _shaken(count: int, size: float, seed: int) -> list[Data]:
    """Ethanol molecules with normal noise on every coordinate, labelled."""
    draws, found = np.random.default_rng(seed), []
    for _ in range(count):
        graph = graph_of(molecule("CH3CH2OH"))
        graph.pos += size * torch.from_numpy(draws.normal(size=graph.pos.shape))
        found.append(graph)
    return label(load(LABELS), found)
