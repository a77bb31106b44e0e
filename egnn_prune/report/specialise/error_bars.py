"""Does it know what it does not know? Error bars of energies and forces in numbers and words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from egnn_prune.report.common.files import CALIBRATED, Metrics, number
from egnn_prune.report.common.formatting import MISSING, significant
from egnn_prune.report.common.rows import arrow, fixed
from egnn_prune.report.common.tables import Cell, Table
from egnn_prune.report.run.error_bars import ErrorBars
from egnn_prune.report.run.force_bars import (
    PERCENT,
    SOURCES,
    ForceBars,
    coverages,
    energy_halves,
    final_coverages,
    force_halves,
    promise,
)
from egnn_prune.report.specialise.files import (
    LABELS,
    LATENCY,
    MILLI,
    Structures,
    models_present,
)

WITH_BARS = "latency_with_error_bars_ms"
KINDS = {"energy_": "energies", "force_": "forces"}
"""Prefixes of the scores in ``metrics.json``, with what they are about."""
_METHODS = {
    "last_layer": "a Bayesian last layer",
    "shallow": "an ensemble of {members}read-outs",
    "committee": "a committee of {members}networks",
}
_SCORES = (
    *((f"coverage_{p}", f"Coverage of {p} %", fixed) for p in PERCENT),
    ("ence", "ENCE", significant),
    ("miscalibration_area", "Miscalibration area", fixed),
    ("nll", "NLL", significant),
    ("spearman_error_uncertainty", "Spearman of structures", fixed),
    ("spearman_structures", "Spearman of structures", fixed),
    ("spearman_atoms", "Spearman of atoms", fixed),
    ("auroc_wrong", "AUROC of wrong atoms", fixed),
    ("ood_auroc", "AUROC of other structures", fixed),
)
"""What is shown of the scores: key behind the prefix, label, format."""


def with_error_bars(metrics: Metrics) -> list[str]:
    """Names of the models whose error bars were measured, in display order."""
    models = metrics["models"]
    return [
        name
        for name in models_present(metrics)
        if any(final_coverages(models[name], prefix) for prefix in KINDS)
    ]


def energy_bars(test: Structures, name: str) -> ErrorBars | None:
    """Errors and error bars of the energies of structures in meV; None where there are none."""
    if f"{name}_energy_std" not in test.error_bars:
        return None
    calibrated = test.error_bars.get(f"{name}_energy_std{CALIBRATED}")
    return ErrorBars(
        MILLI * (test.energies[name] - test.energy),
        MILLI * test.error_bars[f"{name}_energy_std"],
        None if calibrated is None else MILLI * calibrated,
    )


def force_bars(test: Structures, name: str) -> ForceBars | None:
    """Errors and error bars of forces in meV/Angstrom; None where there are none."""
    if f"{name}_forces_std" not in test.error_bars:
        return None
    calibrated = test.error_bars.get(f"{name}_forces_std{CALIBRATED}")
    return ForceBars(
        test.force_errors(name),
        MILLI * test.error_bars[f"{name}_forces_std"],
        None if calibrated is None else MILLI * calibrated,
        test.owner,
        test.error_bars.get(f"{name}_forces_distance"),
    )


def halves(test: Structures, name: str, prefix: str) -> dict[int, float]:
    """Half widths of 95 % intervals of a model's coverages of energies or forces."""
    bars = force_bars(test, name) if prefix == "force_" else None
    return energy_halves(len(test)) if bars is None else force_halves(bars)


def sentences(metrics: Metrics, test: Structures) -> list[str]:
    """What the specialised network's error bars promise, hold and cost; empty without any."""
    names = with_error_bars(metrics)
    if not names:
        return []
    name = "specialised" if "specialised" in names else names[0]
    model, found = metrics["models"][name], []
    for prefix, what in (("force_", "force components"), ("energy_", "energies")):
        observed = final_coverages(model, prefix)
        if observed:
            before = coverages(model, prefix) if coverages(model, prefix, CALIBRATED) else {}
            half = halves(test, name, prefix)
            found.append(promise(what, observed, before, half, len(test)))
    return [*_named(found, name), *_ranks(model), *_cost(model), *_source(metrics)]


def _named(found: list[str], name: str) -> list[str]:
    """The first sentence says whose error bars are meant."""
    if not found:
        return []
    first = f"Of the {LABELS[name]} network: {found[0][0].lower()}{found[0][1:]}"
    return [first, *found[1:]]


def _ranks(model: Mapping[str, Any]) -> list[str]:
    atoms, structures, wrong = (
        _final(model, f"force_{key}")
        for key in ("spearman_atoms", "spearman_structures", "auroc_wrong")
    )
    parts = []
    if math.isfinite(atoms):
        parts.append(f"atoms with a rank correlation of {atoms:.2f}")
    if math.isfinite(structures):
        parts.append(f"structures with one of {structures:.2f}")
    ranks = f"They rank {' and '.join(parts)} (1 is perfect, 0 no information)" if parts else ""
    if math.isfinite(wrong):
        chance = (
            "an atom whose error is among the largest tenth has the longer error bar than another "
            f"with probability {wrong:.2f} (0.5 is chance)"
        )
        ranks = f"{ranks}; {chance}" if ranks else chance[0].upper() + chance[1:]
    return [f"{ranks}."] if ranks else []


