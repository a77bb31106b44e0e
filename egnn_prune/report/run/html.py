"""One self-contained HTML page per run: opens offline, in light and in dark mode."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from egnn_prune.report.common.files import (
    Metrics,
    Predictions,
    load_metrics,
    load_predictions,
    models_present,
    number,
    write_atomic,
)
from egnn_prune.report.common.formatting import si, significant
from egnn_prune.report.common.intervals import with_intervals
from egnn_prune.report.common.wording import words
from egnn_prune.report.run.calibration_page import calibration_section
from egnn_prune.report.run.figures import write_figures
from egnn_prune.report.run.gallery import gallery_notes
from egnn_prune.report.run.glossary import glossary
from egnn_prune.report.run.molecule import BOND_FACTOR
from egnn_prune.report.run.tables import (
    LEDGER_HEADER,
    comparison_rows,
    headline,
    ledger_rows,
    notes,
)

REPORT_NAME = "report.html"


def _text(value: object) -> str:
    """Any JSON value as readable text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)


def _pairs(mapping: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [(str(key).replace("_", " "), _text(value)) for key, value in (mapping or {}).items()]


def _dataset(metrics: Metrics) -> list[tuple[str, str]]:
    """About the data; of positions nothing is fitted, and the simplest prediction is the start."""
    dataset = dict(metrics["dataset"])
    if words(metrics).positions:
        dataset = {
            {"mean_predictor_mae": "MAE without movement"}.get(key, key): value
            for key, value in dataset.items()
            if key != "per_element_fit"
        }
    return _pairs(dataset)


def _groups(metrics: Metrics) -> list[dict[str, Any]]:
    """Channels kept per group, with the percentage that sets the length of its bar."""
    pruning = metrics.get("pruning") or {}
    bars = []
    for group in pruning.get("groups") or []:
        total, kept = number(group.get("total")), number(group.get("kept"))
        if not total > 0 or not 0 <= kept <= total:
            raise ValueError(
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


def _provenance(metrics: Metrics) -> list[tuple[str, str]]:
    keys = {
        "config_hash": "configuration hash",
        "git_commit": "git commit",
        "seed": "seed",
        "device": "device",
        "threads": "threads",
        "schema_version": "schema version",
    }
    return [(label, _text(metrics.get(key))) for key, label in keys.items()]


def _image(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


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
    environment = Environment(
        loader=PackageLoader("egnn_prune.report.run", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pruning = metrics.get("pruning") or {}
    removed, channels = (
        number(pruning.get("channels_removed")),
        number(pruning.get("channels_total")),
    )
    metrics = with_intervals(metrics, predictions)
    calibration = calibration_section(metrics, predictions)
    # NLL stays in the comparison too: it judges the prediction as a whole.
    own = {row.key for row in calibration.rows} - {"nll"}
    return environment.get_template("report.html.j2").render(
        headline=headline(metrics),
        dataset=_dataset(metrics),
        models=models_present(metrics),
        rows=[row for row in comparison_rows(metrics) if calibration.missing or row.key not in own],
        calibration=calibration,
        gallery=gallery_notes(metrics, predictions),
        bond_factor=BOND_FACTOR,
        notes=notes(metrics),
        images={name: _image(path) for name, path in images.items()},
        groups=_groups(metrics),
        pruning=[pair for pair in _pairs(pruning) if pair[0] != "groups"],
        removed=si(removed),
        channels=si(channels),
        ledger_header=LEDGER_HEADER,
        ledger=ledger_rows(metrics),
        selection=_pairs(metrics.get("selection")),
        provenance=_provenance(metrics),
        glossary=glossary(words(metrics)),
        words=words(metrics),
        config=config,
    )


def write_report(run: Path) -> Path:
    """Draws the figures of a run and writes its ``report.html``.

    Args:
        run: Folder with ``metrics.json``, ``predictions.npz`` and ``config.yaml``. The PNGs and
            the page are written into it.

    Returns:
        Path of the page.

    Raises:
        ValueError: If a file of the run is malformed.
        FileNotFoundError: If a file of the run is missing.
    """
    run = Path(run)
    metrics = load_metrics(run / "metrics.json")
    config = (run / "config.yaml").read_text(encoding="utf-8")
    predictions = load_predictions(run / "predictions.npz")
    page = render(metrics, predictions, config, write_figures(run))
    return write_atomic(run / REPORT_NAME, page.encode("utf-8"))
