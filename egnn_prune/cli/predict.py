"""Predict structures with a trained model, each with its error bar.

MODEL is the folder of a finished run (its out=DIR, of which pruned.safetensors is taken) or a
.safetensors file. STRUCTURES is any file that ASE reads (extended XYZ, gzipped too, POSCAR,
.traj ...), with one structure or many.

DIR/predictions.csv has a row for each structure: its value with standard deviation (calibrated),
the epistemic part of that, a 90 % interval, and whether the structure is like the training data.
"no" means that the epistemic standard deviation is above the one that 99 % of the validation
structures stayed below, or that the structure is unlike all training structures (its reason says
how): do not rely on the value. DIR/predictions.extxyz has the structures with
the same numbers and, where the model predicts an energy, with energy (eV) and forces (eV/Angstrom).

A potential with error bars of forces also states max_force_std, the largest calibrated standard
deviation of the force on an atom (eV/Angstrom), and max_distance, how far the network sees the
strangest atom from its training atoms, in units of the limit that 99 % of the validation structures
stayed within ("no" where either is beyond its limit). predictions.extxyz has both for every atom,
as forces_std and atoms_distance. They are infinite where no training structure held an element.
Comment lines may declare other units (length_unit=Bohr energy_unit=Hartree); they are converted.

    egnn-prune predict runs/demo structures.xyz --out predictions
"""

from __future__ import annotations

import argparse

from egnn_prune.cli.arguments import Parser, Tool


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or a .safetensors file")
    parser.add_argument("structures", metavar="STRUCTURES", help="file in any format of ASE")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for both files")
    parser.add_argument("--dense", action="store_true", help="the run's dense model instead")
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out structures that cannot be predicted and say why in their rows, instead of "
        "stopping at the first",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="epistemic standard deviation, in the target's unit, beyond which a structure is "
        "out of distribution (the model's own)",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="structures at once (64)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from egnn_prune.ase.predict_file import (
        checked_folder,
        predict_structures,
        write_predictions,
    )
    from egnn_prune.deployment.trained_model import TrainedModel

    folder = checked_folder(arguments.out)
    which = "dense" if arguments.dense else "pruned"
    model = TrainedModel.load(arguments.model, which, arguments.device)
    found = predict_structures(
        model,
        arguments.structures,
        skip_bad=arguments.skip_bad,
        threshold=arguments.threshold,
        batch_size=arguments.batch_size,
    )
    paths = write_predictions(found, folder)
    print(f"{found.summary()}: {', '.join(map(str, paths))}")


main = Tool(parser, work)
