"""The sentences of the page: the result, what it rests on, and what it does not promise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from egnn_prune.report.common.files import Metrics, number
from egnn_prune.report.common.formatting import significant, times
from egnn_prune.report.specialise.cut import is_odd, layers_of
from egnn_prune.report.specialise.files import (
    FORCE_RMSE,
    LATENCY,
    Structures,
    kept_of,
    models_present,
    values,
)
from egnn_prune.report.specialise.intervals import ratio_interval
from egnn_prune.report.specialise.table import compared_with, ratio_text

_OTHERS = {
    "finetuned": "the teacher fine-tuned by the same steps",
    "scratch": "the same shape from scratch",
}
_SINGLE = (
    " Single small molecules gain less, because a part of each call does not depend on the size "
    "of the network."
)
_MET = 1.05
"""Share of the budget up to which it counts as met: times vary by a few percent."""


def labelled_by_teacher(metrics: Metrics) -> bool:
    """Whether errors are against the teacher's own energies and forces."""
    return metrics.get("labels") == "teacher"


def headline(metrics: Metrics) -> str:
    """The result in one sentence."""
    time, error = values(metrics, LATENCY), values(metrics, FORCE_RMSE)
    share = 100 * time["specialised"] / time["teacher"]
    against = " against the teacher" if labelled_by_teacher(metrics) else ""
    others = [
        f"{_OTHERS[name]} has {significant(error[name])} meV/Å"
        for name in compared_with(metrics)
        if math.isfinite(error[name])
    ]
    return (
        f"The specialised network needs {share:.0f} % of the teacher's time "
        f"({significant(time['teacher'])} → {significant(time['specialised'])} ms"
        f"{_measured_on(metrics)}) at a force RMSE of {significant(error['specialised'])} meV/Å"
        f"{against}{'; ' if others else ''}{', '.join(others)}."
    )


def _measured_on(metrics: Metrics) -> str:
    atoms, threads = number(metrics.get("latency_atoms")), number(metrics.get("threads"))
    parts = [f"{atoms:.0f} atoms"] if math.isfinite(atoms) else []
    if math.isfinite(threads) and metrics.get("device", "cpu") == "cpu":
        parts.append(f"{threads:.0f} thread{'s' if threads != 1 else ''}")
    return f" for {', '.join(parts)}" if parts else ""


def notes(metrics: Metrics, test: Structures) -> list[str]:
    """What the result rests on and where it ends, in the order of importance."""
    return [*_compared(metrics, test), *_labels(metrics), *_time(metrics), _honest(metrics)]


def _compared(metrics: Metrics, test: Structures) -> list[str]:
    error, parts = values(metrics, FORCE_RMSE), []
    for name in compared_with(metrics):
        low, high = ratio_interval(test, "specialised", name)
        if math.isfinite(low) and math.isfinite(high):
            ratio = ratio_text(error, name).removesuffix("x")
            parts.append(f"{ratio} [{low:.2f}, {high:.2f}] times that of {_OTHERS[name]}")
    if not parts:
        return []
    return [
        f"Its force RMSE is {' and '.join(parts)}. Brackets are 95 % intervals over the "
        f"{len(test)} test structures, both models on the same ones; training again could change "
        "the numbers more, as one run is one draw."
    ]


def _labels(metrics: Metrics) -> list[str]:
    if labelled_by_teacher(metrics):
        return [
            "The labels are the teacher's own energies and forces: errors say how well it is "
            "imitated, and where it is wrong, the specialised network is wrong with it. From its "
            "own labels the teacher learns nothing, so its errors, fine-tuned or not, are zero."
        ]
    return []


def _time(metrics: Metrics) -> list[str]:
    sentences = [
        "Times are of energies and forces with neighbour lists at hand, and the teacher's is that "
        "of its translation into the same code as the small network, which may be faster than "
        "its own package; dynamics search neighbours in every step."
    ]
    many, one = values(metrics, LATENCY), values(metrics, "latency_single_ms")
    budget, share = number(metrics.get("budget")), many["specialised"] / many["teacher"]
    if share > _MET * budget:
        sentences.append(
            f"The budget was {100 * budget:.0f} % of the teacher's time and was not met: "
            f"measured at the end, the network needs {100 * share:.0f} %."
        )
    speed = times(one["specialised"], one["teacher"], "faster", "slower")
    single, batch = (number(metrics.get(key)) for key in ("latency_single_atoms", "latency_atoms"))
    if math.isfinite(one["specialised"]) and math.isfinite(one["teacher"]) and single < batch:
        sentences.append(
            f"One structure of {single:.0f} atoms alone takes {significant(one['teacher'])} → "
            f"{significant(one['specialised'])} ms ({speed})."
            + (_SINGLE if one["specialised"] / one["teacher"] > share else "")
        )
    return sentences


