"""N-body: where will charged particles be? The standard benchmark, made by our own simulator."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from egnn_prune.data.cache import cache_folder
from egnn_prune.data.dataset import GraphDataset
from egnn_prune.data.sources.particles import Array, ChargedParticles, simulate
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.graphs import complete_edges
from egnn_prune.system.array_reading import read_arrays
from egnn_prune.system.files import write_arrays

#: Steps from one frame to the next; frame 0 is taken after the first so many.
FRAME = 100
FIRST, LAST = 30, 40
#: Systems in train, val and test by the number of particles: 100 have 495 times the pairs of 5.
SIZES = {5: (3000, 2000, 2000), 20: (3000, 2000, 2000), 100: (300, 100, 100)}
SPLITS = ("train", "val", "test")
#: Of what is kept in the cache; raise it when the simulator's results change.
VERSION = 1

log = logging.getLogger(__name__)


def load_nbody(seed: int = 0, subset: str | int | None = None) -> GraphDataset:
    """Charged particles at frame 30; predict their positions at frame 40, 1,000 steps later.

    ============= ========================= ============================================
    attribute     unit                      meaning
    ============= ========================= ============================================
    x [N, 1]      length / time             speed
    edge_attr     charge squared            product of the two charges, +-1; ``[E, 1]``
    pos [N, 3]    length                    at frame 30
    vel [N, 3]    length / time             half a step (0.0005) before frame 30
    charge [N, 1] charge                    +-1
    y [N, 3]      length                    positions at frame 40, one unit of time later
    ============= ========================= ============================================

    All in reduced units (mass, charge and Coulomb's constant are 1) and float64. The frames are
    counted as the published files count them: frame 0 is step 100, so frames 30 and 40 are steps
    3,100 and 4,100. Where the original reflects initial positions beyond +-5 we do not: nothing
    changes for 5 particles; of 100 particles it would move one in six.

    The systems are simulated once (on one core: 5 particles 7 s, 20 and 100 some minutes) and kept
    in the cache folder, by the simulator's parameters.

    Source: Satorras et al. (ICML 2021), section 5.1; Fuchs et al. (NeurIPS 2020).

    Args:
        seed: of the initial states; every split has a stream of its own.
        subset: number of particles: 5 (the standard, 3,000/2,000/2,000 systems), 20 (the same
            number of systems) or 100 (300/100/100).

    Raises:
        ConfigError: no such number of particles.
    """
    choices = {str(n): n for n in SIZES}
    if str(subset or 5) not in choices:
        raise ConfigError(f"nbody has {', '.join(choices)} particles, not data.subset={subset!r}")
    particles = choices[str(subset or 5)]
    counts = SIZES[particles]
    arrays = systems(ChargedParticles(particles), counts, seed)
    ends = np.cumsum(counts).tolist()
    return GraphDataset(
        name="nbody" if particles == 5 else f"nbody-{particles}",
        target="positions",
        unit="length unit",
        extensive=False,
        graphs=_graphs(arrays),
        splits={
            name: torch.arange(end - size, end)
            for name, size, end in zip(SPLITS, counts, ends, strict=True)
        },
        outputs="positions",
        units={
            "pos": "length unit",
            "y": "length unit",
            "vel": "length unit / time unit",
            "x": "length unit / time unit",
            "edge_attr": "charge unit^2",
        },
    )


def _graphs(arrays: dict[str, Array]) -> list[Data]:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    particles = tensors["charge"].shape[1]
    edge_index = complete_edges(torch.tensor([0, particles]))  # the same for every graph
    source, target = edge_index
    speed = tensors["vel"].norm(dim=-1, keepdim=True)
    product = (tensors["charge"][:, source] * tensors["charge"][:, target])[..., None]
    columns = {
        "x": speed,
        "pos": tensors["pos"],
        "vel": tensors["vel"],
        "y": tensors["y"],
        "charge": tensors["charge"][..., None],
        "edge_attr": product,
        "row": torch.arange(len(speed))[:, None],
    }
    return [
        Data().update({"edge_index": edge_index, **dict(zip(columns, values, strict=True))})
        for values in zip(*columns.values(), strict=True)
    ]


def systems(system: ChargedParticles, counts: tuple[int, ...], seed: int) -> dict[str, Array]:
    """The first and last frame of ``sum(counts)`` systems, from the cache or simulated now.

    Returns:
        ``pos, vel, y [systems, n, 3]`` and ``charge [systems, n]``, split after split.
    """
    steps = [FRAME * (FIRST + 1), FRAME * (LAST + 1)]
    asked = {**asdict(system), "counts": counts, "seed": seed, "steps": steps, "version": VERSION}
    key = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / f"nbody-{system.particles}-{key}.npz"
    if path.is_file() and (kept := _kept(path)) is not None:
        return kept
    drawn = [system.draw(n, np.random.default_rng([seed, k])) for k, n in enumerate(counts)]
    pos, vel, charge = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    seen = simulate(system, pos, vel, charge, steps, progress=True)
    arrays = {"pos": seen.pos[0], "vel": seen.vel[0], "y": seen.pos[1], "charge": charge}
    try:
        write_arrays(path, **arrays)
    except InputError as error:
        log.info("%s; the systems are simulated again next time", error)
    return arrays


def _kept(path: Path) -> dict[str, Array] | None:
    """What an earlier call kept; ``None`` where there is nothing, or nothing readable."""
    try:
        kept: Any = read_arrays(path, ("pos", "vel", "y", "charge"))  # archives have checksums
        return dict(kept)
    except InputError as error:
        log.info("%s; its systems are simulated again", error)
        return None
