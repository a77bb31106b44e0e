"""Draws of training graphs that can go on in the middle of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import RandomSampler, Sampler, WeightedRandomSampler

from egnn_prune.system.distributed import broadcast, place


class ResumableSampler(Sampler[int]):
    """Draws what another sampler draws, and can begin a pass again behind what was used of it.

    Several processes that share a fit draw what the first one draws.

    Args:
        sampler: draws from torch's generator when a pass begins.

    Attributes:
        begun: the generator's state when the present pass began.
    """

    def __init__(self, sampler: RandomSampler | WeightedRandomSampler) -> None:
        self.sampler = sampler
        self.begun: Tensor | None = None
        self._left = False, 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        (again, skip), self._left = self._left, (False, 0)
        if again and self.begun is not None:
            torch.set_rng_state(self.begun)
        self.begun = torch.get_rng_state()
        yield from islice(self._drawn(), skip, None)

    def _drawn(self) -> Iterator[int]:
        """Draws as they come, which a weighted sampler makes of all of them at once."""
        return iter(self.sampler) if place()[1] == 1 else iter(broadcast(list(self.sampler)))

    def resume(self, begun: Tensor | None, used: int) -> None:
        """Make the next pass the rest of one that began with a generator's state."""
        self.begun, self._left = begun, (True, used)

    @property
    def weights(self) -> Tensor | None:
        """``[n]``, what graphs are drawn by; ``None`` where all are alike."""
        return getattr(self.sampler, "weights", None)

    @weights.setter
    def weights(self, weights: Tensor) -> None:
        assert isinstance(self.sampler, WeightedRandomSampler)
        self.sampler.weights = weights
