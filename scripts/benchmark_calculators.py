"""Measure what a call of an ASE calculator costs: eager, recorded, exported and compiled.

    OMP_NUM_THREADS=1 python scripts/benchmark_calculators.py [--compiled]

Untrained networks of the size of data=extxyz_forces (whose time does not depend on the weights), on
one molecule of ethanol (9 atoms) and on a periodic box of 16 (144 atoms). The atoms move before
every call. `eager` is the network as it is, which calculators run for 100 steps; `recorded` is what
they replay from then on, in structures of up to 4,000 edges; `energy only` is eager without forces.
All take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from tqdm import tqdm

from egnn_prune.ase import ExportedCalculator, PrunedCalculator
from egnn_prune.deployment.export import export_program
from egnn_prune.deployment.moving_structure import RECORD_AFTER
from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel, TargetScale
from egnn_prune.system.timing import alternating_times
from egnn_prune.uncertainty import SinglePass

ELEMENTS = (1, 6, 8)
WARMUP = 10


def networks() -> dict[str, PropertyModel]:
    """Of the size of data=extxyz_forces, and an EGNN."""
    torch.manual_seed(0)
    scale = TargetScale((-13.0, -1030.0, -2040.0), 0.3, 2.0)
    irreps = PropertyModel.build_irreps(
        ELEMENTS,
        copies=16,
        layers=3,
        hidden=32,
        members=5,
        options=IrrepsOptions(cutoff=5.0, lmax=2),
        scale=scale,
    )
    egnn = PropertyModel.build(
        ELEMENTS,
        hidden=64,
        layers=4,
        members=5,
        options=EGNNOptions(cutoff=5.0, radial=16),
        scale=scale,
    )
    return {"EGNN": egnn.eval(), "IrrepsNet": irreps.eval()}


def systems() -> dict[str, Atoms]:
    """One molecule, and a box of 16 of them at about half of the liquid's density."""
    box = molecule("CH3CH2OH")
    box.set_cell([5.8, 5.8, 5.8])
    box.pbc = True
    return {"ethanol, 9 atoms": molecule("CH3CH2OH"), "a box, 144 atoms": box.repeat((4, 2, 2))}


def caller(calculator: PrunedCalculator, atoms: Atoms, forces: bool = True) -> Callable[[], None]:
    """A call with the atoms elsewhere every time."""
    atoms, generator = atoms.copy(), np.random.default_rng(0)
    atoms.calc, start = calculator, atoms.positions.copy()

    def call() -> None:
        atoms.positions = start + 0.01 * generator.normal(size=start.shape)
        if forces:
            atoms.get_forces()
        else:
            atoms.get_potential_energy()

    return call


def measured(
    model: PropertyModel, atoms: Atoms, program: Path, repeats: int, compiled: bool
) -> dict[str, list[float]]:
    """Milliseconds of each way."""

    def ours(**options: bool) -> PrunedCalculator:
        return PrunedCalculator(SinglePass(model), on_uncertain="ignore", unit="eV", **options)

    recorded = caller(ours(), atoms)
    for _ in range(RECORD_AFTER + 2):
        recorded()
    runs = {"energy only": caller(ours(), atoms, forces=False), "eager": caller(ours(), atoms)}
    runs |= {"recorded": recorded}
    runs["exported"] = caller(ExportedCalculator(program, "ignore", unit="eV"), atoms)
    if compiled:
        runs["compiled"] = caller(ours(compiled=True), atoms)
    return alternating_times(runs, repeats, WARMUP, "cpu")


def parse() -> argparse.Namespace:
    """What can be asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=60, help="turns, up to 90")
    parser.add_argument("--compiled", action="store_true", help="torch.compile, too: minutes")
    found = parser.parse_args()
    if not 1 <= found.repeats <= RECORD_AFTER - WARMUP:  # later calls of `eager` are recorded
        parser.error(f"--repeats must be from 1 to {RECORD_AFTER - WARMUP}")
    return found


def main() -> None:
    """Measure, and print."""
    found = parse()
    cases = [(n, m, s, a) for n, m in networks().items() for s, a in systems().items()]
    with tempfile.TemporaryDirectory() as folder:
        for name, model, system, atoms in tqdm(cases, desc="measuring"):
            program = Path(folder) / f"{name}.pt2"
            if not program.exists():
                export_program(SinglePass(model), program, stress=False)
            times = measured(model, atoms, program, found.repeats, found.compiled)
            medians = {way: statistics.median(values) for way, values in times.items()}
            said = ", ".join(f"{way} {value:.1f}" for way, value in medians.items())
            tqdm.write(f"{name}, {system} (ms, median of {found.repeats}): {said}")


if __name__ == "__main__":
    main()
