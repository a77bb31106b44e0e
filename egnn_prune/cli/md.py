"""Simulate a molecule with a trained model at constant energy, and see whether it stays constant.

MODEL is the folder of a finished run (its out=DIR, of which pruned.safetensors is taken) or a
.safetensors file of a model of an energy. STRUCTURE is any file that ASE reads; its last structure
is the start, with its constraints (move_mask), masses and momenta: the last frame of a trajectory
goes on. Where it has no momenta, or a temperature is given, velocities are drawn, without motion or
rotation of the whole; about half of their energy goes into the bonds when the start is a minimum.

DIR gets trajectory.extxyz, energies.csv, dynamics.json (drift, steps/s) and dynamics.png: total
energy with its drift, and the model's uncertainty over time. An integrator that conserves energy
shows that forces are exact gradients and smooth; it does not show that they are right. A run whose
total energy changes by more than 1 eV/atom has exploded: it is stopped, with exit code 1.

    egnn-prune md runs/ethanol ethanol.xyz --steps 20000 --out md
"""

from __future__ import annotations

import argparse
import sys

from egnn_prune.cli.arguments import Parser, Tool


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or a .safetensors file")
    parser.add_argument("structure", metavar="STRUCTURE", help="file in any format of ASE")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the results")
    parser.add_argument("--steps", type=int, default=20000, help="steps (20000)")
    parser.add_argument("--timestep", type=float, default=0.5, help="length of a step in fs (0.5)")
    parser.add_argument(
        "--temperature",
        type=float,
        help="of the first velocities in K, at most 1e5 (the start's own momenta, or else 300)",
    )
    parser.add_argument("--interval", type=int, default=10, help="steps between frames (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the velocities (0)")
    parser.add_argument("--dense", action="store_true", help="the run's dense model instead")
    parser.add_argument(
        "--threshold",
        type=float,
        help="epistemic standard deviation in eV beyond which a structure is out of distribution "
        "(the model's own)",
    )
    parser.add_argument(
        "--on-uncertain",
        choices=("warn", "stop", "ignore"),
        default="warn",
        help="what to do beyond the threshold, where there is one (warn, once)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from egnn_prune.ase.simulation import simulate

    report = simulate(
        arguments.model,
        arguments.structure,
        arguments.out,
        steps=arguments.steps,
        timestep=arguments.timestep,
        kelvin=arguments.temperature,
        interval=arguments.interval,
        seed=arguments.seed,
        which="dense" if arguments.dense else "pruned",
        threshold=arguments.threshold,
        on_uncertain=arguments.on_uncertain,
        device=arguments.device,
    )
    print(report.text())
    if report.stopped:
        sys.exit(1)


main = Tool(parser, work)
