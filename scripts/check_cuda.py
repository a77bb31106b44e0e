"""Check on one GPU, in under 8 minutes and without a network, that everything works there.

Runs the main job with its table, fine-tuning on selected graphs, symmetry and masked = compact, the
CPU's numbers within a stated tolerance, training on forces, ensembles and Monte Carlo dropout,
predictions and dynamics, the residual networks of the image experiments, benchmarks against the
textbook's EGNN, and what happens when the memory is full. A check that fails is written down with
its sentence, and the others go on.

The data are those that come along, and CIFAR-10 and ethanol where EGNN_PRUNE_DATA has them.
OUT/check_cuda.json is written anew after every check; OUT/check_cuda.md has the table, to be
committed to docs/benchmarks.md. The exit code is 0 when all is well, 1 when a check failed or ran
out of time, and 2 where there is no CUDA.

    python scripts/check_cuda.py --out runs/cuda
    python scripts/check_cuda.py --device cpu --quick   # the script itself, tiny
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from egnn_prune.cli.script import run_script


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/cuda"), help="folder (runs/cuda)")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all checks together (8)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (cuda)")
    parser.add_argument("--quick", action="store_true", help="everything tiny")
    parser.add_argument("--only", metavar="WORD", help="checks whose name holds this")
    parser.add_argument(
        "--resume", action="store_true", help="go on behind the last check of OUT/check_cuda.json"
    )
    return parser.parse_args()


def check(arguments: argparse.Namespace) -> None:
    import torch

    from egnn_prune.device_checks import CHECKS, CheckContext, DeviceLost, table, work_through
    from egnn_prune.errors import ConfigError
    from egnn_prune.system.device import choose_device
    from egnn_prune.system.files import atomic

    device = choose_device(arguments.device)
    checks = [c for c in CHECKS if not arguments.only or arguments.only in c.name]
    if not checks:
        names = "; ".join(c.name for c in CHECKS)
        raise ConfigError(f"no check is named {arguments.only!r}; there are: {names}")
    report = arguments.out / "check_cuda.json"
    try:
        with tempfile.TemporaryDirectory(prefix="check_cuda_") as folder:
            context = CheckContext(device, arguments.quick, Path(folder))
            outcomes = work_through(checks, context, report, arguments.minutes, arguments.resume)
    except DeviceLost:  # nothing more can be computed in this process
        again = [a for a in sys.argv[1:] if a != "--resume"]
        os.execv(sys.executable, [sys.executable, __file__, *again, "--resume"])
    text = table(outcomes)
    with atomic(report.with_suffix(".md")) as temporary:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        temporary.write_text(f"{name}, torch {torch.__version__}\n\n{text}\n")
    print(f"\n{text}\nWritten: {report} and {report.with_suffix('.md')}")
    if any(o.result not in ("ok", "skipped") for o in outcomes):
        sys.exit(1)


def main() -> None:
    arguments = parse()
    run_script(lambda: check(arguments))


if __name__ == "__main__":
    main()
