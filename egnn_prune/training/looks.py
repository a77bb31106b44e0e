"""How often a fit looks at its validation split."""

from __future__ import annotations

#: A fit of many short passes over the data looks at the validation split about so often.
VALIDATIONS = 100
#: Looks that choose nothing cost at most about this share of the learning.
SHARE = 0.1
#: Learning from a graph costs this many looks at one: backwards is twice the work of forwards.
TRAINING_COST = 3


def passes_between_looks(passes: int, least: int = 1) -> int:
    """Passes over the data from one look at the validation split to the next.

    Args:
        passes: in the whole fit.
        least: fewer there are not, as far as the fit is long enough for one look. The looks that
            are left are spread, so that the last one comes near the end.
    """
    every = max(1, passes // VALIDATIONS)
    possible = passes // every
    looks = max(1, possible // -(-least // every))
    return every * max(1, possible // looks)


def affordable(learned: int, looked: int) -> int:
    """Passes after which a look costs no more than :data:`SHARE` of what was learned meanwhile.

    Counted in graphs and not measured in seconds, so that a fit can be repeated.

    Args:
        learned: graphs in a pass over the training data.
        looked: graphs in the validation split.
    """
    return max(1, -(-looked // max(1, int(SHARE * TRAINING_COST * learned))))
