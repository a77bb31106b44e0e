"""Check the simulator of charged particles: speed, conservation of energy, a known error.

Simulates the standard 3,000 + 2,000 + 2,000 systems of 5 particles to frame 40 and prints

- wall and processor time (one core; no cache is read or written);
- the drift of the total energy from the start to frame 40, in percent of the sum of all kinetic and
  Coulomb energies at the start, each counted positive (the total itself may be close to zero);
- the error of the linear baseline x + c v, with c fitted on the training systems, which Satorras et
  al. 2021 (Table 2) report as 0.0819.

With --published the initial states are those of the published files, drawn in their order from the
same random numbers. Trajectories then agree until a close encounter amplifies rounding.

Writes figures/nbody_energy.png, such as `python scripts/benchmark_nbody.py --figure out.png`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from egnn_prune.data.sources.nbody import FIRST, FRAME, LAST, SIZES
from egnn_prune.data.sources.particles import (
    Array,
    ChargedParticles,
    Recording,
    energy,
    forces,
    simulate,
)
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import (
    BLUE,
    GREY,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
    png_bytes,
)

#: Of the published files: seed, numbers of systems, frames of a trajectory.
PUBLISHED_SEED, PUBLISHED_COUNTS, PUBLISHED_FRAMES = 43, (10_000, 2000, 2000), 49
State = tuple[Array, Array, Array]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the initial states (0)")
    parser.add_argument("--published", action="store_true", help="initial states as published")
    parser.add_argument(
        "--figure", type=Path, default=Path("figures/nbody_energy.png"), help="where to draw"
    )
    return parser.parse_args()


def published_states(system: ChargedParticles) -> State:
    """Initial states of the published files: the first 3,000 for training, all of the others.

    The original draws charges, positions and directions of a system, then noise of width zero
    for each of its frames, from NumPy's legacy generator.
    """
    random, n = np.random.RandomState(PUBLISHED_SEED), system.particles
    states = []
    for _ in tqdm(range(sum(PUBLISHED_COUNTS)), "drawing", unit=" systems"):
        charge = random.choice([-1.0, 0.0, 1.0], size=n, p=[0.5, 0, 0.5])
        pos, direction = random.randn(3, n).T, random.randn(3, n).T
        random.randn(2 * PUBLISHED_FRAMES * 3 * n)
        speed = np.linalg.norm(direction, axis=1, keepdims=True)
        states.append((pos, system.speed * direction / speed, charge))
    train = SIZES[5][0]
    used = states[:train] + states[PUBLISHED_COUNTS[0] :]
    pos, vel, charge = (np.stack(part) for part in zip(*used, strict=True))
    return pos, vel, charge


def drawn_states(system: ChargedParticles, seed: int) -> State:
    """The initial states of ``load_nbody(seed)``."""
    parts = [system.draw(n, np.random.default_rng([seed, k])) for k, n in enumerate(SIZES[5])]
    pos, vel, charge = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pos, vel, charge


def drift(system: ChargedParticles, state: State, seen: Recording) -> Array:
    """Relative change ``[times, systems]`` of the total energy since the start."""
    pos, vel, charge = state
    half = system.dt / 2
    start = vel + half * forces(system, pos, charge)  # the first kick lasts a whole step
    before = energy(system, pos, start, charge)
    i, j = np.triu_indices(system.particles, k=1)
    coulomb = system.strength / np.linalg.norm(pos[:, i] - pos[:, j], axis=-1)
    size = (start**2).sum((1, 2)) / 2 + coulomb.sum(1)
    after = [
        energy(system, x, v + half * forces(system, x, charge), charge)
        for x, v in zip(seen.pos, seen.vel, strict=True)
    ]
    return np.abs(np.stack(after) - before) / size


def linear_baseline(seen: Recording) -> tuple[float, float, float]:
    """``c``, the mean squared test error of ``x + c v``, and its standard error."""
    x, v, y = seen.pos[FIRST], seen.vel[FIRST], seen.pos[LAST]
    train, test = slice(SIZES[5][0]), slice(sum(SIZES[5][:2]), None)
    c = float(((y - x) * v)[train].sum() / (v[train] ** 2).sum())
    error = ((x + c * v - y)[test] ** 2).mean((1, 2))
    return c, float(error.mean()), float(error.std(ddof=1) / np.sqrt(len(error)))


def energy_plot(system: ChargedParticles, change: Array, clipped: Array) -> Figure:
    """Drift over time (median and 95 % of the systems) and its distribution at frame 40."""
    groups = {"no force clipped": (~clipped, BLUE), "a force was clipped": (clipped, VERMILION)}
    times = system.dt * FRAME * np.arange(1, len(change) + 1)
    percent = 100 * np.maximum(change, 1e-12)
    with house_style():
        figure = new_figure(height=3.4)
        left, right = figure.subplots(1, 2)
        bins = np.logspace(-8, np.ceil(np.log10(percent[-1].max())), 60)
        for label, (chosen, colour) in groups.items():
            low, middle, high = np.quantile(percent[:, chosen], [0.05, 0.5, 0.95], axis=1)
            left.plot(times, middle, color=colour, label=label)
            left.fill_between(times, low, high, color=colour, alpha=0.2, linewidth=0)
            share = f"{label} ({chosen.mean():.0%} of systems)"
            right.hist(
                percent[-1, chosen], bins=bins, color=colour, histtype="stepfilled", alpha=0.6,
                label=share,
            )  # fmt: skip
        for frame in (FIRST, LAST):
            left.axvline(system.dt * FRAME * (frame + 1), color=GREY, linestyle=":", linewidth=1)
        left.set_yscale("log")
        left.set_title("Energy drift: median, 5 to 95 %")
        left.set_xlabel("time since the start (dotted: frames 30 and 40)")
        left.set_ylabel("drift (% of the energies' size)")
        right.set_xscale("log")
        right.set_title("At frame 40")
        right.set_xlabel("drift (% of the energies' size)")
        right.set_ylabel("systems")
        light_grid(left, "y")
        light_grid(right, "y")
        right.legend(loc="upper left")
    return figure


def main() -> None:
    options, system = parse(), ChargedParticles()
    state = published_states(system) if options.published else drawn_states(system, options.seed)
    steps = [FRAME * (frame + 1) for frame in range(LAST + 1)]
    wall, processor = time.perf_counter(), time.process_time()
    seen = simulate(system, *state, steps, progress=True)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(
        f"{len(state[0]):,} systems, {steps[-1]:,} steps: {wall:.1f} s wall time, "
        f"{processor:.1f} s processor time"
    )
    change = drift(system, state, seen)
    for label, chosen in (
        ("no force clipped", ~seen.clipped),
        ("a force was clipped", seen.clipped),
        ("all", np.ones_like(seen.clipped)),
    ):
        median, q95 = 100 * np.quantile(change[-1, chosen], [0.5, 0.95])
        print(
            f"energy drift at frame {LAST}, {label} ({chosen.mean():.1%}): median {median:.2g} %, "
            f"95th percentile {q95:.2g} %"
        )
    c, error, spread = linear_baseline(seen)
    print(f"linear baseline x + {c:.3f} v: test MSE {error:.4f} +- {spread:.4f} (reported: 0.0819)")
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.figure, png_bytes(energy_plot(system, change, seen.clipped)))
    print(f"Written: {options.figure}")


if __name__ == "__main__":
    main()
