"""The page of a specialised potential: made whole from files, then written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from egnn_prune.report.common import page
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.element_table import element_table
from egnn_prune.report.common.files import Metrics, write_atomic
from egnn_prune.report.common.page import Block, Pairs, Picture, Section, Text, pairs
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.common.type_tables import type_blocks
from egnn_prune.report.specialise import error_bar_figures, error_bars, wording
from egnn_prune.report.specialise.bars import (
    cost,
    elements_shown,
    force_error_by_element,
    symmetry,
)
from egnn_prune.report.specialise.cut import what_was_cut
from egnn_prune.report.specialise.files import (
    LABELS,
    Structures,
    load_metrics,
    load_structures,
    models_present,
)
from egnn_prune.report.specialise.parity import energy_errors, force_parity
from egnn_prune.report.specialise.speed import error_against_speed
from egnn_prune.report.specialise.structure_view import structures_to_turn
from egnn_prune.report.specialise.table import budgets_table, models_table
from egnn_prune.report.specialise.training import load_curves, training_figure

REPORT_NAME, TABLE_NAME, CURVE_NAME = "report.html", "table.txt", "budgets.csv"
ERROR_BARS_NAME = "error_bars.csv"

ERROR_BARS = "Does it know what it does not know?"

CAPTIONS = {
    "error_against_speed": (
        "Right is faster, down is more accurate. The dashed line is the network as cut "
        "(compensated where that helps), the solid one after a short fit, both on validation "
        "structures, for the budgets named at the top. Large markers are the finished models on "
        "the test structures, so they need not lie on the lines."
    ),
    "cost": (
        "Time is that of energies and forces, of a batch of structures and of one structure of "
        "median size. Each panel begins at zero and has a scale of its own."
    ),
    "force_parity": (
        "All components of all forces; darker is more of them. On the dashed line the prediction "
        "is exact. The lower row shows the error alone: the wider the band, the larger it is."
    ),
    "force_error_by_element": (
        "Root mean square error of the forces on the atoms of each element, on one axis, with the "
        "95 % interval over the test structures. Where forces are larger, errors are, too."
    ),
    "energy_error": "Dashed: no error.",
    "what_was_cut": (
        "Blue bars: copies of each irrep that were kept. Grid: a mark is a path from a source "
        "irrep with the degree l2 of the direction to a neighbour (columns) to a target irrep "
        "(rows); filled is kept, hollow is cut. Diamonds have an odd l1 + l2 + l3; in a network "
        "without parities these tell left from right, which energies must not."
    ),
    "symmetry": (
        "How much predictions change, relative to typical forces, when a structure is turned or "
        "mirrored. Left of the dashed line is below what single precision resolves."
    ),
    "training": "Force error on validation structures; all models take the same steps.",
}
"""What to look for in each figure, in the order of the page."""

_ALTS = {
    "error_against_speed": "Force error against speed-up for every budget and model",
    "cost": "Time, MD steps a second, memory, parameters and file size of the models",
    "force_parity": "Density of predicted against labelled force components, a panel a model",
    "force_error_by_element": "Force error of the models on the atoms of each element",
    "energy_error": "Histograms of the energy error per atom, a panel a model",
    "what_was_cut": "Copies of irreps and paths kept and cut in each layer",
    "symmetry": "Errors of the models when structures are turned and mirrored",
    "training": "Validation force error against optimiser steps for every model",
}
_SECTIONS = {
    "Speed and cost": ("error_against_speed", "cost"),
    "Accuracy": ("force_parity", "force_error_by_element", "energy_error"),
    ERROR_BARS: tuple(error_bar_figures.CAPTIONS),
    "What was cut": ("what_was_cut",),
    "Symmetry": ("symmetry",),
    "Training": ("training",),
}


def figures(metrics: Metrics, test: Structures, folder: Path) -> dict[str, bytes]:
    """Every figure that the run has numbers for, as PNG by name, in the order of the page."""
    drawn: dict[str, Figure | None] = {
        "error_against_speed": error_against_speed(metrics),
        "cost": cost(metrics),
        "force_parity": force_parity(metrics, test),
        "force_error_by_element": force_error_by_element(test),
        "energy_error": energy_errors(metrics, test),
        "what_was_cut": what_was_cut(metrics),
        "symmetry": symmetry(metrics),
        "training": training_figure(load_curves(folder)),
        **error_bar_figures.figures(metrics, test),
    }
    return {name: png_bytes(figure) for name, figure in drawn.items() if figure is not None}


def render(metrics: Metrics, test: Structures, config: str, drawn: Mapping[str, bytes]) -> str:
    """The HTML document.

    Args:
        metrics: The checked content of ``metrics.json``.
        test: The test structures with all predictions.
        config: The text of ``config.yaml``, shown as it is; may be empty.
        drawn: PNG by name of the figure.
    """
    budgets, bars = budgets_table(metrics), error_bars.error_bars_table(metrics)
    elements = element_table(
        {LABELS[n]: metrics["models"][n].get("force_by_element") for n in models_present(metrics)},
        "Errors of the forces on the atoms of each element, in meV/Å",
    )
    extra: dict[str, tuple[Sequence[Block], Sequence[Block]]] = {
        "Speed and cost": ([], [budgets] if budgets else []),
        "Accuracy": ([], [*([elements] if elements else []), *type_blocks(metrics, LABELS)]),
        "What was cut": ([Text(sentence) for sentence in wording.what_was_cut(metrics)], []),
        ERROR_BARS: (
            [Text(sentence) for sentence in error_bars.sentences(metrics, test)],
            [bars] if bars else [],
        ),
    }
    alts = _ALTS | error_bar_figures.ALTS
    sections = []
    for title, names in _SECTIONS.items():
        first, last = extra.get(title, ([], []))
        pictures = [
            Picture(drawn[name], alts[name], [("", _caption(name, test))])
            for name in names
            if name in drawn
        ]
        turn = structures_to_turn(test) if title == (ERROR_BARS if bars else "Accuracy") else []
        sections.append(Section(title, [*first, *pictures, *turn, *last]))
    sections += [
        Section("Data set", [Pairs(pairs(wording.dataset(metrics), compact=True))]),
        Section("Provenance", [Pairs(pairs(wording.provenance(metrics)), single=True)]),
    ]
    return page.render(
        "Specialised potential",
        wording.headline(metrics),
        sections,
        config=config,
        terms=page.glossary("specialise") + (page.glossary("error_bars") if bars else []),
        above=f"{metrics.get('teacher')}, made small for {metrics['dataset'].get('name')}",
        below=[models_table(metrics, test), *map(Text, wording.notes(metrics, test))],
    )


def _caption(name: str, test: Structures) -> str:
    shown, all_of_them = len(elements_shown(test)), len(set(test.z.tolist()))
    if name == "force_error_by_element" and shown < all_of_them:
        return f"{CAPTIONS[name]} Shown are the {shown} of {all_of_them} with most atoms."
    if name == "energy_error" and "teacher" in test.energies:
        return (
            f"{CAPTIONS[name]} The untouched teacher counts energies from the zero of its own "
            "data, so it can lie far off while its forces are right."
        )
    return (CAPTIONS | error_bar_figures.CAPTIONS)[name]


def report_table(folder: Path) -> str:
    """The models of a run beside each other as plain text, below the result in one sentence.

    Raises:
        InputError: If ``metrics.json`` or ``predictions.npz`` is missing or malformed.
    """
    metrics = load_metrics(Path(folder) / "metrics.json")
    return _text(metrics, load_structures(Path(folder) / "predictions.npz", metrics))


def _text(metrics: Metrics, test: Structures) -> str:
    return f"{wording.headline(metrics)}\n{models_table(metrics, test).text()}"


def write_report(folder: Path) -> Path:
    """Writes the figures as PNG, ``table.txt``, two CSV files of numbers and ``report.html``.

    All is made before the first file is written, and every file is written atomically.

    Args:
        folder: Of a finished run, with ``metrics.json`` and ``predictions.npz``; ``config.yaml``
            and ``curves/`` are shown where they are.

    Returns:
        Path of the page.

    Raises:
        InputError: If a file of the run is missing or malformed.
    """
    folder = Path(folder)
    metrics = load_metrics(folder / "metrics.json")
    test = load_structures(folder / "predictions.npz", metrics)
    config = folder / "config.yaml"
    settings = config.read_text(encoding="utf-8") if config.is_file() else ""
    drawn = figures(metrics, test, folder)
    html = render(metrics, test, settings, drawn)
    if metrics.get("curve"):
        write_rows(metrics["curve"], folder / CURVE_NAME)
    if bars := error_bars.csv_rows(metrics):
        write_rows(bars, folder / ERROR_BARS_NAME)
    write_atomic(folder / TABLE_NAME, (_text(metrics, test) + "\n").encode("utf-8"))
    for name, png in drawn.items():
        write_atomic(folder / f"{name}.png", png)
    return write_atomic(folder / REPORT_NAME, html.encode("utf-8"))
