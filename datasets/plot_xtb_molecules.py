"""Plot what ``xtb_molecules.npz`` holds: distributions and a few depictions.

python datasets/plot_xtb_molecules.py        # figures/dataset_xtb.png, dataset_molecules.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from rdkit import Chem
from rdkit.Chem import Draw

GROUPS = ("train", "val", "test", "ood: 8 heavy atoms", "ood: nitriles")
COLOURS = ("#4c72b0", "#8fb3d9", "#1b2a49", "#dd8452", "#c44e52")  # blues seen, warm colours unseen
SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}


def groups(data: dict[str, np.ndarray]) -> np.ndarray:
    """Group of each molecule, [M]: its split, with the two kinds of OOD told apart."""
    return data["split"] + (data["ood_reason"] == 2)


def plot_distributions(data: dict[str, np.ndarray], path: Path) -> None:
    """Draw six panels: sizes, elements, atomisation energy, gap, dipole norm and force norm."""
    group, sizes = groups(data), np.diff(data["offset"])
    molecule = np.repeat(np.arange(len(sizes)), sizes)
    heavy = np.bincount(molecule, data["z"] > 1).astype(int)
    column = {name: data["targets"][:, i] for i, name in enumerate(data["target_names"])}
    force = np.linalg.norm(data["forces"], axis=1)
    panels = [
        (column["atomisation_energy"] / sizes, group, "atomisation energy per atom (eV)"),
        (column["gap"], group, "HOMO-LUMO gap (eV)"),
        (column["dipole_norm"], group, "dipole moment (D)"),
        (force, group[molecule], "force on an atom (eV/Å)"),
    ]
    width = 0.16
    offsets = width * (np.arange(5) - 2)

    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(2, 3, figsize=(11.5, 6.2), constrained_layout=True)
        ax = axes[0, 0]
        for g, (name, colour) in enumerate(zip(GROUPS, COLOURS, strict=True)):
            counts = np.bincount(heavy[group == g], minlength=9)[3:]
            label = f"{name} ({np.sum(group == g)})"
            ax.bar(np.arange(3, 9) + offsets[g], counts, width, color=colour, label=label)
        ax.set(xlabel="heavy atoms", ylabel="molecules", yscale="log", ylim=(0.7, None))

        ax = axes[0, 1]
        for g, colour in enumerate(COLOURS):
            numbers = data["z"][group[molecule] == g]
            share = [100 * np.mean(numbers == z) for z in SYMBOLS]
            bars = ax.bar(np.arange(5) + offsets[g], share, width, color=colour)
            if g == 0:
                ax.bar_label(bars, fmt="%.0f", fontsize=7, color=colour, padding=1)
        ax.set_xticks(range(5), list(SYMBOLS.values()))
        ax.set(xlabel="element", ylabel="share of the atoms (%)")

        for ax, (values, member, label) in zip(axes.flat[2:], panels, strict=True):
            edges = np.linspace(values.min(), np.quantile(values, 0.999), 31)
            for g, colour in enumerate(COLOURS):
                if g in (1, 2):  # same distribution as train: they would only clutter
                    continue
                style = {"alpha": 0.35, "histtype": "stepfilled"} if g == 0 else {}
                ax.hist(
                    values[member == g],
                    edges,
                    density=True,
                    color=colour,
                    **{"histtype": "step", "linewidth": 1.6, **style},
                )
            ax.set(xlabel=label, ylabel="density")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def plot_molecules(data: dict[str, np.ndarray], path: Path, seed: int = 0) -> None:
    """Draw twelve molecules: six of the training split, three of each kind of OOD."""
    group, rng = groups(data), np.random.default_rng(seed)
    chosen = [
        m for g, n in ((0, 6), (3, 3), (4, 3)) for m in rng.choice(np.where(group == g)[0], n)
    ]
    gap = list(data["target_names"]).index("gap")
    image = Draw.MolsToGridImage(
        [Chem.MolFromSmiles(str(data["smiles"][m])) for m in chosen],
        molsPerRow=6,
        subImgSize=(230, 190),
        legends=[f"{GROUPS[group[m]]}, gap {data['targets'][m, gap]:.1f} eV" for m in chosen],
        returnPNG=False,
    )
    image.save(path)


def main() -> None:
    """Command line."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Plot the GFN2-xTB data set.")
    parser.add_argument("--data", type=Path, default=here / "xtb_molecules.npz", help="the .npz")
    parser.add_argument(
        "--figures", type=Path, default=here.parent / "figures", help="folder to write to"
    )
    options = parser.parse_args()
    with np.load(options.data, allow_pickle=False) as stored:
        data = dict(stored)
    options.figures.mkdir(parents=True, exist_ok=True)
    plot_distributions(data, options.figures / "dataset_xtb.png")
    plot_molecules(data, options.figures / "dataset_molecules.png")


if __name__ == "__main__":
    main()
