"""How sparsity grows over the rounds of pruning: pure functions."""

from __future__ import annotations

from egnn_prune.errors import ConfigError


def iterative(sparsity: float, rounds: int) -> list[float]:
    r"""Remove the same share of what is left in every round.

    :math:`s_k = 1 - (1 - s)^{k/n}`, so that the last round reaches the sparsity exactly; one round
    is one-shot pruning. Source: Frankle and Carbin 2019, Section 1.

    Args:
        sparsity: the final fraction removed, in [0, 1).
        rounds: n, at least 1.

    Raises:
        ConfigError: a value is out of range.
    """
    if not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity is the fraction removed and lies in [0, 1), not {sparsity}")
    if rounds < 1:
        raise ConfigError(f"pruning needs at least one round, not {rounds}")
    steps = [1 - (1 - sparsity) ** (k / rounds) for k in range(1, rounds)]
    return [*steps, sparsity]
