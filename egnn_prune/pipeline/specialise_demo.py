"""Structures for a demonstration that needs no data: boxes of water, and ethanol."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

from egnn_prune.configs.declaration import described
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.errors import ConfigError

#: Structures of each kind, molecules along the edge of a box, and Angstrom between them (the
#: density of water).
COUNT, EDGE, SPACING = 50, 2, 3.105
#: Angstrom: how far atoms are shaken, and closer than which no two of different molecules come.
SHAKEN, CLOSEST = 0.06, 1.55
#: What the demonstration sets, unless it was set to something else.
SHORT = {
    "labels": "teacher",
    "training.steps": 80,
    "training.batch_size": 3,
    "training.augmented": 0,
    "training.dynamics": 0,
    "cut.steps": 15,
    "cut.structures": 24,
    "cut.timings": 3,
}


def demonstration(settings: SpecialiseSettings) -> SpecialiseSettings:
    """The settings with those of a demonstration where they had their defaults.

    Raises:
        ConfigError: a setting contradicts it.
    """
    if settings.data.path is not None:
        raise ConfigError("demo=true makes its own structures; leave data.path away, or demo")
    usual = {name: value for name, value, _ in described(SpecialiseSettings())}
    given = {name: value for name, value, _ in described(settings)}
    for name, value in SHORT.items():
        section, _, last = name.rpartition(".")
        if given[name] == usual[name]:
            setattr(getattr(settings, section) if section else settings, last, value)
    return settings


def demo_structures(seed: int, count: int = COUNT) -> list[Atoms]:
    """Periodic boxes of :data:`EDGE` cubed water molecules by turns with molecules of ethanol."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        made += [water_box(rng), shaken(molecule("CH3CH2OH"), rng)]
    return made


def water_box(rng: np.random.Generator) -> Atoms:
    """Water molecules on a cubic grid, turned at random so that none come too close, shaken."""
    box = Atoms(cell=[EDGE * SPACING] * 3, pbc=True)
    for place in np.ndindex(EDGE, EDGE, EDGE):
        box += _placed(box, SPACING * np.array(place), rng)
    return shaken(box, rng)


def _placed(box: Atoms, place: np.ndarray, rng: np.random.Generator) -> Atoms:
    """The first of many orientations that is far enough from its neighbours, or the farthest."""
    best, farthest = molecule("H2O"), 0.0
    for _ in range(60):
        water = molecule("H2O")
        water.positions = Rotation.random(random_state=rng).apply(water.positions) + place
        if not len(box):
            return water
        both = box + water
        apart = both.get_all_distances(mic=True)[: len(box), len(box) :].min()
        if apart > farthest:
            best, farthest = water, apart
        if apart > CLOSEST:
            break
    return best


def shaken(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """The structure with every atom moved a little."""
    atoms.positions += SHAKEN * rng.normal(size=atoms.positions.shape)
    return atoms
