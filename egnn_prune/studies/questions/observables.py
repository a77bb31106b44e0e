"""What simulations with two potentials show: distances, vibrations, conservation of energy."""

from __future__ import annotations

import tempfile

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from torch import nn
from torch_geometric.data import Data
from tqdm import tqdm

from egnn_prune.adapters import calculator
from egnn_prune.ase.velocities import set_thermal_velocities
from egnn_prune.runs.result_store import Row

#: Kelvin, femtoseconds, friction in 1/fs, and steps between frames.
KELVIN, STEP, FRICTION, EVERY = 300.0, 0.5, 0.02, 10
#: Of the simulation, what brings it to its temperature.
SETTLING = 0.25
#: Steps within which a minimum must be found.
RELAXING = 1000


def observables(full: nn.Module, other: nn.Module, start: Data, steps: int, seed: int) -> Row:
    """How far what is simulated with another network is from what the full one says.

    Args:
        full: the reference.
        other: compared with it; the full one itself shows what chance does.
        start: where simulations begin.
        steps: of each, a quarter with a thermostat first.
        seed: of velocities; those of ``other`` are of another seed.

    Returns:
        ``distances``: Wasserstein distance of the distributions of distances (Angstrom, mean over
        pairs of elements); ``wavenumbers``: mean absolute difference (1/cm) of harmonic ones, and
        ``minima``: how far the minima are apart in which these were found (Angstrom, the largest
        difference of a distance; far apart are other conformers), both if minima were found;
        ``drift``: change of the energy at constant energy, in meV per atom and ps, of the other.
    """
    runs = [simulated(model, start, steps, seed + 100 * k) for k, model in enumerate((full, other))]
    (those, _), (these, drift) = runs
    apart = [float(wasserstein_distance(those[pair], these[pair])) for pair in those]
    row: Row = {"distances": float(np.mean(apart)), "drift": drift}
    a, b = (minimum(model, start) for model in (full, other))
    if a is None or b is None:
        return row
    return {
        **row,
        "wavenumbers": float(np.abs(wavenumbers(a) - wavenumbers(b)).mean()),
        "minima": float(np.abs(a.get_all_distances() - b.get_all_distances()).max()),
    }


def simulated(
    model: nn.Module, start: Data, steps: int, seed: int
) -> tuple[dict[tuple[int, int], NDArray[np.float64]], float]:
    """Distances by pair of elements along a run at constant energy, and the drift of the energy."""
    atoms = atoms_of(model, start)
    set_thermal_velocities(atoms, KELVIN, seed)
    run(thermostat(atoms, KELVIN, seed), round(SETTLING * steps), "settling")
    atoms.set_constraint()
    found: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    energies: list[float] = []
    z = atoms.numbers
    first, second = np.triu_indices(len(atoms), 1)
    dynamics = VelocityVerlet(atoms, STEP * units.fs)

    def look() -> None:
        energies.append(atoms.get_total_energy())
        lengths = atoms.get_all_distances()[first, second]
        kinds = np.sort(np.stack([z[first], z[second]]), 0).T
        for kind in np.unique(kinds, axis=0):
            pair = (int(kind[0]), int(kind[1]))
            found.setdefault(pair, []).append(lengths[(kinds == kind).all(1)])

    dynamics.attach(look, interval=EVERY)
    run(dynamics, steps - round(SETTLING * steps), "dynamics")
    times = np.arange(len(energies)) * EVERY * STEP / 1000
    slope = np.polyfit(times, energies, 1)[0] if len(energies) > 1 else 0.0
    return {pair: np.concatenate(v) for pair, v in found.items()}, 1000 * slope / len(atoms)


def thermostat(atoms: Atoms, kelvin: float, seed: int) -> Langevin:
    """Langevin dynamics; the centre of mass is held."""
    atoms.set_constraint(FixCom())
    return Langevin(
        atoms,
        STEP * units.fs,
        temperature_K=kelvin,
        friction=FRICTION / units.fs,
        rng=np.random.default_rng(seed),
        fixcm=False,  # the constraint does it without changing the temperature
    )


def run(dynamics: MolecularDynamics, steps: int, label: str) -> None:
    """Take steps, and show how far they are."""
    with tqdm(total=steps + 1, desc=label, unit="step", leave=False) as bar:
        for _ in dynamics.irun(steps):  # yields at step 0, too
            bar.update()


def minimum(model: nn.Module, start: Data) -> Atoms | None:
    """The nearest minimum of the energy, if one is found."""
    atoms = atoms_of(model, start)
    found = BFGS(atoms, logfile=None).run(fmax=0.005, steps=RELAXING)
    return atoms if found else None


def wavenumbers(atoms: Atoms) -> NDArray[np.float64]:
    """Harmonic wavenumbers in 1/cm, without the six nearest to zero, which are rigid motions."""
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(atoms, name=f"{folder}/modes")
        vibrations.run()
        found = vibrations.get_frequencies()
    signed = found.real - found.imag  # an imaginary mode counts as negative
    return np.sort(signed[np.argsort(np.abs(signed))[6:]])


def atoms_of(model: nn.Module, start: Data) -> Atoms:
    """A molecule with the potential as its calculator."""
    atoms = Atoms(start.z.numpy(), start.pos.double().numpy())
    atoms.calc = calculator(model)
    return atoms
