"""What an audit found, in sentences: the symmetries, slopes and groups that a reader must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from egnn_prune.audit.intervals import ROUNDING, UNDECIDED, Compared
from egnn_prune.audit.smoothness import ENERGY_JUMP_LIMIT, FORCE_JUMP_LIMIT
from egnn_prune.report.common.formatting import significant, times

#: Groups that are named in one sentence.
NAMED = 4


def findings(
    errors: Sequence[Compared],
    differences: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Sequence[Compared]],
    symmetry: Sequence[Mapping[str, Any]],
    smoothness: Sequence[Mapping[str, Any]],
    dynamics: Sequence[Mapping[str, Any]],
    speed: Sequence[Mapping[str, Any]],
) -> list[str]:
    """One sentence each, what matters most first; A and B are called so."""
    said = [error_sentence(one) for one in errors if one.name.startswith(("force RMSE", "energy"))]
    if not errors:
        rms = next(row for row in differences if row["name"].startswith("force, RMS"))
        said.append(
            f"There are no labels: B's forces are {significant(rms['value'])} meV/Å (RMS) from A's"
        )
    shift = differences[0]
    if abs(shift["value"]) > ROUNDING and (shift["low"] > 0 or shift["high"] < 0):
        said.append(
            f"B's energies are {shift['value']:+.4g} meV/atom from A's on average, "
            f"{ends(shift['low'], shift['high'])}"
        )
    if errors:
        said += _groups(groups)
    for who in ("a", "b"):
        broken = [r["symmetry"] for r in symmetry if r["who"] == who and not r["kept"]]
        if broken:
            worst = max(r["forces"] for r in symmetry if r["who"] == who)
            said.append(
                f"{who.upper()} breaks the symmetry of {' and of '.join(broken)}: forces deviate "
                f"by up to {significant(worst)} meV/Å"
            )
        said += [sentence for row in smoothness if row["who"] == who for sentence in _slope(row)]
    for row in dynamics:
        if row["stopped"]:
            said.append(f"{row['who'].upper()}'s dynamics ended early: {row['stopped']}")
        elif row["drifts"]:
            said.append(
                f"The energy of {row['who'].upper()}'s dynamics drifts by "
                f"{row['drift']:.2g} ± {row['drift_error']:.1g} meV/atom/ps"
            )
    timed = [row for row in speed if row["a"] and row["b"]]
    if timed:
        last = timed[-1]
        ratio = times(last["ratio"], 1.0, "faster", "slower")
        decided = last["low"] > 1 or last["high"] < 1
        said.append(
            f"At {last['atoms']} atoms B is {ratio} than A"
            if decided and ratio != "same"
            else f"At {last['atoms']} atoms neither is faster ({UNDECIDED})"
        )
    return said


def error_sentence(one: Compared) -> str:
    """Both errors, the difference with its interval, and the verdict."""
    return (
        f"{one.name}: A {significant(one.a)}, B {significant(one.b)} {one.unit}, "
        f"{one.change:+.3g} {ends(one.low, one.high)}: {one.verdict}"
    )


def ends(low: float, high: float) -> str:
    """An interval, or that there is none."""
    return f"[{low:.3g}, {high:.3g}]" if low == low and high == high else "(no interval)"


def _groups(groups: Mapping[str, Sequence[Compared]]) -> list[str]:
    """Which groups got worse, by the kind of group, and how many were left undecided."""
    said = []
    for kind, parts in groups.items():
        worse = sorted((p for p in parts if p.verdict == "B is worse"), key=lambda p: -p.change)
        if worse:
            named = ", ".join(f"{p.name} ({p.change:+.3g} meV/Å)" for p in worse[:NAMED])
            rest = [p for p in parts if p not in worse]
            undecided = sum(p.verdict == UNDECIDED for p in rest)
            others = f"{UNDECIDED} on {undecided} of {len(rest)} others" if rest else "on all"
            said.append(f"By {kind}, forces got worse on {named}; {others}")
    return said


def _slope(row: Mapping[str, Any]) -> list[str]:
    who, said = row["who"].upper(), []
    if not row["gradient"]:
        said.append(
            f"{who}'s forces are not the gradient of its energy: along a line the two disagree by "
            f"{significant(row['slope_error'])} meV/Å"
        )
    jumps = {
        "energy": (row["energy_jump"], ENERGY_JUMP_LIMIT, "meV"),
        "force": (row["force_jump"], FORCE_JUMP_LIMIT, "meV/Å"),
    }
    said += [
        f"{who} is not smooth: along a line its {what} jumps by {significant(size)} {unit}"
        for what, (size, limit, unit) in jumps.items()
        if size > limit
    ]
    return said
