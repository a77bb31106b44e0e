"""What the settings of a job add to each of its fits."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.callbacks import Callback

from egnn_prune.configs.settings import TrainingSettings
from egnn_prune.training import AveragedWeights, KeepBest, PruningCallback, StopEarly

#: Share of a fit's steps that stochastic weight averaging averages over.
LAST = 0.25


def with_the_asked(callbacks: Sequence[Callback], asked: TrainingSettings) -> list[Callback]:
    """A fit's own callbacks, between those that the settings ask for: their order matters.

    The average comes first, so that rounds of pruning see the trained weights; what judges a look
    at the validation split comes last, the best weights before the end of the fit.

    Args:
        callbacks: of the fit.
        asked: whether weights are averaged, the best are kept, and a fit may stop.
    """
    pruning = [c for c in callbacks if isinstance(c, PruningCallback)]

    def pruned() -> bool:  # models that are still to be pruned do not compete
        return all(p.finished for p in pruning)

    found = [*callbacks]
    if asked.average != "none":
        last = LAST if asked.average == "swa" else None
        found.insert(0, AveragedWeights(last=last))
    if asked.monitor:
        found.append(KeepBest(asked.monitor, pruned))
        if asked.patience:
            found.append(StopEarly(asked.monitor, asked.patience, pruned))
    return found
