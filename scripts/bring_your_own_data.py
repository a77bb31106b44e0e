"""Your structures in, a pruned potential out, and the potential at work: three commands.

FILE is an extended XYZ file (or anything that ASE reads) with an energy for each structure and, if
you have them, forces; units eV and eV/Angstrom. Without FILE a small one is made: 300 distorted
ethanol molecules with energies and forces of ASE's EMT, a toy potential for trying things out.

Every command is printed before it runs, so that you can change it and run it yourself.
SETTING=VALUE arguments go to the training, such as training.max_epochs=200.

    python scripts/bring_your_own_data.py --out demo training.max_epochs=5
    python scripts/bring_your_own_data.py structures.xyz --out mine training.force_weight=10
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from egnn_prune.cli.script import run_script

SCRIPTS = Path(__file__).resolve().parent


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arguments", nargs="*", metavar="FILE | SETTING=VALUE", help="see above")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for everything")
    parser.add_argument("--steps", type=int, default=1000, help="steps of dynamics (1000)")
    found = parser.parse_intermixed_args()
    files = [a for a in found.arguments if "=" not in a]
    if len(files) > 1:
        parser.error(f"one FILE, not {len(files)}; settings are written SETTING=VALUE")
    found.file = Path(files[0]) if files else None
    return found, [a for a in found.arguments if "=" in a]


def toy_structures(path: Path, count: int = 300) -> Path:
    """Distorted ethanol molecules with energies and forces of ASE's EMT."""
    import ase.io
    import numpy as np
    from ase.build import molecule
    from ase.calculators.emt import EMT
    from ase.calculators.singlepoint import SinglePointCalculator

    rng, frames = np.random.default_rng(0), []
    for _ in range(count):
        atoms = molecule("CH3CH2OH")
        atoms.positions += 0.08 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    path.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(path, frames, format="extxyz")
    return path


def call(script: str, *arguments: object) -> None:
    """Print a command, run it, and end with its exit code where it fails."""
    words = [str(a) for a in arguments]
    print(f"\n$ python scripts/{script} {shlex.join(words)}", flush=True)
    done = subprocess.run([sys.executable, str(SCRIPTS / script), *words])
    if done.returncode:
        sys.exit(done.returncode)


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar, whatever characters it has."""
    return "'" + str(path).replace("'", "\\'") + "'"


def main() -> None:
    found, settings = parse()
    run_script(lambda: work(found, settings))


def work(found: argparse.Namespace, settings: list[str]) -> None:
    """Train a potential where the file has forces, else a model of energies; then use it."""
    from egnn_prune.data import load

    out = Path(found.out)
    file = found.file or toy_structures(out / "structures.extxyz")
    forces = load("extxyz", file).graphs[0].get("forces") is not None
    data = "extxyz_forces" if forces else "extxyz"
    places = f"data.path={quoted(file)}", f"out={quoted(out / 'run')}"
    call("train_pruned_egnn.py", f"data={data}", *places, *settings)
    call("predict.py", out / "run", file, "--out", out / "predictions")
    call("molecular_dynamics.py", out / "run", file, "--steps", found.steps, "--out", out / "md")


if __name__ == "__main__":
    main()
