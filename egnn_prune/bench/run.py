"""The whole benchmark: unit after unit, each written as soon as it is there, and then continued."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from egnn_prune.bench.cases import CASES, NOTES
from egnn_prune.bench.ceilings import Ceilings
from egnn_prune.bench.measure import Conditions, Row, measured
from egnn_prune.bench.plan import Choice, Unit, plan
from egnn_prune.errors import ConfigError
from egnn_prune.report.benchmark import FIGURE, TABLE, write_report
from egnn_prune.system.files import read_json, write_json
from egnn_prune.system.git import git_commit

FILE = "benchmark.json"


def benchmark(choice: Choice, conditions: Conditions, out: Path) -> list[Row]:
    """Measure what was chosen and is not yet in the folder; write JSON, table and figure.

    Args:
        choice: cases, variants, passes.
        conditions: threads, device, limits.
        out: the folder; ``benchmark.json`` in it is continued.

    Returns:
        All rows that the folder has now.

    Raises:
        ConfigError: nothing was chosen, or the folder holds rows of other code or another machine.
    """
    units = plan(choice)
    if not units:
        raise ConfigError("no case has these variants; leave out --variants, or name other cases")
    torch.set_num_threads(conditions.threads)
    about = provenance(conditions.device)
    rows = kept_rows(out / FILE, about)
    left = [u for u in units if not is_measured(u, rows, conditions)]
    if len(left) < len(units):
        print(f"{len(units) - len(left)} of {len(units)} passes are in {out / FILE} already")
    if left:
        ceilings = Ceilings.measured(conditions.device)
        total = sum(u.seconds(conditions.turns) for u in left)
        with tqdm(total=round(total), unit="s", desc="benchmark", leave=False) as bar:
            for unit in left:
                run_unit(unit, conditions, ceilings, rows, bar)
                write_json(out / FILE, content(about, ceilings, conditions, rows))
                bar.update(round(unit.seconds(conditions.turns)))
    print(write_report(read_json(out / FILE), out))
    print(f"Wrote {out / FILE}, {TABLE} and {FIGURE}")
    return rows


def content(
    about: dict[str, Any], ceilings: Ceilings, conditions: Conditions, rows: list[Row]
) -> dict[str, Any]:
    """What ``benchmark.json`` holds."""
    where = f"{conditions.device}, {conditions.threads} threads"
    cases = {row["case"] for row in rows}
    return {
        "about": about,
        "ceilings": {where: ceilings.says()},
        "cases": {name: case.says() for name, case in CASES.items() if name in cases},
        "notes": NOTES,
        "rows": rows,
    }


def run_unit(
    unit: Unit, conditions: Conditions, ceilings: Ceilings, rows: list[Row], bar: tqdm
) -> None:
    """Measure one unit in place of what the rows have of it."""

    def say(what: str) -> None:
        bar.set_description(f"{unit.case.name} {unit.name}: {what}")

    found = measured(unit, conditions, ceilings, say)
    keys = {key_of(row) for row in found}
    rows[:] = [row for row in rows if key_of(row) not in keys] + found
    bar.write(summary(unit, found))


def summary(unit: Unit, rows: Sequence[Row]) -> str:
    """One line: the median of everybody, and the floor of the dense networks."""
    edges = max((row["edges"] or 0 for row in rows), default=0)
    parts = []
    for entry, row in zip(unit.entries, rows, strict=True):
        time = "-" if row["ms_median"] is None else f"{row['ms_median']:.3g}"
        parts.append(f"{entry} {time}")
    floor = next((r["floor_ms"] for r in rows if r["variant"] in ("ours", "textbook")), None)
    beside = "" if floor is None else f"; floor {floor:.3g}"
    return f"{unit.case.name} {unit.name}, {edges} edges, ms: {', '.join(parts)}{beside}"


def key_of(row: Row) -> tuple[Any, ...]:
    """What a row measures, without the numbers."""
    return tuple(row[k] for k in ("case", "pass", "variant", "compiled", "threads", "device"))


def is_measured(unit: Unit, rows: Sequence[Row], conditions: Conditions) -> bool:
    """Whether all rows of a unit are there; if not, all of them take turns again."""
    there = {key_of(row) for row in rows}
    return all(
        (unit.case.name, unit.name, e.variant, e.compiled, conditions.threads, conditions.device)
        in there
        for e in unit.entries
    )


def kept_rows(path: Path, about: dict[str, Any]) -> list[Row]:
    """The rows of an earlier run on the same machine with the same code.

    Raises:
        ConfigError: something else was different.
    """
    if not path.exists():
        return []
    found = read_json(path)
    before = found.get("about", {})
    if changed := [k for k in about if before.get(k) != about[k]]:
        said = "; ".join(f"{k} was {before.get(k)}, is {about[k]}" for k in changed)
        raise ConfigError(f"{path} was measured otherwise ({said}); choose another --out")
    rows: list[Row] = found["rows"]
    return rows


def provenance(device: str) -> dict[str, Any]:
    """What must not change between the rows of a file."""
    return {
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(device),
    }


def processor(device: str) -> str:
    """The name of what computes."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
