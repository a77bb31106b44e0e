"""What is known about every sample that may be selected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError, InputError

Losses = Callable[[nn.Module, Any], Tensor]

#: The layer whose inputs are a sample's embedding: the last one before the predicted mean.
LAST_LAYER = "mean_out"


@dataclass(frozen=True)
class SampleScores:
    """What a strategy may look at, one row a sample.

    Attributes:
        uncertainty: ``[n]``, such as the epistemic deviation in the target's unit; higher is less
            sure.
        losses: ``[n]``, or ``None`` where there are no labels (or no strategy asks for them).
        embeddings: ``[n, d]``, where the network sees each sample, or ``None``.
        covered: ``[m, d]``, embeddings of samples that are selected already, for ``"diverse"``:
            new samples keep away from them too.

    Raises:
        ConfigError: a tensor has the wrong shape, or holds NaN or infinity.
    """

    uncertainty: Tensor
    losses: Tensor | None = None
    embeddings: Tensor | None = None
    covered: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what no strategy could use."""
        if self.uncertainty.dim() != 1 or len(self.uncertainty) == 0:
            raise ConfigError("selection needs one uncertainty per training sample")
        n = len(self.uncertainty)
        if self.losses is not None and self.losses.shape != (n,):
            raise ConfigError(f"{n} samples need losses [{n}], not {list(self.losses.shape)}")
        if self.embeddings is not None and (
            self.embeddings.dim() != 2 or len(self.embeddings) != n
        ):
            raise ConfigError(
                f"{n} samples need embeddings [{n}, d], not {list(self.embeddings.shape)}"
            )
        if self.covered is not None and (
            self.embeddings is None or self.covered.shape[1:] != self.embeddings.shape[1:]
        ):
            raise ConfigError("covered embeddings [m, d] need embeddings [n, d] beside them")
        for name, value in vars(self).items():
            if value is not None and not bool(torch.isfinite(value).all()):
                what = "an uncertainty" if name == "uncertainty" else f"one of the {name}"
                raise ConfigError(f"{what} is NaN or infinite; check the trained model")

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.uncertainty)


def score_samples(
    model: nn.Module,
    batches: Iterable[Any],
    uncertainty: Tensor,
    losses: Losses | None = None,
    device: torch.device | str = "cpu",
) -> SampleScores:
    r"""Collect all evidence in one deterministic pass over the samples.

    The embedding of a graph is what its network's last layer reads (the input of ``mean_out``),
    averaged over the nodes :math:`i` of graph :math:`g`:

    .. math::
        e_g = \frac{1}{|g|} \sum_{i \in g} u_i .

    The mean, not the sum that an extensive target is read from: a molecule should not be far from
    all others for its size alone. Of a deep ensemble it is the first member's.

    Args:
        model: a network with a layer ``mean_out``; one without has no embeddings.
        batches: all samples in the order of ``uncertainty``; PyG batches, or anything with ``to``
            whose samples are single rows.
        uncertainty: ``[n]``, see :class:`SampleScores`.
        losses: ``losses(model, batch) -> [B]``, or ``None`` to leave them away.
        device: where to run; the model is left on the CPU.

    Raises:
        ConfigError: the samples of ``batches`` are not those of ``uncertainty``.
    """
    read: list[Tensor] = []

    def remember(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read.append(inputs[0].detach())

    last = next((m for name, m in model.named_modules() if name.endswith(LAST_LAYER)), None)
    hook = last.register_forward_pre_hook(remember) if last is not None else None
    found_losses, embeddings = [], []
    model.to(device)
    try:
        with torch.no_grad(), evaluating(model):
            for batch in batches:
                read.clear()
                batch = batch.to(device)
                if losses is None:
                    model(batch)
                else:
                    found_losses.append(losses(model, batch).cpu())
                embeddings += [_mean_over_nodes(x, batch).cpu() for x in read[:1]]
    finally:
        if hook is not None:
            hook.remove()
        model.to("cpu")
    return SampleScores(
        uncertainty,
        torch.cat(found_losses) if found_losses else None,
        torch.cat(embeddings) if embeddings else None,
    )


def _mean_over_nodes(x: Tensor, batch: Any) -> Tensor:
    """``[N, d] -> [B, d]``; rows stay as they are where there are no nodes to speak of."""
    graph = getattr(batch, "batch", None)
    if graph is None:
        return x
    if len(graph) != len(x):
        raise InputError(f"the last layer read {len(x)} rows for a batch of {len(graph)} nodes")
    count = torch.bincount(graph)
    return x.new_zeros(len(count), x.shape[1]).index_add_(0, graph, x) / count[:, None]
