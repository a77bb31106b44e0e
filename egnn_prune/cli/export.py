"""Write a trained model as a file that runs without this package.

MODEL is the folder of a finished run (its out=DIR, of which pruned.safetensors is taken) or a
.safetensors file of a model of a property of structures. FILE ends in .pt2 (a torch.export program,
which runs wherever torch does, also from C++) or in .onnx (needs pip install 'egnn_prune[onnx]').
Either returns energies, calibrated variances and, unless --no-forces is given, forces; a program
returns stresses, too, with --stress. The docs of egnn_prune.export.export_program have its inputs,
and egnn_prune.ase.ExportedCalculator runs a program in ASE. The file is compared with the model
before it is written.

    egnn-prune export runs/ethanol ethanol.pt2
"""

from __future__ import annotations

import argparse

from egnn_prune.cli.arguments import Parser, Tool


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or a .safetensors file")
    parser.add_argument("file", metavar="FILE", help="what to write, *.pt2 or *.onnx")
    parser.add_argument("--dense", action="store_true", help="the run's dense model instead")
    parser.add_argument(
        "--no-forces", action="store_true", help="energies and variances only, smaller and faster"
    )
    parser.add_argument(
        "--stress",
        action="store_true",
        help="stresses, too; of a .pt2 file of a model with a cutoff",
    )
    parser.add_argument(
        "--single-pass",
        action="store_true",
        help="of Monte Carlo dropout, which has no program of its own: one pass without dropout; "
        "its variances are the network's own, without the epistemic part and not calibrated",
    )
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from dataclasses import replace

    from egnn_prune.deployment.export import export_onnx, export_program
    from egnn_prune.deployment.trained_model import TrainedModel
    from egnn_prune.errors import ConfigError
    from egnn_prune.uncertainty import MCDropout, SinglePass

    suffix = arguments.file.rpartition(".")[2]
    if suffix not in ("pt2", "onnx"):
        raise ConfigError(f"FILE must end in .pt2 or .onnx, not {arguments.file}")
    if suffix == "onnx" and arguments.stress:
        raise ConfigError("stresses are exported to .pt2 files, not to .onnx")
    model = TrainedModel.load(arguments.model, "dense" if arguments.dense else "pruned", "cpu")
    if isinstance(model.method, MCDropout):
        if not arguments.single_pass:
            raise ConfigError(
                f"{arguments.model} has Monte Carlo dropout, whose drawn networks cannot be "
                "exported; --single-pass exports its network without error bars of the draws"
            )
        model = replace(model, estimator=SinglePass(model.method.network))
    forces = not arguments.no_forces
    if suffix == "onnx":
        path = export_onnx(model, arguments.file, forces=forces)
    else:
        path = export_program(model, arguments.file, forces=forces, stress=arguments.stress)
    print(f"Written: {path}")


main = Tool(parser, work)
