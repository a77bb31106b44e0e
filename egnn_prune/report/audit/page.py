"""The page of an audit: made whole from ``audit.json``, then written with its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from egnn_prune.errors import DataError
from egnn_prune.report.audit.figures import all_figures
from egnn_prune.report.common import page
from egnn_prune.report.common.files import number, write_atomic
from egnn_prune.report.common.formatting import MISSING, significant, with_error
from egnn_prune.report.common.page import Block, Pairs, Picture, Section, Text, pairs
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.common.tables import Cell, Table
from egnn_prune.system.files import read_json

REPORT_NAME = "audit.html"

_ABOUT = (
    "A change counts where its 95 % interval (paired bootstrap over structures) leaves out zero; "
    "else it is not decided, which is not the same as equal."
)
_CAPTIONS = {
    "structures": (
        "Left: a point is a structure; above the dashed line B is worse. Right: energies per atom, "
        "each calculator's less the median, so that zeros of energy play no part."
    ),
    "groups": (
        "Points are changes, bars 95 % intervals: orange where B is worse, green where it is "
        "better, grey where it is not decided. Of forty groups without any change, one would be "
        "called worse by chance. One atom is in one group of every kind."
    ),
    "smoothness": (
        "Structures along straight lines, a line each. Above, minus the force along the line; "
        "below, what the energy does beyond the integral of that: zero where forces are its "
        "gradient, a slope where they are not, a step where the energy jumps."
    ),
    "dynamics": (
        "The same start and the same velocities. A wiggle is the integrator's; a slope says that "
        "forces are not the gradient, or not smooth, or that the step is too long."
    ),
    "speed": "One structure at a time, both in turns; crystals repeated, molecules side by side.",
    "calibration": (
        "Parts of equal count, by the length of the error bar. On the dashed line errors are as "
        "large as stated; above it error bars are too short."
    ),
}
_ALTS = {
    "structures": "Errors of every structure by A and by B",
    "groups": "Change of the force error by group of atoms with its interval",
    "smoothness": "Slope of the energy along lines, and the energy less its integral",
    "dynamics": "Total energy of both simulations over time",
    "speed": "Time over the number of atoms of both calculators",
    "calibration": "Error against error bar",
}
_UNLABELLED = "The structures have no labels, so neither calculator has an error here."
_NO_BARS = "Neither states error bars, or there are no labels to hold them against."
_STYLES = {"B is worse": "bad", "B is better": "good"}

Report = Mapping[str, Any]
Show = Callable[[Report], str | Cell]
"""From a row to what stands in a column of it."""


def _value(key: str) -> Show:
    return lambda row: significant(number(row[key]))


def _flag(key: str, yes: str, no: str) -> Show:
    return lambda row: Cell(yes, "good") if row[key] else Cell(no, "bad")


def _who(row: Report) -> str:
    return row["who"].upper()


def _whose(key: str) -> Show:
    return lambda row: f"{_who(row)}: {row[key]}"


def _named(row: Report) -> Cell:
    return Cell(row["name"], unit=row["unit"])


def _ends(row: Report) -> Cell:
    low, high = (significant(number(row[key])) for key in ("low", "high"))
    return Cell("no interval" if MISSING in (low, high) else f"[{low}, {high}]", "soft")


def _change(row: Report) -> Cell:
    return Cell(f"{number(row['change']):+.3g}", _STYLES.get(row["verdict"], ""))


def _verdict(row: Report) -> Cell:
    return Cell(row["verdict"], _STYLES.get(row["verdict"], ""))


def _drift(row: Report) -> str:
    return with_error(number(row["drift"]), number(row["drift_error"]))


def _share(percent: int) -> Show:
    return lambda row: f"{100 * number(row[f'coverage_{percent}']):.0f} %"


_INTERVAL = ("95 % interval", _ends)
_COMPARED = [
    *(("", _named), ("A", _value("a")), ("B", _value("b"))),
    *(("B less A", _change), _INTERVAL, ("verdict", _verdict)),
]
_COLUMNS: Mapping[str, Sequence[tuple[str, Show]]] = {
    "errors": _COMPARED,
    "differences": [("", _named), ("value", _value("value")), _INTERVAL],
    "distances": [("", _named), ("B from A", _value("b")), _INTERVAL],
    "worst": [
        *(("structure", lambda row: str(row["structure"])), ("", lambda row: row["formula"])),
        *(("A (meV/Å)", _value("a")), ("B (meV/Å)", _value("b"))),
        ("worst atom", lambda row: f"{row['atom']}: {row['surroundings']}"),
        ("its strain (%)", _value("strain_percent")),
        ("B's error bar (meV/Å)", _value("error_bar")),
    ],
    "symmetry": [
        *(("largest deviation", _whose("symmetry")), ("energy (meV/atom)", _value("energy"))),
        *(("force (meV/Å)", _value("forces")), ("stress (meV/Å³)", _value("stress"))),
        ("", _flag("kept", "kept", "broken")),
    ],
    "smoothness": [
        *(("", _who), ("energy against forces (meV/Å)", _value("slope_error"))),
        ("", _flag("gradient", "gradient", "not the gradient")),
        ("energy jump (meV)", _value("energy_jump")),
        ("force jump (meV/Å)", _value("force_jump")),
        ("", _flag("smooth", "smooth", "jumps")),
    ],
    "dynamics": [
        *(("", _who), ("drift (meV/atom/ps)", _drift)),
        ("fluctuation (meV/atom)", _value("fluctuation")),
        ("end", lambda row: row["stopped"] or "ran to its end"),
    ],
    "speed": [
        ("atoms", lambda row: f"{row['atoms']:,}"),
        *(("A (ms)", _value("a")), ("B (ms)", _value("b"))),
        *(("B's time over A's", _value("ratio")), _INTERVAL),
        ("", lambda row: row["failed"] or ""),
    ],
    "calibration": [
        *(("error bars of", _whose("quantity")), ("count", lambda row: f"{row['count']:,}")),
        ("error over bar, RMS", _value("rms_ratio")),
        *((f"{p} %", _share(p)) for p in (50, 80, 90, 95)),
        ("Spearman", _value("spearman")),
    ],
}


def _table(kind: str, rows: Sequence[Report], title: str = "") -> list[Block]:
    """The rows of one part of the report; nothing where there are none."""
    columns = _COLUMNS[kind]
    body = [[show(row) for _, show in columns] for row in rows]
    left = 2 if kind == "worst" else 1
    return [Table(title, [header for header, _ in columns], body, left)] if body else []


def write_report(folder: Path) -> Path:
    """Draw the figures of an audit and write its page beside ``audit.json``.

    Raises:
        InputError: the file is missing or damaged, or the folder cannot be written to.
    """
    report = read_json(folder / "audit.json")
    if report.get("kind") != "audit" or report.get("schema_version") != 1:
        raise DataError(f"{folder / 'audit.json'} is of another kind or version")
    images = {name: png_bytes(figure) for name, figure in all_figures(report).items()}
    html = render(report, images)
    for name, png in images.items():
        write_atomic(folder / f"{name}.png", png)
    return write_atomic(folder / REPORT_NAME, html.encode("utf-8"))


def render(report: Report, images: Mapping[str, bytes]) -> str:
    """The page as HTML."""

    def part(name: str) -> list[Block]:
        """A table and its figure, of those that there are."""
        found = _table(name, report[name]) if name in _COLUMNS else []
        if name in images:
            found.append(Picture(images[name], _ALTS[name], [("", _CAPTIONS[name])]))
        return found

    kind = "errors" if "forces" in report["about"]["labels"] else "distances"
    said = "RMSE of forces" if kind == "errors" else "RMS of B's forces less A's"
    sections: dict[str, list[Block]] = {
        "Errors": [*(part("errors") or [Text(_UNLABELLED)]), *part("structures")],
        "B against A": part("differences"),
        "Where forces changed": [
            *part("groups"),
            *(
                block
                for name, rows in report["groups"].items()
                for block in _table(kind, rows, f"{said} by {name}")
            ),
        ],
        "Structures that got worse": [Text(_spread(report)), *part("worst")],
        "Symmetry": part("symmetry"),
        "Slopes and jumps": part("smoothness"),
        "Conservation of energy": part("dynamics"),
        "Speed": part("speed"),
        "Error bars": part("calibration") or [Text(_NO_BARS)],
        "What was audited": [Pairs(pairs(report["about"]))],
    }
    names = report["names"]
    return page.render(
        "Audit",
        "B against A: what differs, what got worse, what is unsound",
        [Section(title, blocks) for title, blocks in sections.items()],
        config="",
        terms=page.glossary("audit"),
        below=[
            Pairs([("A", names["a"]), ("B", names["b"])], single=True),
            *(Text(f"{sentence}.") for sentence in report["findings"]),
            Text(_ABOUT, soft=True),
        ],
    )


def _spread(report: Report) -> str:
    at = {q: significant(number(x)) for q, x in report["structures"]["percentiles"].items()}
    return (
        f"From A to B the force RMSE of a structure changes by {at['50']} meV/Å at the median, "
        f"{at['90']} at the 90th percentile, {at['99']} at the 99th and {at['100']} at most. "
        "Structures count from 0 in the file."
    )
