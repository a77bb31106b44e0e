"""Question 4 as tables: means ± standard deviations over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from scipy.stats import spearmanr

from egnn_prune.report.common.formatting import MISSING, significant
from egnn_prune.report.common.markdown import markdown
from egnn_prune.report.common.statistics import (
    Rows,
    over_seeds,
    spread_text,
    summarise,
    values,
)

#: Of the observables of question 4, which are differences.
UNITS = {
    "distances": "distributions of distances, Wasserstein, Å",
    "wavenumbers": "harmonic wavenumbers, mean absolute difference, 1/cm",
    "minima": "minima differ by, Å",
    "drift": "drift of the energy (its own, either way), meV an atom and ps",
}
#: Of the networks that question 4 compares.
SIMULATED = {
    "again": "itself, other velocities",
    "seed": "that of another seed",
    "longer": "scratch, three times the steps",
}


def forgetting(rows: Rows, seeds: int) -> str:
    """Question 4: damage and what goes with it; structures without labels; observables."""
    keys = ("error_bar", "distance", "strain", "tail", "tail_of_full", "tail_of_this")
    body = []
    for name in values(rows, "network", part="damage"):
        cell = {"part": "damage", "network": name}
        inside = [row for row in rows if cell.items() <= row.items()]
        more = [summarise(found) for found in zip(*map(_within, inside), strict=True)]
        texts = [spread_text(over_seeds(rows, key, **cell), 2) for key in keys]
        body.append([name, *texts, *(spread_text(one, 2) for one in more)])
    header = ["network", "rank correlation with the error bar", "with the distance"]
    header += ["with the strain", "damage in the worst tenth"]
    header += ["the full network's error in its own worst tenth", "this network's in its own"]
    header += ["damage: noise would have", "with the error bar within test frames"]
    header += ["within hot ones"]
    parts = [markdown(header, body), _errors(rows)]
    for part, unit in (("far", "forces against the full network's, meV/Å"), ("dynamics", "")):
        inside = [row for row in rows if row["part"] == part]
        if inside:
            known = ("part", "system", "network", "question", "seed")
            names = list(dict.fromkeys(key for row in inside for key in row if key not in known))
            lines = [
                [
                    SIMULATED.get(network, network),
                    *(_over(inside, n, network) for n in names),
                ]
                for network in values(inside, "network")
            ]
            heads = [UNITS.get(name, name) for name in names]
            parts.append(markdown([unit or "dynamics of the full network against", *heads], lines))
    return "\n\n".join([*parts, *_atoms(rows), *_heated(rows)])


def _over(rows: Rows, key: str, network: str) -> str:
    """Over the seeds that have it, of absolute values: a drift has a sign."""
    own = [row for row in rows if row["network"] == network]
    found = summarise(abs(row[key]) for row in own if key in row)
    return spread_text(found) + (f" ({found.n} of {len(own)} seeds)" if found.n < len(own) else "")


def _within(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """The share in the worst tenth of normal noise with either kind's mean and spread; ranks."""
    damage, bars = np.array(row["damage"]), np.array(row["bars"])
    cold = len(damage) // 2  # as many hot structures follow
    kinds = (slice(None, cold), slice(cold, None))
    ranks = [float(spearmanr(damage[kind], bars[kind]).statistic) for kind in kinds]
    drawn, parts = np.random.default_rng(0), [damage[kind] for kind in kinds]
    noise = np.hstack([drawn.normal(part.mean(), part.std(), (1000, len(part))) for part in parts])
    worst = np.sort(noise)[:, -(len(damage) // 10) :].sum(1) / noise.sum(1)
    return float(np.median(worst)), ranks[0], ranks[1]


def _errors(rows: Rows) -> str:
    """Force errors of the full and of other networks, by kind of structure and by element."""
    inside = [row for row in rows if row["part"] == "damage"]
    body = []
    for name in values(inside, "network"):
        own = [row for row in inside if row["network"] == name]
        kinds = {"like the training": "test", "hotter": "hot"}
        for text, key in kinds.items():
            body.append([name, text, *_pair([row[key] for row in own])])
        for z in own[0]["elements"]:
            pairs = [row["elements"][z] for row in own]
            body.append([name, f"atoms of {chemical_symbols[int(z)]}", *_pair(pairs)])
    return markdown(["network", "structures", "full, meV/Å", "this, meV/Å", "ratio"], body)


def _pair(pairs: Sequence[Sequence[float]]) -> list[str]:
    was, now = (sum(pair[k] for pair in pairs) / len(pairs) for k in (0, 1))
    return [significant(was), significant(now), f"{now / was:.2f}" if was else MISSING]


def _atoms(rows: Rows) -> list[str]:
    """What the damage of atoms goes with, and where it is by element and number of bonds."""
    inside = [row for row in rows if row["part"] == "atoms"]
    if not inside:
        return []
    elements = list(inside[0]["within"])
    ranks, errors = [], []
    for name in values(inside, "network"):
        own = [row for row in inside if row["network"] == name]
        within = [summarise(row["within"][z] for row in own) for z in elements]
        texts = [spread_text(over_seeds(own, key), 2) for key in ("error_bar", "distance")]
        ranks.append([name, *texts, *(spread_text(one, 2) for one in within)])
        for kind in own[0]["bonds"]:
            pairs = [row["bonds"][kind] for row in own if kind in row["bonds"]]
            if len(pairs) == len(own):
                element, count = kind.split()
                bonded = "1 bond" if count == "1" else f"{count} bonds"
                share = sum(pair[2] for pair in pairs) / len(pairs)
                errors.append([name, f"{element}, {bonded}", f"{share:.0f}", *_pair(pairs)])
    heads = ["rank correlation of an atom's damage with its error bar", "with its distance"]
    heads += [f"with the error bar within {z}" for z in elements]
    columns = ["network", "atom", "how many", "full, meV/Å", "this, meV/Å", "ratio"]
    return [markdown(["network", *heads], ranks), markdown(columns, errors)]


def _heated(rows: Rows) -> list[str]:
    """How many hot simulations broke the molecule, and when."""
    inside = [row for row in rows if row["part"] == "heated"]
    if not inside:
        return []
    kelvins, length = list(inside[0]["whole_ps"]), inside[0]["ps"]
    body = []
    for name in values(inside, "network"):
        own = [row for row in inside if row["network"] == name]
        texts = [spread_text(over_seeds(own, "force_rmse"))]
        for kelvin in kelvins:
            times = [ps for row in own for ps in row["whole_ps"][kelvin]]
            broken = sorted(ps for ps in times if ps < length)
            when = f", the first after {broken[0]:.2f} ps" if broken else ""
            texts.append(f"{len(broken)} of {len(times)}{when}")
        body.append([SIMULATED.get(name, name), *texts])
    heads = [f"molecules broken within {length:g} ps at {kelvin} K" for kelvin in kelvins]
    return [markdown(["network", "its error, meV/Å", *heads], body)]
