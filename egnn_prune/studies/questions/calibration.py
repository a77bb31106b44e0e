"""Question 3: does pruning harm calibration more than accuracy?"""

from __future__ import annotations

from functools import lru_cache

from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.context import Asked, Question
from egnn_prune.studies.questions.error_bars import ErrorBars
from egnn_prune.studies.questions.networks import SHARE, Networks

#: Networks of a committee.
MEMBERS = 4
POINTS = ("right after", "old calibration", "recalibrated")


def cells(asked: Asked) -> list[Row]:
    """By system: the full network, each share at three points, and other methods at one share."""
    found: list[Row] = []
    for system in dict.fromkeys((asked.form.system, asked.form.second)):
        one: Row = {"system": system, "method": "last_layer"}
        found.append({**one, "share": 0.0, "point": "before"})
        found += [{**one, "share": s, "point": p} for s in asked.form.shares for p in POINTS]
        found += [
            {"system": system, "method": method, "share": SHARE, "point": "recalibrated"}
            for method in ("shallow", "committee")
        ]
    return found


def find(asked: Asked, system: str, method: str, share: float, point: str) -> Row:
    """Judge error bars on the test structures."""
    networks = asked.networks(system)
    test = networks.found.test
    if point == "recalibrated":
        names = ["small", *(f"member{k}" for k in range(1, MEMBERS))]
        names = names if method == "committee" else names[:1]
        models = [networks.network(f"{name}@{share:g}") for name in names]
        return ErrorBars.fitted(networks, models, method).judged(test)
    before = _before(networks)
    if point == "before":
        return before.judged(test)
    cut = point == "right after"
    model = networks.cut_at(share).eval() if cut else networks.network(f"small@{share:g}")
    return before.of(networks, model).judged(test)


@lru_cache(1)  # of all rows of a system
def _before(networks: Networks) -> ErrorBars:
    """The full network's."""
    return ErrorBars.fitted(networks, [networks.network("full")], "last_layer")


QUESTION = Question(cells, find)
