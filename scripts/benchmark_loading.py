"""Measure how long data take to load, how much memory they need, and how neighbour lists grow.

    python scripts/benchmark_loading.py [--figure figures/loading.png]

- The first load of qm9_12k.npz (of EGNN_PRUNE_DATA) and a later one, from the cache.
- The same for a synthetic file of 130,000 molecules of QM9's sizes, with the peak resident memory.
- Drawing batches of 32 molecules with their neighbour lists: from a list of graphs, and lazily.
- Neighbour lists of 1,000 to 100,000 atoms at constant density, and the exponent of their growth.

Every load is measured in a fresh process, without its imports, in wall and in processor time (which
other work on the machine changes little). Files and caches made here lie in a temporary folder.
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
from matplotlib.figure import Figure
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.data.local import local_data
from egnn_prune.data.qm9 import PROPERTIES, SAMPLE, load_qm9
from egnn_prune.models.graph import neighbours
from egnn_prune.report.files import write_atomic
from egnn_prune.report.style import (
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
    """Wall and processor time in seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - processor}


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


def neighbour_times() -> list[float]:
    """Processor time in seconds for each of ATOMS, the better of two."""
    generator, times = torch.Generator().manual_seed(0), []
    for atoms in tqdm(ATOMS, "neighbour lists"):
        side = (atoms / DENSITY) ** (1 / 3)
        pos = side * torch.rand(atoms, 3, generator=generator, dtype=torch.float64)
        times.append(
            min(measured(lambda pos=pos: neighbours(pos, CUTOFF))["cpu"] for _ in range(2))
        )
    return times


def plot(found: dict[str, dict[str, float]], times: list[float], slope: float) -> Figure:
    with house_style():
        figure = new_figure(height=3.4)
        left, right = figure.subplots(1, 2)
        places = np.arange(len(found))[::-1]
        seconds = [seen["cpu"] for seen in found.values()]
        colours = [ORANGE if "first" in label else BLUE for label in found]
        left.barh(places, seconds, color=colours, height=0.4)
        for place, (label, seen) in zip(places, found.items(), strict=True):
            text = f"{seen['cpu']:.2f} s (wall {seen['wall']:.2f} s)"
            left.text(min(seconds) / 2.5, place + 0.36, text, fontsize=8.5)
            if label in LIMITS_S:
                left.plot([LIMITS_S[label]] * 2, [place - 0.3, place + 0.3], color=GREY, lw=2)
        left.set_yticks(places, list(found))
        left.set_xscale("log")
        left.set_xlim(min(seconds) / 3, 40)
        left.set_xlabel("processor time of a load (s); line: limit of the wall time")
        left.set_title("QM9-like files")
        right.loglog(ATOMS, times, "o-", color=BLUE, label=f"measured, N$^{{{slope:.2f}}}$")
        middle = len(ATOMS) // 2
        line = times[middle] * np.array(ATOMS) / ATOMS[middle]
        right.loglog(ATOMS, line, ":", color=GREY, label="linear")
        right.set_xlabel("atoms at constant density")
        right.set_ylabel("processor time (s)")
        right.set_title(f"Neighbour lists, cutoff {CUTOFF:g} Å")
        right.legend(loc="upper left")
        light_grid(right, "both")
    return figure


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
    slope = float(np.polyfit(np.log(ATOMS), np.log(times), 1)[0])
    for atoms, seconds in zip(ATOMS, times, strict=True):
        print(f"{atoms:7,} atoms: {1e3 * seconds:8.1f} ms, {1e6 * seconds / atoms:.2f} us an atom")
    print(f"time grows as N^{slope:.2f}")
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.figure, png_bytes(plot(found, times, slope)))
    print(f"Written: {options.figure}")


if __name__ == "__main__":
    main()
