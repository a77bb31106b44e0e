r"""Simulate a molecule with a trained model: is its energy constant, and is it sure of its forces?

MODEL is the folder of a finished run (its out=DIR, of which pruned.safetensors or, of specialise,
specialised.safetensors is taken) or a .safetensors file of a model of an energy. STRUCTURE is any
file that ASE reads; its last structure is the start, with its constraints (move_mask), masses and
momenta: the last frame of a trajectory goes on. Where it has no momenta, or a temperature is given
without a thermostat, velocities are drawn, without motion or rotation of the whole; about half of
their energy goes into the bonds when the start is a minimum.

DIR gets trajectory.extxyz, energies.csv, dynamics.json (drift, steps/s) and dynamics.png: total
energy with its drift, and the model's uncertainty over time. An integrator that conserves energy
shows that forces are exact gradients and smooth; it does not show that they are right. A run whose
total energy changes by more than 1 eV/atom has exploded (with a thermostat: one that is far hotter
than it): it is stopped, with exit code 1.

All of this is on the disk as it comes. A run that was interrupted or killed goes on where it was
saved last (every 10 seconds) when the same command is given again: the same steps as if nothing had
happened. Ctrl-C, SIGTERM and SIGHUP end it after the present step.

With --pressure the volume moves, too (periodic structures; Langevin's thermostat; the cell's shape
stays): energies.csv, the summary and the figure then have volume and pressure.

With a teacher behind the network (--teacher), every structure is watched: error bars of forces,
atoms unlike the training atoms, bonds unlike the training structures'. Where the network is not
sure, --on-uncertain says what happens: warn (once), stop, ask (the teacher answers this step) or
learn (it does, and the network is trained further on what it was not sure of). DIR also gets
specialist.csv, specialist.png, collection.extxyz (what it was not sure of, with the teacher's
labels), and the networks that were learned; another run with the same DIR goes on with these.
Where network and teacher take turns, energy is not conserved: use a thermostat.

    egnn-prune md runs/ethanol ethanol.xyz --steps 20000 --out md
    egnn-prune md runs/water box.xyz --teacher 7net-0 --on-uncertain learn --thermostat langevin \
        --heat-to 600 --check 0.01 --out md
    egnn-prune md runs/water box.xyz --thermostat langevin --temperature 300 --pressure 0.0001 \
        --steps 200000 --out npt
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from egnn_prune.cli.arguments import Parser, Tool, with_options


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
        help="of the first velocities in K, at most 1e5 (the start's own momenta, or else 300); "
        "with a thermostat its temperature (300), and the start's own momenta are kept",
    )
    parser.add_argument(
        "--thermostat",
        choices=("none", "langevin", "bussi"),
        default="none",
        help="hold the temperature (none: the energy is constant)",
    )
    parser.add_argument(
        "--heat-to", type=float, metavar="K", help="temperature that the thermostat rises to"
    )
    parser.add_argument("--friction", type=float, help="of Langevin's thermostat in 1/fs (0.02)")
    parser.add_argument("--taut", type=float, help="time constant of Bussi's in fs (100)")
    parser.add_argument(
        "--pressure",
        type=float,
        metavar="GPA",
        help="hold this pressure in GPa, positive where it compresses (1 bar is 0.0001), with "
        "--thermostat langevin (none: the cell is constant)",
    )
    parser.add_argument(
        "--taup", type=float, metavar="FS", help="time constant of the volume in fs (500)"
    )
    parser.add_argument("--interval", type=int, default=10, help="steps between frames (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the velocities (0)")
    parser.add_argument("--dense", action="store_true", help="the run's dense model instead")
    parser.add_argument(
        "--threshold",
        type=float,
        help="epistemic standard deviation in eV beyond which a structure is out of distribution "
        "(the model's own); not with a teacher",
    )
    parser.add_argument(
        "--teacher",
        metavar="NAME",
        help="who is asked: a potential's name (7net-0), its file, or a .safetensors file such as "
        "the run's finetuned.safetensors",
    )
    parser.add_argument(
        "--forces-threshold",
        type=float,
        metavar="X",
        help="standard deviation of a force in eV/Angstrom beyond which the network is not sure "
        "(the model's own)",
    )
    parser.add_argument(
        "--check",
        type=float,
        default=0.0,
        metavar="P",
        help="probability, at every step, of asking the teacher just to compare (0)",
    )
    parser.add_argument(
        "--most", type=int, help="structures that wait to be learned, at most (200)"
    )
    parser.add_argument(
        "--learn-every", type=int, metavar="N", help="structures to learn at once (20)"
    )
    parser.add_argument(
        "--learn-steps", type=int, metavar="N", help="optimiser steps of learning, at least 1 (100)"
    )
    parser.add_argument(
        "--on-uncertain",
        choices=("warn", "stop", "ask", "learn", "ignore"),
        default="warn",
        help="what to do beyond the threshold, where there is one (warn, once)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    return parser


#: Options that nothing looks at, unless another one has one of some values.
NEEDS = {
    "heat_to": ("thermostat", ("langevin", "bussi")),
    "friction": ("thermostat", ("langevin",)),
    "taut": ("thermostat", ("bussi",)),
    "most": ("on_uncertain", ("ask", "learn")),
    "learn_every": ("on_uncertain", ("learn",)),
    "learn_steps": ("on_uncertain", ("learn",)),
}


def refuse_unused(arguments: argparse.Namespace) -> None:
    """Say which options would change nothing.

    Raises:
        ConfigError: names the option, and what it needs.
    """
    from egnn_prune.errors import ConfigError

    for name, (other, values) in NEEDS.items():
        if getattr(arguments, name) is not None and getattr(arguments, other) not in values:
            option, needed = (f"--{n.replace('_', '-')}" for n in (name, other))
            raise ConfigError(
                f"{option} needs {needed} {' or '.join(values)}, without which it changes nothing"
            )
    if arguments.pressure is not None and arguments.thermostat != "langevin":
        raise ConfigError(
            "--pressure needs --thermostat langevin: volume and temperature are held together"
        )
    if arguments.taup is not None and arguments.pressure is None:
        raise ConfigError("--taup needs --pressure, without which it changes nothing")


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from egnn_prune.errors import ConfigError

    try:
        simulated(arguments)
    except ConfigError as error:
        raise ConfigError(with_options(str(error), parser().options())) from error


def given(**options: Any) -> dict[str, Any]:
    """Options that were given; the others have defaults where they are used."""
    return {name: value for name, value in options.items() if value is not None}


def simulated(arguments: argparse.Namespace) -> None:
    """Simulate, and say what came of it.

    Raises:
        ConfigError: arguments cannot be used, in the words of Python.
    """
    from egnn_prune.ase.barostat import Barostat
    from egnn_prune.ase.predict_file import checked_folder
    from egnn_prune.ase.simulation import simulate
    from egnn_prune.ase.structures import read_structures
    from egnn_prune.ase.thermostat import Thermostat
    from egnn_prune.errors import ConfigError

    a, thermostat, barostat = arguments, None, None
    refuse_unused(a)
    if a.seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {a.seed}")
    which = "dense" if a.dense else "pruned"
    if a.thermostat != "none":
        kelvin = 300.0 if a.temperature is None else a.temperature
        how = given(friction=a.friction, taut=a.taut)
        thermostat = Thermostat(a.thermostat, kelvin, a.heat_to, seed=a.seed, **how)
    if a.pressure is not None:
        barostat = Barostat(a.pressure, **given(taup=a.taup))
    model = a.model
    watched = a.teacher is not None or a.forces_threshold is not None or a.check
    if watched or a.on_uncertain in ("ask", "learn"):
        if a.threshold is not None:
            raise ConfigError(
                "--threshold is of energies, and a network with a teacher is watched by the error "
                "bars of its forces; give --forces-threshold"
            )
        from egnn_prune.pipeline.watched_dynamics import watched_calculator

        read_structures(a.structure)  # before the folder is looked at, and a teacher loaded
        model = watched_calculator(
            a.model,
            a.teacher,
            a.on_uncertain,
            learn_steps=a.learn_steps,
            forces_threshold=a.forces_threshold,
            check=a.check,
            seed=a.seed,
            folder=checked_folder(a.out),
            device=a.device,
            which=which,
            **given(most=a.most, learn_every=a.learn_every),
        )
        if model.place is not None and model.place.model is not None:
            print(f"going on with {model.place.model}, which was learned here before")
        if model.agreement is not None:
            print(model.agreement.text())
    report = simulate(
        model,
        a.structure,
        a.out,
        steps=a.steps,
        timestep=a.timestep,
        kelvin=a.temperature if thermostat is None else None,
        interval=a.interval,
        seed=a.seed,
        which=which,
        threshold=a.threshold,
        on_uncertain=a.on_uncertain if model is a.model else "ignore",
        device=a.device,
        thermostat=thermostat,
        barostat=barostat,
    )
    print(report.text())
    if report.stopped:
        sys.exit(1)


main = Tool(parser, work)
