"""Simulator of charged particles in three dimensions, many trajectories at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from egnn_prune.errors import ConfigError

Array = NDArray[np.float64]

#: Numbers in a work array of one axis: few enough to stay near the core, enough to hide what a call
#: of numpy costs. Measured for 5, 20 and 100 particles, with the least number of systems below.
CHUNK_NUMBERS, CHUNK_SYSTEMS = 65_536, 48


@dataclass(frozen=True)
class ChargedParticles:
    """The law of motion and the distribution of initial states, in reduced units.

    Formula:
        ``F_i = clip(strength * sum_j q_i q_j (x_i - x_j) / |x_i - x_j|^3, +-max_force)``, clipped
        component by component, and a leapfrog scheme with steps ``dt``:
        ``v(1/2) = v(0) + dt F(0)``, then ``x(s) = x(s-1) + dt v(s-1/2)``,
        ``v(s+1/2) = v(s-1/2) + dt F(s)``.

    The first kick lasts a whole step where leapfrog wants half a one: so does the original, and it
    only shifts the initial velocities by ``dt F / 2``.

    Source: Kipf et al. (ICML 2018), "Neural relational inference", in the three-dimensional version
    of Fuchs et al. (NeurIPS 2020) and Satorras et al. (ICML 2021), section 5.1.

    Attributes:
        particles: how many particles a system has.
        speed: of every particle at the start, in a random direction.
        strength: of the Coulomb force between unit charges.
        dt: length of a step.
    """

    particles: int = 5
    speed: float = 0.5
    strength: float = 1.0
    dt: float = 0.001

    def __post_init__(self) -> None:
        """Refuse a system without pairs."""
        if self.particles < 2:
            raise ConfigError(f"a system needs at least 2 particles, not {self.particles}")

    @property
    def spread(self) -> float:
        """Standard deviation of a coordinate at the start; the density is the same for every n."""
        return float((self.particles / 5) ** (1 / 3))

    @property
    def max_force(self) -> float:
        """Limit of each component of a force: no step changes a velocity by more than 0.1."""
        return 0.1 / self.dt

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Random initial states.

        Returns:
            positions ``[count, n, 3]``, velocities ``[count, n, 3]``, charges ``[count, n]`` (+-1).
        """
        n = self.particles
        charge = rng.choice([-1.0, 1.0], size=(count, n))
        pos = rng.normal(scale=self.spread, size=(count, n, 3))
        direction = rng.normal(size=(count, n, 3))
        vel = self.speed * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        return pos, vel, charge


@dataclass(frozen=True)
class Recording:
    """States of many systems at the recorded steps.

    Attributes:
        pos: ``[times, count, n, 3]``.
        vel: ``[times, count, n, 3]``, half a step before the positions (leapfrog).
        clipped: ``[count]``, whether a force ever reached its limit (energy is then not conserved).
    """

    pos: Array
    vel: Array
    clipped: NDArray[np.bool_]


