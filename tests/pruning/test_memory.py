"""Peak memory by hand: what is alive at the worst moment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from egnn_prune.pruning.memory import peak_memory


class Wide(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.second(hidden).view(-1)


def test_counts_results_and_frees_them():
    x = torch.zeros(100, 8)
    # hidden [100, w] and the output [100, 8] are alive together; views add nothing
    for width in (16, 64):
        assert peak_memory(Wide(width), lambda m: m(x)) == 4 * 100 * (width + 8)
    assert peak_memory(nn.Identity(), lambda m: m(x).view(-1)) == 0

    def many(model: nn.Module) -> None:
        for _ in range(5):
            model(x)

    assert peak_memory(Wide(16), many) == peak_memory(Wide(16), lambda m: m(x))
