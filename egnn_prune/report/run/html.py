"""One self-contained HTML page per run: opens offline, in light and in dark mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from egnn_prune.errors import InputError
from egnn_prune.report.common import page
from egnn_prune.report.common.element_table import element_table
from egnn_prune.report.common.files import (
    Metrics,
    Predictions,
    load_metrics,
    load_predictions,
    models_present,
    number,
    write_atomic,
)
from egnn_prune.report.common.formatting import si
from egnn_prune.report.common.intervals import with_intervals
from egnn_prune.report.common.page import Bars, Block, Pairs, Picture, Section, Text, pairs
from egnn_prune.report.common.rows import Row
from egnn_prune.report.common.style import SPLIT_LABELS
from egnn_prune.report.common.tables import Cell, Table
from egnn_prune.report.common.type_tables import type_blocks
from egnn_prune.report.common.wording import Words, unequal_steps, words
from egnn_prune.report.run.calibration_page import CalibrationSection, calibration_section
from egnn_prune.report.run.figures import write_figures
from egnn_prune.report.run.force_page import ATOM_ERRORS, ForceSection, force_section
from egnn_prune.report.run.gallery import gallery_notes
from egnn_prune.report.run.hanging import ATOM_COLOURS
from egnn_prune.report.run.molecule import BOND_FACTOR
from egnn_prune.report.run.structure_view import gallery_view
from egnn_prune.report.run.tables import (
    LEDGER_HEADER,
    comparison_rows,
    has_forces,
    headline,
    ledger_rows,
    notes,
)

REPORT_NAME = "report.html"

_ABOUT = (
    "Errors are those of one deterministic pass, and the mean absolute error (MAE) is this one "
    "everywhere on the page. A change is coloured where its 95 % interval says whether it is "
    "better or worse; without an interval, or where it holds both, this cannot be told."
)
_PROVENANCE = {
    "config_hash": "configuration hash",
    "git_commit": "git commit",
    "seed": "seed",
    "device": "device",
    "threads": "threads",
    "schema_version": "schema version",
}


def glossary(run: Words) -> list[tuple[str, str]]:
    """Every term with its meaning, in the words of the run."""
    change = (
        "How far the predicted positions are from turning and moving with the graph."
        if run.positions
        else "How much the prediction changes when the molecule is rotated, reflected or moved."
    )
    kind = "positions" if run.positions else "molecules"
    return page.glossary(kind, graph=run.graph, value=run.value, equivariance=change)


def _dataset(metrics: Metrics) -> list[tuple[str, str]]:
    """About the data; of positions nothing is fitted, and the simplest prediction is the start."""
    dataset = dict(metrics["dataset"])
    if words(metrics).positions:
        dataset = {
            {"mean_predictor_mae": "MAE without movement"}.get(key, key): value
            for key, value in dataset.items()
            if key != "per_element_fit"
        }
    return pairs(dataset)


def _groups(metrics: Metrics) -> list[dict[str, Any]]:
    """Channels kept per group, with the percentage that sets the length of its bar."""
    pruning = metrics.get("pruning") or {}
    bars = []
    for group in pruning.get("groups") or []:
        total, kept = number(group.get("total")), number(group.get("kept"))
        if not total > 0 or not 0 <= kept <= total:
            raise InputError(
                f"metrics: pruning group {group['name']!r} needs 0 <= kept <= total and total > 0, "
                f"got kept={group.get('kept')!r}, total={group.get('total')!r}"
            )
        bars.append(
            {
                "name": group["name"],
                "kind": group.get("kind") or "",
                "kept": int(kept),
                "total": int(total),
                "percent": round(100 * kept / total, 1),
            }
        )
    return bars


def _comparison(names: Sequence[str], rows: Sequence[Row]) -> Table:
    """The models beside each other; a change is coloured where it is better or worse."""
    body: list[list[str | Cell]] = []
    for row in rows:
        colour = "" if row.better is None else "good" if row.better else "bad"
        body.append(
            [
                Cell(row.label, unit=row.unit),
                *(row.texts[name] for name in names),
                Cell(row.change, colour),
                Cell(row.interval, "soft"),
            ]
        )
    header = ["quantity", *names, "pruned vs dense", "95 % interval"]
    if not any(row.interval for row in rows):  # an empty column takes the room of the others
        header, body = header[:-1], [cells[:-1] for cells in body]
    return Table("", header, body, sortable=False)


def _elements(metrics: Metrics) -> list[Block]:
    """Errors of forces by element, of test and OOD."""
    found = [
        element_table(
            {
                name: metrics["models"][name].get(f"{split}_force_by_element")
                for name in models_present(metrics)
            },
            f"{SPLIT_LABELS[split]}: errors of the forces on the atoms of each element, in "
            f"{metrics['dataset']['unit']}/Angstrom",
        )
        for split in ("test", "ood")
    ]
    return [table for table in found if table]


def _figures(summary: str, images: Mapping[str, Path], graph: str, unequal: str) -> list[Block]:
    shown = {
        "pruned_vs_baseline": (
            f"Error, calibration and cost of the models: {summary}",
            f"Error with the 95 % interval over {graph}s; reliability of the predicted standard "
            "deviation in bins of equal count (on the dashed line the prediction is as uncertain "
            "as it is wrong); cost relative to the dense model.",
        ),
        "parity": (
            "Predicted against true values for the dense and the pruned model",
            "Predicted against true. On the dashed line the prediction is exact.",
        ),
        "training": (
            "Validation error against optimiser steps for every model",
            "Learning curves. Pruning happens in the first part of the orange line. "
            + (unequal or "The baseline takes the same extra steps."),
        ),
    }
    return [
        Picture(images[name].read_bytes(), alt, [("", caption)])
        for name, (alt, caption) in shown.items()
        if name != "training" or name in images
    ]


def _calibration(
    section: CalibrationSection, names: Sequence[str], images: Mapping[str, Path]
) -> list[Block]:
    if section.missing:
        return [Text(f"Calibration is {section.missing}", soft=True)]
    alt = "Reliability, coverage and sparsification of the dense and the pruned model"
    return [
        *map(Text, section.verdict),
        Picture(images["calibration"].read_bytes(), alt, section.panels),
        _comparison(names, section.rows),
    ]


def _forces(
    section: ForceSection | None, names: Sequence[str], images: Mapping[str, Path]
) -> list[Block]:
    if section is None:
        return []
    alt = "Size, coverage and ranking of the error bars of forces, dense and pruned"
    atoms = "Density of the errors of forces on single atoms against their error bars"
    return [
        *map(Text, section.verdict),
        Picture(images["force_calibration"].read_bytes(), alt, section.panels),
        Picture(images["atom_errors"].read_bytes(), atoms, [("", ATOM_ERRORS)]),
        _comparison(names, section.rows),
    ]


def _gallery(
    notes: Sequence[str], images: Mapping[str, Path], predictions: Predictions, unit: str
) -> list[Block]:
    if not notes:
        return [Text("The gallery is left out: this run holds no molecules for it.", soft=True)]
    coloured = any(f"gallery_{split}_forces_std" in predictions for split in ("test", "ood"))
    farther = "smaller" if coloured else "smaller and paler"
    caption = (
        "The molecules to which the pruned model gives the longest error bars, the longest first. "
        f"All drawings have one scale; farther atoms are {farther}; two atoms are bonded if "
        f"their distance is at most {BOND_FACTOR} times the sum of their covalent radii. "
        "σ is one error bar: 1.5σ off is wrong by one and a half of them."
    )
    if coloured:
        caption += f" {ATOM_COLOURS}"
    alt = (
        "Drawings of the molecules that the pruned model is least certain about, with predicted "
        "and true values"
    )
    picture = Picture(images["gallery"].read_bytes(), alt, [("", caption)])
    return [*map(Text, notes), picture, *gallery_view(predictions, unit)]


def _channels(metrics: Metrics) -> list[Block]:
    groups, pruning = _groups(metrics), metrics.get("pruning") or {}
    if not groups:
        return []
    removed, channels = (
        f"{number(pruning.get(key)):,.0f}" for key in ("channels_removed", "channels_total")
    )
    return [Text(f"{removed} of {channels} prunable channels were removed."), Bars(groups)]


def _ledger(metrics: Metrics) -> list[Block]:
    """Parameters and multiplications by layer, and what was frozen of those that are left."""
    rows = ledger_rows(metrics)
    if not rows:
        return []
    frozen = math.fsum(number(entry.get("frozen")) for entry in metrics["ledger"])
    mode = (metrics.get("pruning") or {}).get("freeze")
    setting = f" (pruning.freeze={mode})" if mode else ""
    said = f"{si(frozen)} of the weights that are left were frozen while fine-tuning{setting}."
    if mode == "none":
        said = f"Nothing was frozen{setting}: what was removed could grow until the end, then went."
    elif frozen == 0:
        said = f"Only what was removed is frozen, at zero{setting}; all that is left was trained."
    told = [Text(said)] if math.isfinite(frozen) else []
    return [*told, Table("", LEDGER_HEADER, rows, total=True)]


def _listed(items: Sequence[tuple[str, str]]) -> list[Block]:
    return [Pairs(items)] if items else []


def render(
    metrics: Metrics, predictions: Predictions, config: str, images: Mapping[str, Path]
) -> str:
    """Renders the page.

    Args:
        metrics: The checked content of ``metrics.json``.
        predictions: The arrays of ``predictions.npz``.
        config: The text of ``config.yaml``, shown as it is.
        images: PNG per figure name, as `write_figures` returns them.

    Returns:
        The HTML document.
    """
    metrics = with_intervals(metrics, predictions)
    run, names, summary = words(metrics), models_present(metrics), headline(metrics)
    calibration = calibration_section(metrics, predictions)
    forces = force_section(metrics, predictions)
    # NLL stays in the comparison too: it judges the prediction as a whole.
    own = {row.key for row in calibration.rows} - {"nll"}
    own |= {row.key for row in forces.rows} if forces else set()
    rows = [row for row in comparison_rows(metrics) if row.key not in own]
    provenance = {label: metrics.get(key) for key, label in _PROVENANCE.items()}
    found = (metrics.get("pruning") or {}).items()
    pruning = {k: v for k, v in found if k not in ("groups", "ms_per_channel")}
    drawn = [] if run.positions else gallery_notes(metrics, predictions)
    unit = metrics["dataset"]["unit"]
    gallery = [] if run.positions else _gallery(drawn, images, predictions, unit)
    sections: dict[str, Sequence[Block]] = {
        "Comparison": [Text(_ABOUT, soft=True), _comparison(names, rows)],
        "Figures": _figures(summary, images, run.graph, unequal_steps(metrics)),
        "Forces by element": _elements(metrics),
        "Errors by type of structure": type_blocks(
            metrics, {name: name for name in names}, "energy" if has_forces(metrics) else "target"
        ),
        "Calibration": _calibration(calibration, names, images),
        "Error bars of forces": _forces(forces, names, images),
        "Least certain molecules": gallery,
        "Channels kept": _channels(metrics),
        "Ledger": _ledger(metrics),
        "Data set": [Pairs(_dataset(metrics))],
        "Selection": _listed(pairs(metrics.get("selection"))),
        "Pruning": _listed(pairs(pruning)),
        "Provenance": [Pairs(pairs(provenance), single=True)],
    }
    return page.render(
        "Pruned against dense",
        summary,
        [Section(title, blocks) for title, blocks in sections.items()],
        config=config,
        terms=glossary(run) + (page.glossary("force_bars") if forces else []),
        below=[
            Text("Pruned against dense E(n)-equivariant network.", soft=True),
            *map(Text, notes(metrics)),
        ],
    )


def write_report(run: Path) -> Path:
    """Draws the figures of a run and writes its ``report.html``.

    Args:
        run: Folder with ``metrics.json``, ``predictions.npz`` and ``config.yaml``. The PNGs and
            the page are written into it.

    Returns:
        Path of the page.

    Raises:
        InputError: If a file of the run is malformed.
        FileNotFoundError: If a file of the run is missing.
    """
    run = Path(run)
    metrics = load_metrics(run / "metrics.json")
    config = (run / "config.yaml").read_text(encoding="utf-8")
    predictions = load_predictions(run / "predictions.npz")
    html = render(metrics, predictions, config, write_figures(run))
    return write_atomic(run / REPORT_NAME, html.encode("utf-8"))
