"""The page of an audit: made whole from ``audit.json``, then written with its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        "Points are changes, bars 95 % intervals: red where B is worse, green where it is better, "
        "grey where it is not decided. Of forty groups without any change, one would be called "
        "worse by chance. One atom is in one group of every kind."
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
_STYLES = {"B is worse": "bad", "B is better": "good"}


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


def render(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The page as HTML."""

    def picture(name: str) -> list[Block]:
        if name not in images:
            return []
        return [Picture(images[name], _ALTS[name], [("", _CAPTIONS[name])])]

    sections: dict[str, list[Block]] = {
        "Errors": [Text(_ABOUT, soft=True), *_errors(report), *picture("structures")],
        "B against A": [_differences(report["differences"])],
        "Where forces changed": [*picture("groups"), *_groups(report)],
        "Structures that got worse": _worst(report),
        "Symmetry": [_symmetry(report["symmetry"])],
        "Slopes and jumps": [_slopes(report["smoothness"]), *picture("smoothness")],
        "Conservation of energy": [*_dynamics(report["dynamics"]), *picture("dynamics")],
        "Speed": [*_speed(report["speed"]), *picture("speed")],
        "Error bars": [*_calibration(report["calibration"]), *picture("calibration")],
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
        ],
    )


def _text(value: object) -> str:
    return significant(number(value))


def _ends(row: Mapping[str, Any]) -> str:
    low, high = _text(row["low"]), _text(row["high"])
    return "no interval" if MISSING in (low, high) else f"[{low}, {high}]"


def _compared(title: str, first: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    body: list[list[str | Cell]] = [
        [
            Cell(row["name"], unit=row["unit"]),
            _text(row["a"]),
            _text(row["b"]),
            Cell(f"{number(row['change']):+.3g}", _STYLES.get(row["verdict"], "")),
            Cell(_ends(row), "soft"),
            Cell(row["verdict"], _STYLES.get(row["verdict"], "")),
        ]
        for row in rows
    ]
    return Table(title, [first, "A", "B", "B less A", "95 % interval", "verdict"], body)


def _errors(report: Mapping[str, Any]) -> list[Block]:
    if not report["errors"]:
        return [Text("The structures have no labels, so neither calculator has an error here.")]
    return [_compared("", "error", report["errors"])]


def _differences(rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table("", ["quantity", "value", "95 % interval"], [_valued(r, "value") for r in rows])


def _valued(row: Mapping[str, Any], key: str) -> list[str | Cell]:
    return [Cell(row["name"], unit=row["unit"]), _text(row[key]), Cell(_ends(row), "soft")]


def _groups(report: Mapping[str, Any]) -> list[Block]:
    if "forces" in report["about"]["labels"]:
        return [
            _compared(f"Force RMSE by {kind}", kind, rows)
            for kind, rows in report["groups"].items()
            if rows
        ]
    return [
        Table(
            f"RMS of B's forces less A's, by {kind}",
            [kind, "distance", "95 % interval"],
            [_valued(row, "b") for row in rows],
        )
        for kind, rows in report["groups"].items()
        if rows
    ]


def _worst(report: Mapping[str, Any]) -> list[Block]:
    body = [
        [
            str(row["structure"]),
            row["formula"],
            _text(row["a"]),
            _text(row["b"]),
            f"{row['atom']}: {row['surroundings']}",
            _text(row["strain_percent"]),
            _text(row["error_bar"]),
        ]
        for row in report["worst"]
    ]
    header = ["structure", "formula", "A", "B", "worst atom", "its strain (%)", "B's error bar"]
    at = report["structures"]["percentiles"]
    said = ", ".join(
        f"{_text(at[q])} at the {name}"
        for q, name in (("50", "median"), ("90", "90th percentile"), ("99", "99th"))
    )
    text = (
        f"From A to B the force RMSE of a structure changes by {said}, and by {_text(at['100'])} "
        "meV/Å at most. Errors in meV/Å; structures count from 0 in the file."
    )
    return [Text(text), Table("", header, body, left=2)] if body else [Text(text)]


def _symmetry(rows: Sequence[Mapping[str, Any]]) -> Table:
    body: list[list[str | Cell]] = [
        [
            f"{row['who'].upper()}: {row['symmetry']}",
            _text(row["energy"]),
            _text(row["forces"]),
            _text(row["stress"]),
            Cell("kept", "good") if row["kept"] else Cell("broken", "bad"),
        ]
        for row in rows
    ]
    header = ["largest deviation", "energy (meV/atom)", "force (meV/Å)", "stress (meV/Å³)", ""]
    return Table("", header, body)


def _slopes(rows: Sequence[Mapping[str, Any]]) -> Table:
    body: list[list[str | Cell]] = [
        [
            row["who"].upper(),
            _text(row["slope_error"]),
            Cell("gradient", "good") if row["gradient"] else Cell("not the gradient", "bad"),
            _text(row["energy_jump"]),
            _text(row["force_jump"]),
            Cell("smooth", "good") if row["smooth"] else Cell("jumps", "bad"),
        ]
        for row in rows
    ]
    header = ["", "energy against forces (meV/Å)", "", "energy jump (meV)", "force jump (meV/Å)"]
    return Table("", [*header, ""], body)


def _dynamics(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    body = [
        [
            row["who"].upper(),
            with_error(number(row["drift"]), number(row["drift_error"])),
            _text(row["fluctuation"]),
            row["stopped"] or "ran to its end",
        ]
        for row in rows
    ]
    header = ["", "drift (meV/atom/ps)", "fluctuation (meV/atom)", "end"]
    return [Table("", header, body)] if body else []


def _speed(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    body = [
        [
            str(row["atoms"]),
            _text(row["a"]),
            _text(row["b"]),
            row["failed"] or _text(row["ratio"]),
            Cell("" if row["failed"] else _ends(row), "soft"),
        ]
        for row in rows
    ]
    header = ["atoms", "A (ms)", "B (ms)", "B's time over A's", "95 % interval"]
    return [Table("", header, body)] if body else []


def _calibration(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    body = [
        [
            f"{row['who'].upper()}: {row['quantity']}",
            f"{row['count']:,}",
            _text(row["rms_ratio"]),
            *(f"{100 * number(row[f'coverage_{p}']):.0f} %" for p in (50, 80, 90, 95)),
            _text(row["spearman"]),
        ]
        for row in rows
    ]
    header = ["error bars of", "count", "error over bar, RMS", "50 %", "80 %", "90 %", "95 %"]
    if not body:
        return [Text("Neither states error bars, or there are no labels to hold them against.")]
    return [Table("", [*header, "Spearman"], body)]