def _final(model: Mapping[str, Any], key: str) -> float:
    """Calibrated where it is."""
    calibrated = number(model.get(key + CALIBRATED))
    return calibrated if math.isfinite(calibrated) else number(model.get(key))


def _cost(model: Mapping[str, Any]) -> list[str]:
    plain, bars = number(model.get(LATENCY)), number(model.get(WITH_BARS))
    if not (plain > 0 and bars > 0):
        return []
    return [
        f"Energies and forces with error bars take {bars / plain:.2f} times as long as without "
        f"({significant(plain)} → {significant(bars)} ms)."
    ]


def _source(metrics: Metrics) -> list[str]:
    about = metrics.get("uncertainty")
    if not isinstance(about, Mapping) or about.get("method") in (None, "none"):
        return []
    method = str(about["method"])
    members, source = number(about.get("members")), str(about.get("source") or "")
    many = f"{members:.0f} " if members > 0 else ""
    found = f"Error bars of energies come from {_METHODS.get(method, f'“{method}”')}"
    found = found.format(members=many)
    if source:
        found += f", those of forces from {SOURCES.get(source, f'“{source}”')}"
    points, atoms = number(about.get("points")), number(about.get("atoms"))
    counts = [f"{n:,.0f} {w}" for n, w in ((points, "structures"), (atoms, "atoms")) if n > 0]
    if counts:
        split = about.get("fitted_on")
        found += f"; they were calibrated on {' with '.join(counts)}"
        found += f" of the split “{split}”, not on the test structures" if split else ""
    return [f"{found}."]


def error_bars_table(metrics: Metrics) -> Table | None:
    """Scores of the error bars of every model, ``raw → calibrated``; None without any."""
    names = with_error_bars(metrics)
    if not names:
        return None
    models = metrics["models"]
    body: list[list[str | Cell]] = []
    for prefix, what in KINDS.items():
        for key, label, text in _SCORES:
            pairs = [
                [number(models[name].get(f"{prefix}{key}{suffix}")) for suffix in ("", CALIBRATED)]
                for name in names
            ]
            if any(math.isfinite(value) for pair in pairs for value in pair):
                cells = [arrow(text(before), text(after)) for before, after in pairs]
                body.append([Cell(f"{label}, {what}"), *cells])
    body += _costs(metrics, names)
    header = ["test structures", *(LABELS[name] for name in names)]
    note = "An arrow means before → after calibration."
    return Table("", header, body, note=note, sortable=False)


def _costs(metrics: Metrics, names: list[str]) -> list[list[str | Cell]]:
    """Time with error bars, and how many times that without; empty where not measured."""
    times = {name: number(metrics["models"][name].get(WITH_BARS)) for name in names}
    if not any(map(math.isfinite, times.values())):
        return []
    ratios = [times[name] / number(metrics["models"][name].get(LATENCY)) for name in names]
    return [
        [Cell("Time with error bars (ms)"), *map(significant, times.values())],
        ["times that without", *(f"{r:.2f}x" if math.isfinite(r) else MISSING for r in ratios)],
    ]


def coverage_rows(metrics: Metrics) -> list[list[str | Cell]]:
    """Rows of the table of models: the share that intervals of 90 % hold; empty without any."""
    rows: list[list[str | Cell]] = []
    for prefix, what in reversed(KINDS.items()):
        key, names = f"{prefix}coverage_90", models_present(metrics)
        pairs = [
            [number(metrics["models"][n].get(key + suffix)) for suffix in ("", CALIBRATED)]
            for n in names
        ]
        if any(math.isfinite(value) for pair in pairs for value in pair):
            cells = [arrow(*map(fixed, pair)) for pair in pairs]
            rows.append([Cell(f"Coverage of 90 %, {what}"), *cells])
    return rows


def csv_rows(metrics: Metrics) -> list[dict[str, Any]]:
    """Every score of every model as a row: ``model, of, score, raw, calibrated``."""
    found = []
    for name in with_error_bars(metrics):
        model = metrics["models"][name]
        for prefix, what in KINDS.items():
            known = {prefix + key for key, *_ in _SCORES}
            keys = [
                key
                for key in model
                if key.startswith(prefix) and (key in known or key + CALIBRATED in model)
            ]
            found += [
                {
                    "model": name,
                    "of": what,
                    "score": key.removeprefix(prefix),
                    "raw": number(model[key]),
                    "calibrated": number(model.get(key + CALIBRATED)),
                }
                for key in keys
            ]
    return found
