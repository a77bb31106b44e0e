"""Whether a molecule stays whole where only errors of a potential break it so soon."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from torch import nn
from torch_geometric.data import Data
from tqdm import tqdm

from egnn_prune.ase.velocities import set_thermal_velocities
from egnn_prune.audit.tail import BONDED
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.observables import STEP, atoms_of, thermostat

#: Temperatures in Kelvin, and simulations at each.
KELVIN, RUNS = (1000, 2000), 2
#: In sums of covalent radii: a bond is broken beyond the first, atoms coincide within the second.
BROKEN, COINCIDE = 2.0, 0.6


def survival(model: nn.Module, start: Data, steps: int, seed: int) -> Row:
    """How long molecules stay whole in Langevin dynamics.

    Args:
        model: a potential.
        start: where simulations begin.
        steps: of each simulation, of half a femtosecond.
        seed: of velocities and of the thermostat.

    Returns:
        ``whole_ps``: by temperature the time of each simulation until a bond was broken or two
        atoms coincided, in ps; and ``ps``, the time of one that nothing ended.
    """
    found: dict[str, list[float]] = {}
    for kelvin in KELVIN:
        found[str(kelvin)] = []
        for k in range(RUNS):
            atoms = atoms_of(model, start)
            found[str(kelvin)].append(whole(atoms, kelvin, steps, seed + 100 * k) * STEP / 1000)
    return {"whole_ps": found, "ps": steps * STEP / 1000}


def whole(atoms: Atoms, kelvin: float, steps: int, seed: int) -> int:
    """Steps until the molecule breaks, at most as many as are asked for."""
    set_thermal_velocities(atoms, kelvin, seed)
    bath = thermostat(atoms, kelvin, seed)
    first, second = np.triu_indices(len(atoms), 1)
    radii = covalent_radii[atoms.numbers]
    sums = radii[first] + radii[second]
    bonded = atoms.get_all_distances()[first, second] < BONDED * sums
    with tqdm(total=steps + 1, desc=f"{kelvin} K", unit="step", leave=False) as bar:
        for step, _ in enumerate(bath.irun(steps)):  # yields at step 0, too
            bar.update()
            apart = atoms.get_all_distances()[first, second] / sums
            # a comparison with NaN is false: not whole, either
            if not ((apart > COINCIDE) & (~bonded | (apart < BROKEN))).all():
                return step
    return steps