def _honest(metrics: Metrics) -> str:
    dataset = metrics["dataset"]
    elements, atoms = dataset.get("elements") or [], dataset.get("atoms") or []
    kind = f" of {', '.join(map(str, elements))}" if elements else ""
    if atoms:
        kind += f" with {range_text(atoms)} atoms"
    return (
        f"Pruning specialises: the network was made for structures like the training ones{kind}. "
        "For other systems expect it to be worse than the teacher, and keep the teacher for them."
    )


def range_text(ends: Sequence[object]) -> str:
    """``9 to 27``, or one number where both ends are the same."""
    return " to ".join(dict.fromkeys(map(str, ends)))


def dataset(metrics: Metrics) -> dict[str, object]:
    """About the structures, for the page."""
    found = dict(metrics["dataset"])
    names = {"train": "training structures", "val": "validation structures"}
    names |= {"test": "test structures", "atoms": "atoms in a structure"}
    if found.get("atoms"):
        found["atoms"] = range_text(found["atoms"])
    return {names.get(key, key): value for key, value in found.items()}


def what_was_cut(metrics: Metrics) -> list[str]:
    """Copies, paths, species and compensation in numbers."""
    cut = metrics.get("cut") or {}
    layers = layers_of(metrics)
    sentences = []
    if layers:
        conv = _sum(pair for layer in layers for pair in (layer.get("conv") or {}).values())
        paths = [path for layer in layers for path in layer.get("paths") or []]
        kept = sum(bool(path["kept"]) for path in paths)
        odd = sum(is_odd(path) and not path["kept"] for path in paths)
        sentences.append(
            f"{conv[0]:,} of {conv[1]:,} copies into the convolutions and {kept} of {len(paths)} "
            f"paths were kept; {odd} of the paths cut are odd."
        )
        change = number(cut.get("odd_paths_force_change_mev_per_angstrom"))
        if odd and change > 0:
            sentences.append(
                f"Cutting the odd paths alone changes the teacher's forces by "
                f"{significant(change)} meV/Å (root mean square)."
            )
        radial = _sum(pair for layer in layers for pair in layer.get("radial") or [])
        if radial[0] < radial[1]:
            sentences.append(f"Of the radial networks, {radial[0]} of {radial[1]} channels stay.")
    if cut.get("species") is not None:
        kept, total = kept_of(cut["species"], "cut.species")
        if kept < total:
            sentences.append(f"Of {total} chemical elements that the teacher knows, {kept} stay.")
    return [*sentences, *_compensation(cut.get("compensation"))]


def _sum(pairs: Any) -> tuple[int, int]:
    found = [kept_of(pair, "cut") for pair in pairs]
    return sum(kept for kept, _ in found), sum(total for _, total in found)


def _compensation(compensation: Mapping[str, Any] | None) -> list[str]:
    if not isinstance(compensation, Mapping):
        return []
    without, with_ = (
        significant(number(compensation.get(f"force_rmse_{key}_mev_per_angstrom")))
        for key in ("without", "with")
    )
    measured = (
        f"held-out structures, before any training, have a force RMSE of {without} meV/Å without "
        f"and {with_} with it"
    )
    if compensation.get("used"):
        return [f"Compensation was used: {measured}."]
    return [f"Compensation was tried and left out: {measured}."]


def provenance(metrics: Metrics) -> dict[str, object]:
    """Where the numbers come from."""
    names = {
        "teacher": "teacher",
        "latency_structures": "structures in the batch that is timed",
        "labels": "labels",
        "budget": "budget, share of the teacher's time",
        "steps": "optimiser steps",
        "seed": "seed",
        "device": "device",
        "threads": "threads",
        "config_hash": "configuration hash",
        "git_commit": "git commit",
        "schema_version": "schema version",
    }
    found: dict[str, object] = {label: metrics.get(key) for key, label in names.items()}
    budget = number(metrics.get("budget"))
    if math.isfinite(budget):
        found[names["budget"]] = f"{100 * budget:.0f} %"
    missing = [name for name in _OTHERS if name not in models_present(metrics)]
    return found | ({"not made": ", ".join(missing)} if missing else {})
