"""Time networks of ours and of others on equal graphs, beside what the machine can do at best.

Everybody takes turns in one process (A B A B ...), so that a busy machine slows all; medians and
the distance of the quartiles are kept, and first calls in fresh processes apart. Beside each
stands a floor: the matrix products and activations that its function needs, at rates measured
here. What could not be measured is a row with the reason.

  egnn-prune bench --quick --threads 1            two minutes
  egnn-prune bench --threads 1                    everything, some fifteen
  egnn-prune bench --cases n-body,qm9-64 --passes train --variants textbook,ours --compiled all

Writes benchmark.json after every pass of every case, and benchmark.md and benchmark.png at the
end; the same command goes on where it was interrupted.

With --uncertainty: what each way to error bars costs against one deterministic prediction, on
graphs of the embedded data with stored neighbour lists, such as `egnn-prune bench
--uncertainty --hidden 64 --layers 4 --graphs 32 --threads 1`. Medians say what a user waits; on a
busy machine the fastest turns say better what a method costs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from egnn_prune.bench.cases import CASES, PASSES, VARIANTS
from egnn_prune.cli.arguments import Parser, Tool
from egnn_prune.cli.suggest import did_you_mean
from egnn_prune.errors import ConfigError


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a selection of two minutes")
    parser.add_argument("--cases", help=f"of {', '.join(CASES)} (all)")
    parser.add_argument("--variants", help=f"of {', '.join(VARIANTS)} (each case's own)")
    parser.add_argument("--passes", help=f"of {', '.join(PASSES)} (each case's own)")
    parser.add_argument(
        "--compiled",
        choices=("some", "all", "none"),
        default="some",
        help="which networks are measured compiled by torch.compile, too (some)",
    )
    parser.add_argument(
        "--compile-limit", type=float, default=120.0, help="seconds for one program (120)"
    )
    parser.add_argument(
        "--fresh",
        choices=("some", "all", "none"),
        default="some",
        help="which networks are measured in fresh processes, too (some)",
    )
    parser.add_argument("--seconds", type=float, help="for the turns of each pass (4, quick 1)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (torch's choice)")
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda (cpu)")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="folder (benchmark)")
    parser.add_argument(
        "--uncertainty", action="store_true", help="time the estimators of uncertainty instead"
    )
    with_it = "with --uncertainty"
    for name, default, meaning in (
        ("graphs", 96, "graphs in the batch"),
        ("hidden", 128, "width of every part"),
        ("layers", 7, "message-passing layers"),
        ("repeats", 10, "timed turns"),
        ("warmup", 2, "turns before the clock starts"),
    ):
        text = f"{with_it}: {meaning} ({default})"
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it; exit code 1 where an estimator's cost is above its limit."""
    refuse_nothing(arguments)
    if arguments.uncertainty:
        from egnn_prune.bench.uncertainty import cost_of_uncertainty

        if not cost_of_uncertainty(arguments):
            sys.exit(1)
        return
    names = {
        "cases": chosen("cases", arguments.cases, CASES),
        "variants": chosen("variants", arguments.variants, VARIANTS),
        "passes": chosen("passes", arguments.passes, PASSES),
    }
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler's library, not torch's warnings
    import torch

    from egnn_prune.bench.measure import Conditions
    from egnn_prune.bench.plan import QUICK, USUAL, Choice, Turns
    from egnn_prune.bench.run import benchmark

    turns = QUICK if arguments.quick else USUAL
    if arguments.seconds:
        turns = Turns(arguments.seconds, turns.least, turns.most)
    benchmark(
        Choice(
            **names,
            compiled=arguments.compiled,
            fresh=arguments.fresh,
            quick=arguments.quick,
        ),
        Conditions(
            arguments.device,
            arguments.threads or torch.get_num_threads(),
            turns,
            arguments.compile_limit,
        ),
        arguments.out,
    )


def refuse_nothing(arguments: argparse.Namespace) -> None:
    """Refuse numbers of which there must be some.

    Raises:
        ConfigError: names the option.
    """
    names = ("threads", "seconds", "compile_limit", "repeats", "graphs", "hidden", "layers")
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be positive, not {value:g}")
    if arguments.warmup < 0:
        raise ConfigError(f"--warmup must be at least 0, not {arguments.warmup}")


def chosen(kind: str, names: str | None, known: Iterable[str]) -> tuple[str, ...] | None:
    """The names of a list with commas.

    Raises:
        ConfigError: there is no such name.
    """
    if names is None:
        return None
    known, found = tuple(known), tuple(n.strip() for n in names.split(",") if n.strip())
    for name in found:
        if name not in known:
            meant = did_you_mean(name, known)
            raise ConfigError(f"--{kind} has no {name!r}{meant}; there are {', '.join(known)}")
    if not found:
        raise ConfigError(f"--{kind} names nothing; there are {', '.join(known)}")
    return found


main = Tool(parser, work)
