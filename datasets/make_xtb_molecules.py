"""Make the embedded data set ``xtb_molecules.npz``: small organic molecules labelled by GFN2-xTB.

Random valid molecular graphs (H, C, N, O, F; ``random_graphs.py``) are embedded with ETKDG,
minimised with MMFF94, displaced once with the classical harmonic distribution, and labelled with
energy, atomisation energy, HOMO-LUMO gap, dipole and forces through tblite. See ``README.md``.

    python datasets/make_xtb_molecules.py                      # writes next to this script
    python datasets/make_xtb_molecules.py --check datasets/xtb_molecules.npz
"""

from __future__ import annotations

import os

# One thread per process, set before numpy loads its BLAS: two worker processes already fill the
# machine, and a threaded reduction may change the last bits of a result.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import hashlib
import io
import sys
import tempfile
import zipfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from random_graphs import grow_molecules  # next to this script
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator
from tqdm import tqdm

HARTREE, BOHR, DEBYE = 27.211386245988, 0.529177210903, 2.541746473  # eV, Angstrom, D per e*Bohr
KCAL_MOL, K_B, WAVENUMBER = 0.04336410, 8.617333262e-5, 521.4709  # eV, eV/K, cm^-1 per sqrt(eV/u)/A
TEMPERATURE = 300.0  # K
# Softer modes are treated as if they had this wavenumber (cm^-1). They are torsions and ring
# puckers: periodic, not harmonic, and a straight step of their harmonic size would stretch bonds.
SOFTEST = 300.0
MIN_DISTANCE, MAX_STRETCH, MIN_GAP = 0.6, 1.35, 0.5  # Angstrom, times the covalent radii, eV

HELD_OUT_SMARTS = "[CX2]#[NX1]"  # nitriles: seen neither in training nor in validation or test
HELD_OUT = Chem.MolFromSmarts(HELD_OUT_SMARTS)

SPLITS = ("train", "val", "test", "ood")
FRACTIONS = {"train": 0.70, "val": 500 / 6000, "test": 0.10, "larger": 350 / 6000}
LARGEST_SEEN = 7  # heavy atoms in any training molecule
FREE_ATOM_SPINS = {1: 1, 6: 2, 7: 3, 8: 2, 9: 1}  # unpaired electrons of the ground state
TARGETS = {"energy": "eV", "atomisation_energy": "eV", "gap": "eV", "dipole_norm": "D"}
BLOCK = 256  # candidates labelled at a time; fixed, so that the workers cannot change the result


def pool_of(smiles: str) -> str:
    """Name the pool a molecule belongs to: "seen", "larger" or "pattern" (which wins)."""
    mol = Chem.MolFromSmiles(smiles)
    if mol.HasSubstructMatch(HELD_OUT):
        return "pattern"
    return "larger" if mol.GetNumAtoms() > LARGEST_SEEN else "seen"


def thermal_displacement(
    gradient: Any, pos: np.ndarray, masses: np.ndarray, noise: np.ndarray
) -> np.ndarray | None:
    """Sample the classical harmonic distribution around a minimum.

    The displacement is ``M^-1/2 sqrt(kT K^+) noise`` with the mass-weighted Hessian ``K`` and
    white noise in Cartesian space. As a function of the matrix it depends neither on the signs
    nor on the choice of degenerate eigenvectors, which differ between LAPACK builds.

    Args:
        gradient: Function from positions [3N] in Angstrom to the gradient [3N] in eV/Angstrom.
        pos: Minimum, [N, 3] in Angstrom.
        masses: Atomic masses, [N] in u.
        noise: Standard normal numbers, [3N].

    Returns:
        Displacement [N, 3] in Angstrom, or None when the point is a saddle (below -100i cm^-1).
    """
    x, step, root = pos.ravel(), 1e-3, np.repeat(np.sqrt(masses), 3)
    hessian = np.array(
        [(gradient(x + d) - gradient(x - d)) / (2 * step) for d in step * np.eye(x.size)]
    )
    hessian = 0.5 * (hessian + hessian.T) / np.outer(root, root)
    axes = np.eye(3)
    rigid = [np.tile(axis, len(pos)) for axis in axes]
    rigid += [np.cross(axis, pos - masses @ pos / masses.sum()).ravel() for axis in axes]
    u, s, _ = np.linalg.svd(np.stack(rigid, 1) * root[:, None], full_matrices=False)
    u = u[:, s > 1e-6 * s[0]]  # five columns for a linear molecule
    internal = np.eye(x.size) - u @ u.T
    values, vectors = np.linalg.eigh(internal @ hessian @ internal)
    if values[0] < -((100.0 / WAVENUMBER) ** 2):
        return None
    amplitude = np.sqrt(K_B * TEMPERATURE / np.maximum(values, (SOFTEST / WAVENUMBER) ** 2))
    moved = internal @ (vectors @ (amplitude * (vectors.T @ (internal @ noise))))
    return (moved / root).reshape(-1, 3)


