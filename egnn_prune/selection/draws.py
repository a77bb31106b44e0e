"""How selected samples are used: how often each is drawn, and when they are selected anew."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError


def replay_weights(selected: Tensor, n: int, share: float) -> Tensor:
    """How often to draw each sample when fine-tuning, so that ordinary ones are not forgotten.

    Args:
        selected: row numbers that were chosen.
        n: the number of samples to choose from.
        share: the share of draws that goes to samples that were *not* selected, in [0, 1).

    Returns:
        ``[n]`` probabilities: ``1 - share`` spread over the selected samples, ``share`` over the
        others (over the selected ones too where there are no others).

    Raises:
        ConfigError: the share is out of range, or nothing is selected.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"selection.replay is a share in [0, 1), not {share}")
    if len(selected) == 0:
        raise ConfigError("no sample is selected, so there is nothing to fine-tune on")
    ordinary = n - len(selected)
    weights = torch.full((n,), share / ordinary if ordinary else 0.0, dtype=torch.float64)
    weights[selected] = (1 - share if ordinary else 1.0) / len(selected)
    return weights


def rounds(steps: int, count: int) -> list[int]:
    """The steps before which the selection is made anew, evenly spread; the first is step 0.

    Args:
        steps: optimiser steps of the fine-tuning.
        count: how often to select; 1 selects once, before the first step.

    ``steps`` may count anything, such as epochs.

    Returns:
        ``count`` different steps, such as ``[0, 100, 200]`` for 300 steps and 3 rounds.

    Raises:
        ConfigError: there are fewer steps than rounds, or no round.
    """
    if not 1 <= count <= steps:
        raise ConfigError(f"selection.rounds lies between 1 and the {steps} steps, not {count}")
    return [number * steps // count for number in range(count)]
