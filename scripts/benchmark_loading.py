"""Measure how long data take to load, how much memory they need, and how neighbour lists grow.

    python scripts/benchmark_loading.py [--figure figures/loading.png]

- The first load of qm9_12k.npz (of EGNN_PRUNE_DATA) and a later one, from the cache.
- The same for a synthetic file of 130,000 molecules of QM9's sizes, with the peak resident memory.
- Drawing batches of 32 molecules with their neighbour lists: from a list of graphs, and lazily.
- Neighbour lists of 1,000 to 100,000 atoms in a periodic box, where each atom has about 52
  neighbours whatever the size of the box, and the exponent of their growth.

Every load is measured in a fresh process, without its imports. Wall time includes waiting for other
work on the machine, processor time does not. The exponent is fitted to the program's own processor
time: the kernel's, which hands out memory for the lists, depends on the machine's other work, too.
Files and caches made here lie in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.data.local import local_data
from egnn_prune.data.sources.qm9 import PROPERTIES, SAMPLE, load_qm9
from egnn_prune.graphs import neighbours
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import (
    BLUE,
    GREY,
    ORANGE,
    house_style,
    light_grid,
    new_figure,
    png_bytes,
)

MOLECULES, BATCH, CUTOFF = 130_000, 32, 5.0
ATOMS = (1_000, 3_000, 10_000, 30_000, 100_000)
DENSITY = 0.1  # atoms per cubic Angstrom, as in an organic solid
LIMITS_S = {"12k, first": 5.0, "12k, cached": 0.5, "130k, first": 20.0}
LIMIT_GB = 2.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--figure", type=Path, default=Path("figures/loading.png"), help="where to draw"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # in a fresh process
    return parser.parse_args()


def synthetic(path: Path, molecules: int = MOLECULES) -> None:
    """A compressed file of random molecules with QM9's layout, sizes and elements."""
    random = np.random.default_rng(0)
    sizes = random.normal(18, 3, molecules).round().clip(3, 29).astype(np.int64)
    atoms = int(sizes.sum())
    np.savez_compressed(
        path,
        offset=np.concatenate([[0], sizes.cumsum()]),
        z=random.choice(np.array([1, 6, 7, 8, 9], dtype=np.uint8), atoms),
        pos=random.normal(scale=2.0, size=(atoms, 3)).round(4),
        targets=random.normal(size=(molecules, len(PROPERTIES))),
        target_names=np.array(list(PROPERTIES)),
    )


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Wall time, processor time, and the program's own share of it (not the kernel's), seconds."""
    before, wall = os.times(), time.perf_counter()
    work()
    after, wall = os.times(), time.perf_counter() - wall
    own = after.user - before.user
    return {"wall": wall, "cpu": own + after.system - before.system, "own": own}


def peak_memory_gb() -> float:
    """Of this process since it started its program (``ru_maxrss`` counts its parent, too)."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure_load(path: Path) -> dict[str, float]:
    """What one load needs, with one batch drawn."""
    before = peak_memory_gb()

    def load() -> None:
        train = load_qm9(path).with_cutoff(CUTOFF).split("train")
        next(iter(DataLoader(train, BATCH)))

    return {**measured(load), "before_gb": before, "peak_gb": peak_memory_gb()}