def xtb(numbers: np.ndarray, pos: np.ndarray, unpaired: int = 0) -> dict[str, Any]:
    """Run one GFN2-xTB single point.

    Args:
        numbers: Atomic numbers, [N].
        pos: Positions, [N, 3] in Angstrom.
        unpaired: Number of unpaired electrons.

    Returns:
        ``energy`` and ``gap`` in eV, ``dipole`` [3] in D, ``forces`` [N, 3] in eV/Angstrom.
    """
    calculator = Calculator("GFN2-xTB", numbers, pos / BOHR, uhf=unpaired)
    calculator.set("verbosity", 0)
    calculator.set("accuracy", 0.01)  # SCF converged to 1e-8 Hartree, well below the check's 1e-6
    result = calculator.singlepoint()
    levels = np.asarray(result.get("orbital-energies")).ravel()
    homo = round(float(np.sum(result.get("orbital-occupations"))) / 2) - 1
    return {
        "energy": float(result.get("energy")) * HARTREE,
        "gap": float(levels[homo + 1] - levels[homo]) * HARTREE if homo + 1 < len(levels) else 0.0,
        "dipole": np.asarray(result.get("dipole")) * DEBYE,
        "forces": -np.asarray(result.get("gradient")) * (HARTREE / BOHR),
    }


def make_molecule(smiles: str, seed: int) -> dict[str, Any] | str:
    """Embed, displace and label one molecule.

    Args:
        smiles: Canonical SMILES.
        seed: Seed of the data set; with the SMILES it fixes every random number used here, so
            the result depends neither on the order of the work nor on the process that does it.

    Returns:
        The arrays (units as in `xtb`, ``pos`` float32 in Angstrom), or why it was dropped.
    """
    rdBase.DisableLog("rdApp.*")
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}:{smiles}".encode()).digest()[:4], "big") >> 1
    rng = np.random.default_rng(own_seed)
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = own_seed  # type: ignore[assignment]  # wrong stub
    parameters.maxIterations = 50  # type: ignore[assignment]
    if rdDistGeom.EmbedMolecule(mol, parameters) != 0:
        return "not embedded by ETKDG"
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, "MMFF94")
    field = properties and rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties)
    if not field:
        return "no MMFF94 parameters"
    if field.Minimize(maxIts=5000, forceTol=1e-5, energyTol=1e-8) != 0:
        return "MMFF94 not converged"

    def gradient(x: np.ndarray) -> np.ndarray:
        # RDKit caches the interatomic distances and CalcGrad(positions) does not renew them:
        # without Initialize() every gradient after the first mixes two geometries (2026.9.1).
        field.Initialize()
        return np.array(field.CalcGrad(x.tolist())) * KCAL_MOL

    masses = np.array([atom.GetMass() for atom in mol.GetAtoms()])
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.uint8)
    pos = mol.GetConformer().GetPositions()
    moved = thermal_displacement(gradient, pos, masses, rng.standard_normal(pos.size))
    if moved is None:
        return "MMFF94 saddle point"
    pos = pos + moved
    # A random orientation, so that the frame of the embedding carries no information.
    a, b, c, d = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    cross = np.array([[0, -d, c], [d, 0, -b], [-c, b, 0]])
    pos = (pos - masses @ pos / masses.sum()) @ (np.eye(3) + 2 * a * cross + 2 * cross @ cross)
    pos = pos.astype(np.float32)  # before labelling: the labels belong to the stored positions
    exact = pos.astype(np.float64)

    distance = np.linalg.norm(exact[:, None] - exact[None], axis=-1) + 99 * np.eye(len(exact))
    if distance.min() < MIN_DISTANCE:
        return f"atoms closer than {MIN_DISTANCE} Angstrom"
    radii = np.array([Chem.GetPeriodicTable().GetRcovalent(int(z)) for z in numbers])
    ends = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]).T
    if np.any(distance[ends[0], ends[1]] > MAX_STRETCH * (radii[ends[0]] + radii[ends[1]])):
        return f"bond stretched above {MAX_STRETCH} times the covalent radii"
    try:
        labels = xtb(numbers, exact)
    except TBLiteRuntimeError:
        return "SCF not converged"
    if not all(np.isfinite(value).all() for value in labels.values()):
        return "label not finite"
    if labels["gap"] < MIN_GAP:
        return f"gap below {MIN_GAP} eV"
    return {"smiles": smiles, "z": numbers, "pos": pos, **labels}


