"""What a tiny job is judged on: a tenth of the graphs, so that this is no longer most of it.

A quarter of the test split, which the batches whose time is taken fit into.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from egnn_prune.data.dataset import GraphDataset

#: As other processes know it, in which nothing is patched.
ALL_GRAPHS = GraphDataset.limited
EVERY = {"test": 4}
OTHERS = 10


@pytest.fixture(scope="module", autouse=True)
def few_graphs_to_judge_on() -> Iterator[None]:
    """``data.limit`` holds for the other splits, too, where they are large."""

    def all_limited(self: GraphDataset, train: int | None, seed: int = 0) -> GraphDataset:
        found = ALL_GRAPHS(self, train, seed)
        if train is None:
            return found
        rest = {k: v for k, v in found.splits.items() if k != "train" and len(v) >= 500}
        return replace(
            found, splits=found.splits | {k: v[:: EVERY.get(k, OTHERS)] for k, v in rest.items()}
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GraphDataset, "limited", all_limited)
        yield
