"""Points that lie far from each other, and points that others gather around."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError

#: Lloyd's iterations at most; a few dozen points in 64 dimensions settle in fewer.
ITERATIONS = 50


def greedy_k_centre(
    points: Tensor, count: int, *, first: int = 0, covered: Tensor | None = None
) -> Tensor:
    r"""Points such that no other point is far from all of them.

    Each step takes the point farthest from its nearest centre,
    :math:`\arg\max_i \min_{j \in S} \|x_i - x_j\|`; the largest distance that is left is at most
    twice the smallest possible one. Source: Sener and Savarese 2018, Algorithm 1.

    Args:
        points: ``[n, d]``.
        count: how many, at most n.
        first: the first centre, where nothing is ``covered``.
        covered: ``[m, d]``, centres from the beginning (the s_0 of the source).

    Returns:
        ``[count]`` different row numbers, in the order of the choice; equal points are taken last.

    Raises:
        ConfigError: there are fewer points than ``count``.
    """
    if not 1 <= count <= len(points):
        raise ConfigError(f"{count} centres cannot be chosen among {len(points)} points")
    if covered is not None and len(covered):
        nearest = _distances(points, covered).amin(1)
        first = int(nearest.argmax())
    else:
        nearest = points.new_full((len(points),), torch.inf)
    chosen = torch.empty(count, dtype=torch.long)
    row = first
    for step in range(count):
        chosen[step] = row
        nearest = torch.minimum(nearest, _distances(points, points[row : row + 1])[:, 0])
        nearest[row] = -1  # below every distance: never again, not even among equal points
        row = int(nearest.argmax())
    return chosen


def k_means(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres that points gather around: k-means++ seeds, then Lloyd's iterations.

    Source: Arthur and Vassilvitskii 2007 for the seeds. A centre that loses all of its points
    stays where it was.

    Args:
        points: ``[n, d]``.
        count: how many centres; fewer are found where fewer points differ.
        generator: of the seeds.

    Returns:
        ``[at most count, d]`` centres.
    """
    row = int(torch.randint(len(points), (1,), generator=generator))
    seeds, nearest = [row], _distances(points, points[row : row + 1])[:, 0]
    while len(seeds) < count and bool((nearest > 0).any()):
        row = int(torch.multinomial(nearest.double().square(), 1, generator=generator))
        seeds.append(row)
        nearest = torch.minimum(nearest, _distances(points, points[row : row + 1])[:, 0])
    centres = points[seeds].clone()
    for _ in range(ITERATIONS):
        owner = _distances(points, centres).argmin(1)
        size = torch.bincount(owner, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        moved = torch.where(size[:, None] > 0, sums / size.clamp(min=1)[:, None], centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """``[n, d], [k, d] -> [n, k]``; not by a matrix product, which would part equal points."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")