def collect(molecules: int, seed: int, workers: int) -> dict[str, list[dict[str, Any]]]:
    """Label candidates in their fixed order until every pool is full; print what was dropped."""
    larger = round(molecules * FRACTIONS["larger"])
    held_in = sum(round(molecules * FRACTIONS[name]) for name in SPLITS[:3])
    wanted = {"seen": held_in, "larger": larger, "pattern": molecules - held_in - larger}
    pools: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    dropped: Counter[str] = Counter()
    candidates, tried = grow_molecules(seed), 0
    progress = tqdm(total=molecules, unit="mol", disable=None)
    with progress, Parallel(n_jobs=workers) as parallel:
        while any(len(pools[name]) < wanted[name] for name in wanted):
            block: list[str] = []
            while len(block) < BLOCK:
                pool = pool_of(smiles := next(candidates))
                if len(pools[pool]) < wanted[pool]:
                    block.append(smiles)
            results = parallel(delayed(make_molecule)(smiles, seed) for smiles in block)
            for smiles, made in zip(block, results, strict=True):
                pool = pool_of(smiles)
                if len(pools[pool]) == wanted[pool]:
                    continue
                tried += 1
                if isinstance(made, str):
                    dropped[made] += 1
                else:
                    pools[pool].append(made)
                    progress.update()
    print(f"{tried} candidates, {sum(dropped.values())} dropped")
    for reason, count in dropped.most_common():
        print(f"  {count:5d}  {reason}")
    return pools


def build(molecules: int, seed: int, workers: int) -> dict[str, np.ndarray]:
    """Build all arrays of the data set; their keys, shapes and units are listed in README.md."""
    atoms = {
        z: xtb(np.array([z]), np.zeros((1, 3)), n)["energy"] for z, n in FREE_ATOM_SPINS.items()
    }
    print("free atoms (eV):", {z: round(energy, 6) for z, energy in atoms.items()})
    pools = collect(molecules, seed, workers)
    order = np.random.default_rng(seed).permutation(len(pools["seen"]))
    rows = [pools["seen"][i] for i in order] + pools["larger"] + pools["pattern"]
    sizes = [round(molecules * FRACTIONS[name]) for name in SPLITS[:3]]
    ood = [len(pools["larger"]), len(pools["pattern"])]
    free = [sum(atoms[int(z)] for z in row["z"]) for row in rows]
    targets = [
        (row["energy"], row["energy"] - reference, row["gap"], np.linalg.norm(row["dipole"]))
        for row, reference in zip(rows, free, strict=True)
    ]
    packages = ("rdkit", "tblite", "numpy")
    return {
        "offset": np.cumsum([0] + [len(row["z"]) for row in rows]).astype(np.int32),
        "z": np.concatenate([row["z"] for row in rows]).astype(np.uint8),
        "pos": np.concatenate([row["pos"] for row in rows]).astype(np.float32),
        "forces": np.concatenate([row["forces"] for row in rows]).astype(np.float32),
        "targets": np.array(targets, dtype=np.float64),
        "target_names": np.array(list(TARGETS)),
        "target_units": np.array(list(TARGETS.values())),
        "dipole": np.array([row["dipole"] for row in rows], dtype=np.float32),
        "smiles": np.array([row["smiles"] for row in rows]),
        "split": np.repeat([0, 1, 2, 3], [*sizes, sum(ood)]).astype(np.uint8),
        "split_names": np.array(SPLITS),
        "ood_reason": np.repeat([0, 1, 2], [sum(sizes), *ood]).astype(np.uint8),
        "ood_reason_names": np.array(["none", "larger", "held-out pattern"]),
        "held_out_smarts": np.array(HELD_OUT_SMARTS),
        "temperature_K": np.array(TEMPERATURE),
        "atom_z": np.array(list(atoms), dtype=np.uint8),
        "atom_energies": np.array(list(atoms.values())),
        "versions": np.array([f"{name} {version(name)}" for name in packages]),
        "seed": np.array(seed),
    }


