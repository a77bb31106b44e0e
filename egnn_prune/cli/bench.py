"""Time a training step of our EGNN against the layer as the paper writes it.

Both compute the same function with the same weights: position updates, sums over messages, the
squared distance, no attention. They take turns (A B A B ...), so that a busy machine slows both,
and the median over the repeats is printed. One batch of random graphs, all pairs connected.

With --irreps COPIES: an IrrepsNet (lmax 2) against itself at half of its copies and radial
channels, physically removed, on graphs with a cutoff; such as
`egnn-prune bench --irreps 32 --layers 3 --graphs 64 --threads 1`.

With --uncertainty: what each way to error bars costs against one deterministic prediction, on
graphs of the embedded data with stored neighbour lists, such as `egnn-prune bench
--uncertainty --hidden 64 --layers 4 --graphs 32 --threads 1`. Medians say what a user waits; on a
busy machine the fastest turns say better what a method costs.
"""

from __future__ import annotations

import argparse
import sys

from egnn_prune.cli.arguments import Parser, Tool


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument("--graphs", type=int, default=96, help="graphs in the batch (96)")
    parser.add_argument("--nodes", type=int, default=18, help="nodes of each graph (18)")
    parser.add_argument("--hidden", type=int, default=128, help="width of every part (128)")
    parser.add_argument("--layers", type=int, default=7, help="message-passing layers (7)")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps of each (10)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock starts (2)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (torch's choice)")
    parser.add_argument(
        "--irreps", type=int, metavar="COPIES", help="time an IrrepsNet and its half instead"
    )
    parser.add_argument(
        "--uncertainty", action="store_true", help="time the estimators of uncertainty instead"
    )
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda (cpu)")
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it; exit code 1 where outputs differ or a cost is above its limit."""
    from egnn_prune.device_checks.benchmark import benchmark

    if not benchmark(arguments):
        sys.exit(1)


main = Tool(parser, work)