def in_fresh_process(path: Path, cache: Path) -> dict[str, float]:
    environment = {**os.environ, "EGNN_PRUNE_CACHE": str(cache)}
    command = [sys.executable, "-W", "ignore", __file__, "--measure", str(path)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def loads(folder: Path) -> dict[str, dict[str, float]]:
    """First and cached loads of both files, by label."""
    sample, large = local_data(SAMPLE), folder / "synthetic_130k.npz"
    if sample is None:
        print(f"{SAMPLE} is not there (EGNN_PRUNE_DATA): a synthetic file of that size instead")
        sample = folder / "synthetic_12k.npz"
        synthetic(sample, 12_000)
    print(f"Writing {MOLECULES:,} random molecules")
    synthetic(large)
    found = {}
    for name, path in (("12k", sample), ("130k", large)):
        for kind in ("first", "cached"):
            label = f"{name}, {kind}"
            found[label] = seen = in_fresh_process(path, folder / "cache")
            limit = f"limit {LIMITS_S[label]} s" if label in LIMITS_S else "no limit"
            print(
                f"{label:13s} {seen['wall']:6.2f} s wall, {seen['cpu']:6.2f} s processor "
                f"({limit}); peak {seen['peak_gb']:.2f} GB, {seen['before_gb']:.2f} GB of it "
                f"Python and libraries (limit {LIMIT_GB} GB)"
            )
    return found


def batches(path: Path) -> None:
    """Milliseconds for a batch, from a list of graphs and lazily, the best of five epochs."""
    lazy = load_qm9(path).limited(3_200).with_cutoff(CUTOFF)
    graphs = list(lazy.split("train"))
    listed = GraphDataset("list", "y", "eV", True, graphs, random_splits(len(graphs), val=0.001))
    for label, chosen in (("list", listed.split("train")), ("lazy", lazy.split("train"))):
        best = min(
            measured(lambda graphs=chosen: list(DataLoader(graphs, BATCH, shuffle=True)))["cpu"]
            for _ in range(5)
        )
        print(f"a batch of {BATCH} from {label}: {1e3 * best * BATCH / len(chosen):.2f} ms")


def neighbour_times() -> dict[str, list[float]]:
    """Seconds for each of ATOMS by kind of time, a mean over 100,000 atoms, the better of two."""
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[float]] = {}
    for atoms in tqdm(ATOMS, "neighbour lists"):
        cell = (atoms / DENSITY) ** (1 / 3) * torch.eye(3, dtype=torch.float64)
        pos = torch.rand(atoms, 3, generator=generator, dtype=torch.float64) @ cell
        repeats = ATOMS[-1] // atoms

        def work(pos: Tensor = pos, cell: Tensor = cell, repeats: int = repeats) -> None:
            for _ in range(repeats):
                neighbours(pos, CUTOFF, cell)

        runs = [measured(work) for _ in range(2)]
        for kind in runs[0]:
            times.setdefault(kind, []).append(min(run[kind] for run in runs) / repeats)
    return times


def plot(found: dict[str, dict[str, float]], times: dict[str, list[float]], slope: float) -> Figure:
    with house_style():
        figure = new_figure(height=3.6)
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        plot_loads(left, found)
        right.loglog(
            ATOMS, times["own"], "o-", color=BLUE, label=f"measured, grows as N$^{{{slope:.2f}}}$"
        )
        line = times["own"][0] * np.array(ATOMS) / ATOMS[0]
        right.loglog(ATOMS, line, ":", color=GREY, label="linear")
        right.set_xlabel("atoms in a periodic box")
        right.set_ylabel("processor time of the program (s)")
        right.set_title(f"Neighbour lists, cutoff {CUTOFF:g} Å")
        right.legend(loc="upper left")
        light_grid(right, "both")
    return figure


def plot_loads(axes: Axes, found: dict[str, dict[str, float]]) -> None:
    """Wall time (what a user waits for) and processor time of each load, and its limit."""
    places = np.arange(len(found))[::-1]
    for kind, colour, label in (("wall", ORANGE, "wall time"), ("cpu", BLUE, "processor time")):
        seconds = [seen[kind] for seen in found.values()]
        axes.plot(seconds, places, "o", color=colour, ms=7, label=label)
    limits = [(LIMITS_S[k], p) for k, p in zip(found, places, strict=True) if k in LIMITS_S]
    axes.plot(*zip(*limits, strict=True), "|", color=GREY, ms=12, mew=2.5, label="limit (wall)")
    for place, (label, seen) in zip(places, found.items(), strict=True):
        limit = f", limit {LIMITS_S[label]:g} s" if label in LIMITS_S else ""
        text = f"wall {seen['wall']:.2f} s{limit}"
        axes.text(55, place + 0.34, text, ha="right", va="center", fontsize=8.5)
    rows = [f"{label}\npeak {seen['peak_gb']:.2f} GB" for label, seen in found.items()]
    axes.set_yticks(places, rows)
    axes.set_ylim(-0.6, len(found) - 0.2)
    axes.set_xscale("log")
    axes.set_xlim(0.03, 60)
    axes.set_xlabel("seconds for a load and a first batch")
    axes.set_title("Loading 12,000 and 130,000 molecules", pad=26)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 0.99), ncols=3, columnspacing=1.0)
    light_grid(axes, "x")


def main() -> None:
    options = parse()
    if options.measure is not None:
        print(json.dumps(measure_load(options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EGNN_PRUNE_CACHE"] = str(Path(folder) / "cache")
        found = loads(Path(folder))
        batches(Path(folder) / "synthetic_130k.npz")
        times = neighbour_times()
    slope = float(np.polyfit(np.log(ATOMS), np.log(times["own"]), 1)[0])
    for k, atoms in enumerate(ATOMS):
        shown = (f"{kind} {1e6 * seconds[k] / atoms:6.2f}" for kind, seconds in times.items())
        print(f"{atoms:7,} atoms, microseconds an atom: {', '.join(shown)}")
    print(f"the program's own processor time grows as N^{slope:.2f}")
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.figure, png_bytes(plot(found, times, slope)))
    print(f"Written: {options.figure}")


if __name__ == "__main__":
    main()
