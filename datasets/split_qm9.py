"""A split of a QM9 sample with aromatic molecules held out, for the calibration study.

    python datasets/split_qm9.py qm9_12k.npz qm9_aromatic_out.npz

Reads and writes the flat ``.npz`` of ``egnn_prune/data/sources/npz.py``. Molecules whose SMILES has
an aromatic atom (a lower-case letter) become the ``ood`` split: their bonding is of a kind that
training never shows. The others are split 80/10/10 at random, with a fixed seed.
"""

import argparse
import re
from pathlib import Path

import numpy as np

TRAIN, VAL, TEST, OOD = range(4)
#: Lower-case element symbols that SMILES uses for aromatic atoms; "[nH]" counts, "Cl" does not.
AROMATIC = re.compile(r"(?<![A-Z])[cnos]")


def split(smiles: list[str], seed: int = 0) -> np.ndarray:
    """The number of the split of every molecule."""
    numbers = np.full(len(smiles), OOD)
    ordinary = np.flatnonzero([not AROMATIC.search(s) for s in smiles])
    ordinary = np.random.default_rng(seed).permutation(ordinary)
    tenth = len(ordinary) // 10
    numbers[ordinary] = TRAIN
    numbers[ordinary[:tenth]] = VAL
    numbers[ordinary[tenth : 2 * tenth]] = TEST
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    arguments = parser.parse_args()
    with np.load(arguments.source, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays["split"] = split([str(s) for s in arrays["smiles"]])
    np.savez_compressed(arguments.destination, **arrays)
    counts = np.bincount(arrays["split"], minlength=4).tolist()
    print(dict(zip(("train", "val", "test", "ood"), counts, strict=True)))


if __name__ == "__main__":
    main()