def simulate(
    system: ChargedParticles,
    pos: Array,
    vel: Array,
    charge: Array,
    steps: Sequence[int],
    progress: bool = False,
) -> Recording:
    """Follow systems and record their states after each number of steps in ``steps``.

    Systems are taken in chunks whose arrays stay near the processor. Close encounters are chaotic:
    systems that had one end elsewhere when anything is rounded differently.

    Args:
        system: the law of motion.
        pos: ``[count, n, 3]``, initial positions.
        vel: ``[count, n, 3]``, initial velocities.
        charge: ``[count, n]``.
        steps: increasing numbers of steps, from 1 on.
        progress: show a progress bar.

    Raises:
        ConfigError: ``steps`` is empty, not increasing, or has a number below 1.
    """
    if len(steps) == 0 or steps[0] < 1 or np.any(np.diff(steps) <= 0):
        raise ConfigError(f"recorded steps must be increasing numbers from 1 on, not {list(steps)}")
    count, n, dimension = pos.shape
    out = Recording(
        pos=np.empty((len(steps), count, n, dimension)),
        vel=np.empty((len(steps), count, n, dimension)),
        clipped=np.zeros(count, dtype=bool),
    )
    chunk = max(CHUNK_SYSTEMS, CHUNK_NUMBERS // (n * (n - 1) // 2))
    title = f"simulating {n} particles"
    with tqdm(total=count, desc=title, unit=" systems", disable=not progress) as bar:
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            walk = _walk(system, pos[part], vel[part], charge[part], steps, out.clipped[part])
            for time, (x, v) in enumerate(walk):
                out.pos[time, part] = x.transpose(2, 1, 0)
                out.vel[time, part] = v.transpose(2, 1, 0)
            bar.update(part.stop - part.start)
    return out


def _walk(
    system: ChargedParticles,
    pos: Array,
    vel: Array,
    charge: Array,
    steps: Sequence[int],
    clipped: NDArray[np.bool_],
) -> Iterator[tuple[Array, Array]]:
    """Yield ``x, v [3, n, count]`` at each recorded step of one chunk; mark clipped systems."""
    x = np.ascontiguousarray(pos.transpose(2, 1, 0))
    v = np.ascontiguousarray(vel.transpose(2, 1, 0))
    field = PairForces(system.strength, charge.T)
    limit, kick = system.max_force, np.empty_like(x)
    done = 0
    for step in steps:
        while done < step:
            force = field(x)
            if force.max() > limit or force.min() < -limit:
                clipped |= (np.abs(force) > limit).any(axis=(0, 1))
                np.clip(force, -limit, limit, out=force)
            v += np.multiply(force, system.dt, out=kick)
            x += np.multiply(v, system.dt, out=kick)
            done += 1
        yield x, v


class PairForces:
    """Coulomb forces of a chunk of systems, in work arrays that are used again at every step.

    Each pair ``i < j`` is computed once; pairs are sorted by ``i``, so that the partners of a
    particle are one slice and nothing is gathered by index.

    Args:
        strength: of the force between unit charges.
        charge: ``[n, count]``.
    """

    def __init__(self, strength: float, charge: Array) -> None:
        n, count = charge.shape
        lengths = range(n - 1, 0, -1)
        ends = np.cumsum(list(lengths)).tolist()
        self.slices = [slice(b - a, b) for a, b in zip(lengths, ends, strict=True)]
        pairs = ends[-1]
        self.strength = np.empty((pairs, count))
        for i, part in enumerate(self.slices):
            self.strength[part] = strength * charge[i] * charge[i + 1 :]
        self.vector = np.empty((3, pairs, count))
        self.square = np.empty((3, pairs, count))
        self.root = np.empty((pairs, count))
        self.force = np.empty((3, n, count))
        self.sum = np.empty((3, count))

    def __call__(self, x: Array) -> Array:
        """``x [3, n, count] -> F [3, n, count]``, before clipping; overwritten by the next call."""
        vector, square, root, force = self.vector, self.square, self.root, self.force
        for i, part in enumerate(self.slices):
            np.subtract(x[:, i, None], x[:, i + 1 :], out=vector[:, part])
        np.multiply(vector, vector, out=square)
        distance2 = np.add(square[0], square[1], out=square[0])
        distance2 += square[2]
        np.sqrt(distance2, out=root)
        root *= distance2
        np.divide(self.strength, root, out=root)
        vector *= root
        force[...] = 0
        for i, part in enumerate(self.slices):
            force[:, i] += np.add.reduce(vector[:, part], axis=1, out=self.sum)
            force[:, i + 1 :] -= vector[:, part]
        return force


def forces(system: ChargedParticles, pos: Array, charge: Array) -> Array:
    """Coulomb forces ``[count, n, 3]``, not clipped, for ``pos [count, n, 3]``, ``charge``."""
    return PairForces(system.strength, charge.T)(pos.transpose(2, 1, 0)).transpose(2, 1, 0)


def energy(system: ChargedParticles, pos: Array, vel: Array, charge: Array) -> Array:
    """Kinetic plus Coulomb energy ``[count]`` with all masses 1.

    Formula:
        ``sum_i |v_i|^2 / 2 + strength * sum_(i<j) q_i q_j / |x_i - x_j|``, with positions and
        velocities at the same time (``Recording.vel`` plus ``dt F / 2``).
    """
    i, j = np.triu_indices(pos.shape[1], k=1)
    distance = np.linalg.norm(pos[:, i] - pos[:, j], axis=-1)
    coulomb = (charge[:, i] * charge[:, j] / distance).sum(1)
    return np.asarray((vel**2).sum((1, 2)) / 2 + system.strength * coulomb)
