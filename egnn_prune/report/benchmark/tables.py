"""The benchmark as one table a case: time, spread, distance from the floor, ratios, memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from egnn_prune.report.common.formatting import significant, text_table
from egnn_prune.report.common.tables import without_empty

Row = dict[str, Any]
Found = dict[str, Any]
"""What ``benchmark.json`` holds: ``about``, ``ceilings``, ``cases``, ``notes``, ``rows``."""

HEADER = (
    *("pass", "network", "ms", "IQR", "fresh ms", "faults", "floor ms", "x floor"),
    *("x faster than textbook", "than compiled", "peak MB", "difference"),
)
LEGEND = (
    "ms: median of the turns, IQR the distance of their quartiles. fresh ms: median of the first "
    "calls in a process of its own, after one call on a tiny batch; faults: pages that it asked "
    "the system for, a call. floor: matrix products and activations that the function cannot do "
    "without, at the rates measured beside it. peak MB: memory held at once during a call. "
    "difference: largest absolute one from the textbook with the same weights, in outputs, in loss "
    "and a gradient, or in energy and forces."
)


def markdown(found: Found) -> str:
    """The page ``benchmark.md``."""
    parts = ["# Benchmark", _about(found)]
    for title, header, body, below in _sections(found):
        lines = [f"## {title}", "", _pipes(header), _pipes(["---"] * len(header))]
        lines += [_pipes(row) for row in body]
        parts.append("\n".join(lines))
        parts += ["\n".join(f"- {line}" for line in below)] if below else []
    return "\n\n".join([*parts, LEGEND]) + "\n"


def text(found: Found) -> str:
    """The same for the terminal."""
    parts = [_about(found)]
    for title, header, body, below in _sections(found):
        parts.append("\n".join([title, text_table(header, body, 2), *below]))
    return "\n\n".join(parts)


def _about(found: Found) -> str:
    about = found["about"]
    said = f"{about['processor']}, torch {about['torch']}, commit {about['commit']}"
    rates = [f"{where}: {rates}" for where, rates in found.get("ceilings", {}).items()]
    return "; ".join([said, *rates]) + "."


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sections(found: Found) -> list[tuple[str, list[str], list[list[str]], list[str]]]:
    """Title, header, rows and sentences below, of each case with its threads and device."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in found["rows"]:
        groups.setdefault((row["case"], row["threads"], row["device"]), []).append(row)
    sections = []
    for (case, threads, device), rows in groups.items():
        edges = max((row["edges"] or 0 for row in rows), default=0)
        ran = f"{threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device
        title = f"{case}: {found['cases'].get(case, '')}, {edges:,} edges, {ran}"
        timed = [row for row in rows if row["ms_median"] is not None]
        body = [_cells(row, timed) for row in timed]
        header, cells = without_empty(HEADER, body)
        left_out = [
            f"{row['pass']}, {network_name(row)}: {row['skipped']}"
            for row in rows
            if row["skipped"]
        ]
        variants = {row["variant"] for row in rows}
        notes = [f"{v}: {said}" for v, said in found.get("notes", {}).items() if v in variants]
        sections.append((title, header, cells, left_out + notes))
    return sections


def network_name(row: Row) -> str:
    """Such as ``ours-50 compiled``."""
    return f"{row['variant']} compiled" if row["compiled"] else str(row["variant"])


def textbook_ms(row: Row, rows: Sequence[Row], compiled: bool) -> float | None:
    """The textbook's median for the same pass of the same case."""
    same = ("case", "pass", "threads", "device")
    for other in rows:
        if other["variant"] == "textbook" and other["compiled"] == compiled:
            if all(other[key] == row[key] for key in same):
                found: float | None = other["ms_median"]
                return found
    return None


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    ms = row["ms_median"]

    def number(value: float | None) -> str:
        return "" if value is None else significant(value)

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value / ms:.2f}"

    floor, faults, worst = row["floor_ms"], row["fresh_faults"], row["max_abs_diff_to_textbook"]
    return [
        row["pass"],
        network_name(row),
        number(ms),
        number(row["ms_iqr"]),
        number(row["fresh_ms"]),
        "" if faults is None else f"{faults:,}",
        number(floor),
        "" if not floor else f"{ms / floor:.2f}",
        ratio(textbook_ms(row, rows, compiled=False)),
        ratio(textbook_ms(row, rows, compiled=True)),
        number(row["peak_mb"]),
        "" if worst is None else f"{worst:.0e}",
    ]
