"""The embedded data set: small molecules labelled with GFN2-xTB (see datasets/README.md)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from egnn_prune.data.dataset import GraphDataset
from egnn_prune.data.sources.npz import load_npz
from egnn_prune.errors import DataError

FILE = "xtb_molecules.npz"


def embedded_file() -> Path:
    """The data file: inside an installed wheel, or in ``datasets/`` of a checkout.

    Raises:
        DataError: it is in neither place, or its checksum is wrong.
    """
    here = Path(__file__).resolve().parents[1]
    places = [here / "embedded" / FILE, here.parents[1] / "datasets" / FILE]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise DataError(
            f"the embedded data set {FILE} is missing from this installation; reinstall egnn_prune "
            "or run datasets/make_xtb_molecules.py in a checkout"
        )
    expected = path.with_suffix(".sha256").read_text().split()[0]
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise DataError(f"{path.name} is damaged (its checksum is wrong); get a fresh copy")
    return path


def load_xtb(target: str | None = None) -> GraphDataset:
    """About 6,000 molecules of H, C, N, O, F with 3 to 8 heavy atoms, GFN2-xTB labels.

    ==================== ====== ==========================================
    target               unit
    ==================== ====== ==========================================
    energy               eV     total energy
    atomisation_energy   eV     E(molecule) - sum of E(atom); the default
    gap                  eV     HOMO-LUMO gap
    dipole_norm          D      length of the dipole vector
    ==================== ====== ==========================================

    Positions are in Angstrom, ``forces`` in eV/Angstrom; one thermally displaced geometry (300 K)
    a molecule. The split is fixed; ``ood`` has larger molecules and a held-out pattern.
    """
    dataset = load_npz(embedded_file(), target or "atomisation_energy")
    dataset.name = "xtb"
    return dataset
