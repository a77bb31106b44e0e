"""Grow random valid molecular graphs of C, N, O and F (hydrogens implicit) from a seed.

Used by ``make_xtb_molecules.py``; run it to look at some of its molecules.

    python datasets/random_graphs.py --seed 0 --count 20
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from itertools import islice

from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors

VALENCE = {6: 4, 7: 3, 8: 2, 9: 1}
ELEMENTS, ELEMENT_WEIGHTS = (6, 7, 8, 9), (0.66, 0.15, 0.15, 0.04)
BOND_WEIGHTS = (0.75, 0.19, 0.06)  # single, double, triple
BONDS = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
SIZE_WEIGHTS = {3: 1, 4: 3, 5: 8, 6: 20, 7: 50, 8: 12}  # heavy atoms: drawn how often
RING_WEIGHTS = {3: 0.3, 4: 0.3, 5: 1.0, 6: 1.0}
# Growth atom by atom almost never closes an aromatic ring, so some molecules start from one.
RING_STARTS = ("c1ccccc1", "c1ccncc1", "c1cncnc1", "c1ccoc1", "c1cc[nH]c1", "c1cnc[nH]1", "c1cnoc1")
RING_START_PROBABILITY, CLOSE_PROBABILITY = 0.10, 0.35

SILLY = [
    Chem.MolFromSmarts(pattern)
    for pattern in (
        "[#7,#8,#9]~[#7,#8,#9]~[#7,#8,#9]",  # chains of three heteroatoms
        "[#8]~[#8]",  # peroxides
        "[#9]~[#7,#8,#9]",  # N-F, O-F
        "*=*=*",  # cumulated double bonds
        "*#@*",  # triple bond in a ring
        "[x3,x4;!a]=*",  # double bond at a bridgehead or ring fusion
        "[r3]=,:@[r3]",  # cyclopropenes and aromatic rings fused to a three-ring
        "*1=**=*1",  # cyclobutadienes
        "[#7,#8,#9]-C#C",  # ynamines, ynols, fluoroalkynes
        "[#9]-C#N",  # cyanogen fluoride
        "[OX2H,NX3H1,NX3H2][CX4][#7,#8,#9]",  # gem-diols, hemiaminals, ...: lose water or ammonia
        "[OX2H,NX3H2][C;!a]=[C;!a]",  # enols and primary enamines: tautomerise
        "[#7]=[#8]",  # nitroso
        "[NX2H]=[#7]",  # diazenes with hydrogen
    )
]


def grow_graph(rng: random.Random) -> Chem.RWMol:
    """Grow one random graph of 1 to 8 heavy atoms that respects the valences, without hydrogens."""
    size = rng.choices(list(SIZE_WEIGHTS), list(SIZE_WEIGHTS.values()))[0]
    if size >= 6 and rng.random() < RING_START_PROBABILITY:
        mol = Chem.RWMol(Chem.MolFromSmiles(rng.choice(RING_STARTS)))
        Chem.Kekulize(mol, clearAromaticFlags=True)
        for atom in mol.GetAtoms():
            atom.SetNoImplicit(False)
            atom.SetNumExplicitHs(0)
    else:
        mol = Chem.RWMol()
        mol.AddAtom(Chem.Atom(rng.choices(ELEMENTS[:3], ELEMENT_WEIGHTS[:3])[0]))
    free = [
        VALENCE[a.GetAtomicNum()] - sum(int(b.GetBondTypeAsDouble()) for b in a.GetBonds())
        for a in mol.GetAtoms()
    ]

    def bond(i: int, j: int) -> None:
        most = min(free[i], free[j], 3)
        order = rng.choices(range(1, most + 1), BOND_WEIGHTS[:most])[0]
        mol.AddBond(i, j, BONDS[order - 1])
        free[i] -= order
        free[j] -= order

    while mol.GetNumAtoms() < size and any(free):
        site = rng.choice([i for i, f in enumerate(free) if f])
        element = rng.choices(ELEMENTS, ELEMENT_WEIGHTS)[0]
        new = mol.AddAtom(Chem.Atom(element))
        free.append(VALENCE[element])
        bond(site, new)
    while rng.random() < CLOSE_PROBABILITY:
        distance = Chem.GetDistanceMatrix(mol, force=True)
        open_sites = [i for i, f in enumerate(free) if f]
        pairs = [
            (i, j) for i in open_sites for j in open_sites if i < j and 2 <= distance[i, j] <= 5
        ]
        if not pairs:
            break
        bond(*rng.choices(pairs, [RING_WEIGHTS[int(distance[p]) + 1] for p in pairs])[0])
    return mol


def is_sensible(mol: Chem.Mol) -> bool:
    """Whether a sanitised graph passes the chemical filters of the data set."""
    small_rings = sum(len(ring) < 5 for ring in mol.GetRingInfo().AtomRings())
    aromatic = any(atom.GetIsAromatic() for atom in mol.GetAtoms())
    if small_rings > 1 or (aromatic and rdMolDescriptors.CalcNumBridgeheadAtoms(mol)):
        return False  # two strained rings, or an aromatic ring bent by a bridge
    return not any(mol.HasSubstructMatch(pattern) for pattern in SILLY)


def grow_molecules(seed: int) -> Iterator[str]:
    """Yield distinct canonical SMILES of sensible molecules, endlessly, in an order set by seed."""
    rng, seen = random.Random(seed), set()
    while True:
        mol = grow_graph(rng)
        if mol.GetNumAtoms() < 3 or Chem.SanitizeMol(mol, catchErrors=True):
            continue
        smiles = Chem.MolToSmiles(mol)
        # A Kekule structure and its aromatic form must count once: go through the parser.
        mol = Chem.MolFromSmiles(smiles)
        if mol is None or (smiles := Chem.MolToSmiles(mol)) in seen or not is_sensible(mol):
            continue
        seen.add(smiles)
        yield smiles


def main() -> None:
    """Command line: print the first SMILES of a seed."""
    parser = argparse.ArgumentParser(description="Print SMILES of random small molecules.")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=20, help="default: %(default)s")
    options = parser.parse_args()
    rdBase.DisableLog("rdApp.*")
    print("\n".join(islice(grow_molecules(options.seed), options.count)))


if __name__ == "__main__":
    main()
