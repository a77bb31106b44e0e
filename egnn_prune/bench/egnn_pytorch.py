"""The package egnn-pytorch (lucidrains) on padded batches of all pairs, as it is meant to be used.

It computes its own function: the inner widths of its edge network are 2 (2 h + 1), those of its
coordinate network 4 h, and no option changes that; each atom also sends a message to itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from egnn_prune.bench.cases import FEATURES, Case
from egnn_prune.bench.contender import Contender, Unavailable, program
from egnn_prune.bench.inputs import Inputs


class _Stack(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        from egnn_pytorch import EGNN

        self.embedding = nn.Linear(FEATURES, case.hidden)
        self.layers = nn.ModuleList(
            EGNN(dim=case.hidden, m_dim=case.hidden) for _ in range(case.layers)
        )

    def forward(self, x: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        h = self.embedding(x)
        for layer in self.layers:
            h, pos = layer(h, pos)
        return h, pos


def egnn_pytorch(case: Case, device: str, compiled: bool) -> Contender:
    """The network of the case.

    Raises:
        Unavailable: the package is not installed, or the case has a cutoff.
    """
    if case.cutoff is not None:
        raise Unavailable("egnn-pytorch holds all pairs of a padded batch, and this has a cutoff")
    try:
        network = _Stack(case).to(device)
    except ImportError as error:
        raise Unavailable(f"egnn-pytorch is not installed ({error})") from None
    run = program(network, compiled)

    def outputs(inputs: Inputs) -> Sequence[Tensor]:
        shape = (inputs.graphs, -1)
        return run(inputs.x.view(*shape, FEATURES), inputs.pos.view(*shape, 3))

    return Contender(outputs, list(network.parameters()), network.embedding.weight, network)