def verify(data: dict[str, np.ndarray]) -> None:
    """Check the arrays; forces of three molecules against central differences of the energy.

    Raises:
        AssertionError: When a check fails.
    """
    smiles, start = data["smiles"], data["offset"]
    assert len(set(smiles)) == len(smiles), "a SMILES occurs twice"
    assert all(np.isfinite(data[k]).all() for k in ("pos", "forces", "targets", "dipole"))
    assert (data["targets"][:, 2] > 0).all() and (data["targets"][:, 1] < 0).all()
    worst, step = 0.0, 1e-3
    for m in np.linspace(0, len(smiles) - 1, 3).astype(int):
        atoms = slice(start[m], start[m + 1])
        z, pos = data["z"][atoms], data["pos"][atoms].astype(np.float64)
        for i in np.ndindex(pos.shape):
            shift = np.zeros_like(pos)
            shift[i] = step
            slope = xtb(z, pos + shift)["energy"] - xtb(z, pos - shift)["energy"]
            worst = max(worst, abs(slope / (2 * step) + data["forces"][atoms][i]))
    print(f"largest |force + dE/dx| over three molecules: {worst:.1e} eV/Angstrom")
    assert worst < 5e-3


def save(data: dict[str, np.ndarray], path: Path) -> str:
    """Write a byte-deterministic .npz atomically, with its checksum file; return the sha256."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in data.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # no time stamp
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, 9)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    checksum = f"{digest}  {path.name}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, content in ((path, buffer.getvalue()), (path.with_suffix(".sha256"), checksum)):
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
            temporary.write(content)
        os.chmod(temporary.name, 0o644)
        os.replace(temporary.name, target)
    return digest


def differences(data: dict[str, np.ndarray], path: Path) -> list[str]:
    """Name the arrays that differ from a stored file, numbers by more than 1e-6 (abs. and rel.)."""
    wrong = []
    with np.load(path, allow_pickle=False) as stored:
        for name in sorted((set(data) | set(stored.files)) - {"versions"}):
            if name not in stored or name not in data or stored[name].shape != data[name].shape:
                wrong.append(f"{name}: missing or of another shape")
            elif data[name].dtype.kind != "f":
                same = np.array_equal(data[name], stored[name])
                wrong += [] if same else [f"{name}: not equal"]
            elif not np.allclose(data[name], stored[name], rtol=1e-6, atol=1e-6):
                gap = np.abs(data[name].astype(float) - stored[name]).max()
                wrong.append(f"{name}: largest difference {gap:.1e}")
    return wrong


def main() -> int:
    """Command line; returns the exit status (1 when ``--check`` finds a difference)."""
    parser = argparse.ArgumentParser(
        description="Make the GFN2-xTB data set of small organic molecules (or check a file).",
        epilog="Needs rdkit, tblite, joblib and tqdm. The result does not depend on --workers.",
    )
    here = Path(__file__).resolve().parent
    parser.add_argument(
        "--out",
        type=Path,
        default=here / "xtb_molecules.npz",
        help="file to write; its checksum goes next to it as .sha256 (default: next to the script)",
    )
    parser.add_argument(
        "--molecules", type=int, help="number of molecules over all splits (default: 6000)"
    )
    parser.add_argument("--seed", type=int, help="seed of everything random (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="write nothing: regenerate, with FILE's seed and size, and compare within 1e-6",
    )
    options = parser.parse_args()
    rdBase.DisableLog("rdApp.*")
    molecules, seed = options.molecules, options.seed
    if options.check:
        with np.load(options.check, allow_pickle=False) as stored:
            molecules = molecules or len(stored["smiles"])
            seed = int(stored["seed"]) if seed is None else seed
    data = build(molecules or 6000, seed or 0, options.workers)
    verify(data)
    if options.check:
        wrong = differences(data, options.check)
        print("\n".join(wrong) or f"{options.check.name}: same within 1e-6")
        return int(bool(wrong))
    digest = save(data, options.out)
    print(f"{digest}  {options.out.name}  {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
