"""What was found, as tables in Markdown: means ± standard deviations over the seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from egnn_prune.report.common.answers import LEVEL, Comparison, answers, found_text
from egnn_prune.report.common.formatting import MISSING, significant
from egnn_prune.report.common.markdown import chance, markdown
from egnn_prune.report.common.statistics import (
    Rows,
    by_seed,
    over_seeds,
    spread_text,
    values,
)
from egnn_prune.report.studies.questions.forgotten import forgetting
from egnn_prune.report.studies.questions.primary import (
    at_best_rate,
    by_share,
    losses,
    losses_at,
    on_the_rest,
)
from egnn_prune.report.studies.questions.primary import budgets as at_budgets
from egnn_prune.report.studies.questions.primary import calibration as at_share

#: Of question 5.
PARTS = {
    "tune": "what to fine-tune on (50 of 200)",
    "label": "what to label (15 of 200)",
    "score": "what to take scores on",
}
RARE = {"hot": "hot frames", "bond": "stretched bonds"}
CHOICES = {
    "force_rmse": "error on the same mixture",
    "cold": "on cold frames",
    "hot": "on hot frames",
    "hot_chosen": "hot ones chosen",
    "rare_force_rmse": "error on the rare part",
    "common_force_rmse": "on the rest",
    "rare_chosen": "rare ones chosen",
}


def scratch(rows: Rows, seeds: int) -> str:
    """Question 1: errors and processor seconds of every arm."""
    rows = at_best_rate(rows)
    arms = values(rows, "arm")
    body = []
    for size in sorted(values(rows, "size")):
        for steps in values(rows, "steps", size=size):
            cells = [{"arm": arm, "size": size, "steps": steps} for arm in arms]
            errors = [spread_text(over_seeds(rows, "force_rmse", **cell)) for cell in cells]
            times = [significant(over_seeds(rows, "seconds", **cell).mean) for cell in cells]
            body.append([f"{size:,}", f"{steps:,}", *errors, " / ".join(times)])
    seconds = f"processor seconds ({' / '.join(arms)})"
    table = markdown(["structures", "steps of 5", *arms, seconds], body)
    return f"{table}\n\n{_rates(rows)}\n\n{_crossings(rows)}"


def _rates(rows: Rows) -> str:
    """The learning rates that were chosen, by arm and number of steps."""
    body = []
    for arm in values(rows, "arm"):
        cells = []
        for steps in values(rows, "steps", arm=arm):
            chosen = {
                row.get("chosen_rate", row["rate"])
                for row in rows
                if row["arm"] == arm and row["steps"] == steps
            }
            cells.append(", ".join(f"{rate:g}" for rate in sorted(chosen)))
        body.append([arm, *cells])
    return markdown(["learning rate", *(f"{n:,} steps" for n in values(rows, "steps"))], body)


def _crossings(rows: Rows) -> str:
    """How long the others need for the error that inherited weights have after fewer steps."""
    others = [arm for arm in values(rows, "arm") if arm != "inherited"]
    body = []
    for size in sorted(values(rows, "size")):
        lengths = values(rows, "steps", size=size, arm="inherited")
        for steps in lengths:
            target = by_seed(rows, "force_rmse", arm="inherited", size=size, steps=steps)
            texts = [_needed(rows, arm, size, target) for arm in others]
            seconds = statistics.median(
                by_seed(rows, "seconds", arm="inherited", size=size, steps=steps).values()
            )
            body.append([f"{size:,}", f"{steps:,} ({significant(seconds)})", *texts])
    heads = [f"{arm} needs, steps (processor seconds)" for arm in others]
    return markdown(
        ["structures", "for the error of inherited after, steps (processor seconds)", *heads], body
    )


def _needed(rows: Rows, arm: str, size: int, target: Mapping[Any, float]) -> str:
    """Medians over the seeds; a power law between the lengths that were run."""
    inside = [row for row in rows if (row["arm"], row["size"]) == (arm, size)]
    found = []
    for seed, error in target.items():
        curve = sorted(
            (r["steps"], r["seconds"], r["force_rmse"]) for r in inside if r["seed"] == seed
        )
        if curve:
            found.append(_reached([*curve], error))
    if not found:
        return MISSING
    steps, seconds = (statistics.median(one[k] for one in found) for k in (0, 1))
    if math.isinf(steps):
        there = sum(math.isfinite(one[0]) for one in found)
        most = max(row["steps"] for row in inside)
        return f"more than {most:,} ({there} of {len(found)} seeds reach it)"
    least = min(row["steps"] for row in inside)
    less = "at most " if steps <= least else ""
    return f"{less}{significant(steps)} ({significant(seconds)})"


def _reached(curve: Sequence[tuple[float, float, float]], error: float) -> tuple[float, float]:
    """Where a curve of (steps, seconds, error) first comes down to an error: steps, seconds."""
    before: tuple[float, float, float] | None = None
    for point in curve:
        if point[2] <= error:
            if before is None:
                return point[:2]
            share = math.log(before[2] / error) / math.log(before[2] / point[2])
            steps, seconds = (
                a * (b / a) ** share for a, b in zip(before[:2], point[:2], strict=True)
            )
            return steps, seconds
        before = point
    return math.inf, math.inf


def budgets(rows: Rows, seeds: int) -> str:
    """Question 2: errors before and after fine-tuning within each budget, and compiled times."""
    fits = [row for row in rows if row["part"] == "fit"]
    shares = sorted(values(fits, "budget"), reverse=True)
    met = [b for b in shares if max(values(fits, "time", budget=b)) <= b]
    body = []
    for score in values(fits, "score"):
        for helped in (False, True):
            cells = [{"score": score, "compensated": helped, "budget": b} for b in shares]
            texts = []
            for cell in cells:
                before = significant(over_seeds(fits, "before", **cell).mean)
                time = over_seeds(fits, "time", **cell).mean
                text = spread_text(over_seeds(fits, "force_rmse", **cell))
                texts.append(f"{text} ({before}; {time:.0%})")
            body.append([score, "yes" if helped else "no", *texts])
    header = ["score", "compensated", *(f"{b:.0%} of the time" for b in shares)]
    text = markdown(header, body)
    if met:
        names = ", ".join(f"{share:.0%}" for share in met)
        text += f"\n\n{_beside(f'over the budgets that were met ({names})', at_budgets(rows, met))}"
    for row in rows:
        if row["part"] == "compiled":
            text += f"\n\n{_compiled(row)}"
    return text


def _beside(title: str, comparisons: Sequence[Comparison]) -> str:
    """Comparisons that stand beside the primary ones."""
    body = [
        [answer.comparison.label, found_text(answer), chance(answer.adjusted)]
        for answer in answers(comparisons)
        if answer.found.n
    ]
    return markdown([title, "found [95 %]", "p (Holm)"], body)


def _compiled(row: Any) -> str:
    """Times of networks as they are and compiled, both beside the teacher as it is."""
    eager, compiled = row["eager_ms"], row["compiled_ms"]
    body = [
        [
            name if name == "teacher" else f"budget {float(name):.0%}",
            f"{significant(eager[name])} ({eager['teacher'] / eager[name]:.2f}x)",
            f"{significant(compiled[name])} ({eager['teacher'] / compiled[name]:.2f}x)",
        ]
        for name in eager
    ]
    heads = ["as it is, ms (against the teacher as it is)", "compiled, ms (against the same)"]
    return markdown(["network", *heads], body)


def calibration(rows: Rows, seeds: int) -> str:
    """Question 3: losses, coverages and rank correlations at every point."""
    found = losses(rows)
    keys = {
        "force_rmse": "force RMSE, meV/Å",
        "accuracy_loss": "accuracy loss, nats",
        "calibration_loss": "calibration loss, nats",
        "coverage_90": "90 % intervals of forces hold",
        "spearman": "rank correlation of error bar and error",
        "energy_coverage_90": "90 % intervals of energies hold",
        "energy_loss": "calibration loss of energies, nats",
    }
    body = []
    for system in values(found, "system"):
        for method in values(found, "method", system=system):
            for share in values(found, "share", system=system, method=method):
                for point in values(found, "point", system=system, method=method, share=share):
                    cell = {"system": system, "method": method, "share": share, "point": point}
                    texts = [_plain(over_seeds(found, key, **cell), key) for key in keys]
                    body.append([system, method, f"{share:.0%}", point, *texts])
    header = ["system", "method", "copies gone", "point", *keys.values()]
    return f"{markdown(header, body)}\n\n{_thresholds(rows, seeds)}"


def _thresholds(rows: Rows, seeds: int) -> str:
    """Either loss and the primary comparisons at every share of the copies."""
    shares = sorted(s for s in values(rows, "share", method="last_layer") if s)
    found = [[*losses_at(rows, share), *at_share(rows, share)] for share in shares]
    body = []
    for comparisons in zip(*found, strict=True):
        told = answers(comparisons)  # of one comparison over the shares
        clear = [a.adjusted < LEVEL and a.found.n >= seeds for a in told]
        cells = [f"{a.found.mean:+.3f}{'*' * sure}" for a, sure in zip(told, clear, strict=True)]
        body.append([comparisons[0].label, *cells])
    header = ["at each share of the copies (*: differs from 0, Holm over the shares)"]
    return markdown([*header, *(f"{share:.0%}" for share in shares)], body)


def _plain(found: Any, key: str) -> str:
    return spread_text(found) if key == "force_rmse" else spread_text(found, 3)


def uncertainty(rows: Rows, seeds: int) -> str:
    """Question 5: what each choice led to."""
    parts = []
    for part, keys in {
        "tune": ("force_rmse", "cold", "hot", "hot_chosen"),
        "label": ("rare_force_rmse", "common_force_rmse", "rare_chosen"),
        "score": ("cold", "hot"),
    }.items():
        inside = [row for row in rows if row["part"] == part]
        body = []
        for kind in dict.fromkeys(row.get("kind") for row in inside):
            for rare in sorted({row.get("rare") or 0.0 for row in inside}):
                cells = [r for r in inside if (r.get("kind"), r.get("rare") or 0.0) == (kind, rare)]
                for choice in dict.fromkeys(row["choice"] for row in cells):
                    texts = [spread_text(over_seeds(cells, key, choice=choice)) for key in keys]
                    name = RARE.get(kind or ("hot" if rare else ""), "")
                    body.append([name, f"{rare:.0%}" if rare else "", choice, *texts])
        if body:
            heads = (CHOICES.get(key, key) for key in keys)
            parts.append(markdown([PARTS[part], "rare part", "choice", *heads], body))
    if others := by_share(rows):
        parts.append(_beside("at other shares (Holm over these)", others))
    parts.append(_beside("what it costs on ordinary frames", on_the_rest(rows)))
    parts.append(_asking([row for row in rows if row["part"] == "ask"]))
    return "\n\n".join(parts)


def _asking(rows: Rows) -> str:
    """What goes with the tenth that somebody else answers for; half of the frames hot, or few."""
    keys = {
        "error_bar": "chosen by error bar",
        "distance": "by distance",
        "best": "at best",
        "hot_first": "hot ones first, at random",
        "random": "a random tenth",
        "full": "by error bar, answered by the full network",
        "all_full": "the full network answers for all",
    }
    few = [{**row["few_hot"], "seed": row["seed"]} for row in rows if "few_hot" in row]
    body = [
        [text, *(spread_text(over_seeds(rows, key), 2) for key in keys)]
        for text, rows in (("as many hot as cold", rows), ("5 % hot", few))
        if rows
    ]
    return markdown(["squared error removed, of frames", *keys.values()], body)


def freezing(rows: Rows, seeds: int) -> str:
    """Question 6: errors by what is frozen."""
    sizes = values(rows, "size")
    body = [
        [
            frozen,
            *(spread_text(over_seeds(rows, "force_rmse", frozen=frozen, size=n)) for n in sizes),
        ]
        for frozen in values(rows, "frozen")
    ]
    return markdown(["frozen", *(f"{size:,} structures" for size in sizes)], body)


TABLES: dict[str, Callable[[Rows, int], str]] = {
    "scratch": scratch,
    "budgets": budgets,
    "calibration": calibration,
    "forgetting": forgetting,
    "uncertainty": uncertainty,
    "freezing": freezing,
}
