"""Error bars of forces of a run: figures show the numbers given, sentences judge them fairly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import force_arrays
import matplotlib.collections
import numpy as np
import pytest
from force_arrays import Arrays

from egnn_prune.errors import DataError
from egnn_prune.report import comparison_table, write_report
from egnn_prune.report.run.calibration import reliability
from egnn_prune.report.run.force_bars import (
    ForceBars,
    energy_halves,
    force_bars,
    force_halves,
    promise,
    verdict,
)
from egnn_prune.report.run.force_bars_figure import atom_errors_figure, force_calibration_figure
from egnn_prune.report.run.force_page import force_section, source_sentence
from egnn_prune.report.run.gallery import gallery_figure

KEPT = {50: 0.51, 80: 0.79, 90: 0.905}
NARROW = {50: 0.01, 80: 0.01, 90: 0.01}


@pytest.fixture
def arrays(calibrated_metrics: dict[str, Any], calibrated_predictions: Arrays) -> Arrays:
    force_arrays.add_force_bars(calibrated_metrics, calibrated_predictions)
    return calibrated_predictions


def test_an_error_bar_of_an_atom_speaks_of_its_components() -> None:
    error = np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    bars = ForceBars(error, np.ones(3), None, np.array([0, 0, 1]))
    np.testing.assert_allclose(bars.size, [np.sqrt(3), 0, 1])
    milli = bars.scaled(1000)
    assert milli.calibrated is None and milli.std[0] == 1000 and milli.size[2] == 1000


@pytest.mark.parametrize(
    ("change", "half", "says"),
    [
        ({}, NARROW, "the promise is kept"),
        ({90: 0.85}, NARROW, "not kept, error bars are too short"),
        ({50: 0.6}, NARROW, "not kept, error bars are longer than they need to be"),
        ({}, {50: 0.1, 80: 0.08, 90: 0.06}, "though 40 test structures cannot tell it to 3"),
        ({90: 0.85}, {50: 0.1, 80: 0.08, 90: 0.06}, "40 test structures are too few to tell"),
        ({90: 0.85}, {}, "too few to tell"),
    ],
)
def test_a_promise_is_judged_as_far_as_the_structures_can_tell(
    change: dict[int, float], half: dict[int, float], says: str
) -> None:
    if not half:
        half = energy_halves(40)
    assert says in verdict(KEPT | change, half, 40)


def test_a_promise_is_one_sentence_with_its_numbers() -> None:
    said = promise("force components", KEPT, {50: 0.2, 80: 0.4, 90: 0.5}, NARROW, 300)
    assert said == (
        "Intervals that promise 50 / 80 / 90 % of the force components hold 51.0 / 79.0 / 90.5 % "
        "of those of the test structures (± 1.0 points at most): the promise is kept. Before "
        "calibration they held 20.0 / 40.0 / 50.0 %."
    )
    assert "not measured" in verdict({}, NARROW, 3)


def test_atoms_of_one_structure_are_no_independent_draws() -> None:
    """Ten copies of each atom's error tell no more than one."""
    random = np.random.default_rng(0)
    error = random.normal(size=(200, 3))
    once = ForceBars(error, np.ones(200), None, np.arange(200))
    copies = ForceBars(np.repeat(error, 10, 0), np.ones(2000), None, np.repeat(np.arange(200), 10))
    assert force_halves(copies)[90] == pytest.approx(force_halves(once)[90], rel=0.02)
    apart = ForceBars(np.repeat(error, 10, 0), np.ones(2000), None, np.arange(2000))
    assert force_halves(apart)[90] < 0.5 * force_halves(once)[90]
    # 600 independent components: the binomial half width
    assert force_halves(once)[90] == pytest.approx(1.96 * np.sqrt(0.09 / 600), rel=0.15)
    unknown = ForceBars(error, np.full(200, np.inf), None, np.arange(200))
    assert force_halves(unknown) == {}


def test_the_figure_shows_these_numbers(calibrated_metrics: dict[str, Any], arrays: Arrays) -> None:
    figure = force_calibration_figure(calibrated_metrics, arrays)
    assert figure is not None and len(figure.axes) == 6
    for row, prefix in ((figure.axes[:3], "force_"), (figure.axes[3:], "ood_force_")):
        size, held, ranks = row
        split = "test" if prefix == "force_" else "ood"
        model = calibrated_metrics["models"]["pruned"]
        raw, calibrated = held.lines[-2:]
        for line, suffix in ((raw, ""), (calibrated, "_calibrated")):
            expected = [model[f"{prefix}coverage_{p}{suffix}"] for p in (50, 80, 90, 95)]
            np.testing.assert_allclose(line.get_ydata(), expected)
            np.testing.assert_allclose(line.get_xdata(), [0.5, 0.8, 0.9, 0.95])
        bars = force_bars(arrays, split, "pruned")
        assert bars is not None and bars.calibrated is not None
        x, y = reliability(bars.size, bars.calibrated)
        np.testing.assert_allclose(size.lines[-1].get_xdata(), x)
        np.testing.assert_allclose(size.lines[-1].get_ydata(), y)
        np.testing.assert_allclose(y, x, rtol=0.25)  # the error bars are true
        final = ranks.lines[-1]
        assert final.get_ydata()[0] == pytest.approx(1) and final.get_ydata()[-1] < 0.6
    assert [text.get_text() for text in figure.axes[0].texts][1] == "0.970 → 0.060"


def test_single_atoms_with_quantiles(calibrated_metrics: dict[str, Any], arrays: Arrays) -> None:
    figure = atom_errors_figure(calibrated_metrics, arrays)
    assert figure is not None
    for axes, name in zip(figure.axes, ("dense", "pruned"), strict=True):
        assert axes.get_title("left") == name
        bars = force_bars(arrays, "test", name)
        assert bars is not None and bars.calibrated is not None
        (mesh,) = axes.collections
        assert isinstance(mesh, matplotlib.collections.QuadMesh)
        assert mesh.get_array().sum() == len(bars.std)
        lines = {str(line.get_label()): line for line in axes.lines}
        order = np.argsort(bars.calibrated, kind="stable")
        for q, label in ((0.5, "50%"), (0.9, "90%")):
            last = np.array_split(order, 10)[-1]
            assert lines[label].get_ydata()[-1] == pytest.approx(np.quantile(bars.size[last], q))


def test_the_page_has_the_section_and_the_tables_the_rows(
    calibrated_run: Path, calibrated_metrics: dict[str, Any], arrays: Arrays
) -> None:
    section = force_section(calibrated_metrics, arrays)
    assert section is not None
    assert section.verdict[0].startswith("Dense: intervals that promise 50 / 80 / 90 / 95 % of")
    assert "the promise is kept" in section.verdict[1]
    assert "fitted on 1,234 atoms of the split “val”" in section.verdict[2]
    text = dict(section.panels)
    assert "On test: dense 1.9x → 0.96x, pruned 2.0x → 0.99x." in text["Size"]
    assert "On OOD: dense" in text["Coverage"] and "→ 90 %" in text["Coverage"]
    assert "probability dense 0.83, pruned 0.83" in text["Sparsification"]
    rows = {row.key: row for row in section.rows}
    assert rows["force_ence"].texts["pruned"] == "0.970 → 0.0600"
    assert rows["force_coverage_50"].texts["pruned"].endswith("→ 0.500")
    table = comparison_table(calibrated_metrics)
    for label in ("ENCE of forces", "Coverage of 90 %, forces", "AUROC of wrong atoms"):
        assert label in table
    calibrated_metrics["models"]["pruned"]["force_coverage_90_calibrated"] = 0.7
    changed = force_section(calibrated_metrics, arrays)
    assert changed is not None and "the promise is not kept" in changed.verdict[1]


def _rewritten(folder: Path, metrics: dict[str, Any], arrays: Arrays) -> str:
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    return write_report(folder).read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_old_run_has_the_page_it_had(
    calibrated_run: Path, calibrated_metrics: dict[str, Any], calibrated_predictions: Arrays
) -> None:
    before = _rewritten(calibrated_run, calibrated_metrics, calibrated_predictions)
    assert not (calibrated_run / "force_calibration.png").exists()
    assert not (calibrated_run / "atom_errors.png").exists()
    force_arrays.add_force_bars(calibrated_metrics, calibrated_predictions)
    z = calibrated_predictions["gallery_test_z"]
    calibrated_predictions["gallery_test_forces_std"] = np.linspace(0.01, 0.2, len(z))
    after = _rewritten(calibrated_run, calibrated_metrics, calibrated_predictions)
    assert after.count("<img") == before.count("<img") + 2
    for present in (
        "<h2>Error bars of forces</h2>",
        "in-distribution distance",
        "The darker an atom",
        "the promise is kept",
    ):
        assert present in after and present not in before
    # numbers that the section shows stand there alone
    assert after.count("AUROC of wrong atoms</") == 2  # table and glossary


def test_arrays_that_do_not_fit_are_named(arrays: Arrays) -> None:
    assert force_bars(arrays, "test", "scratch") is None
    with pytest.raises(DataError, match="'test_dense_forces_std' has shape"):
        force_bars(arrays | {"test_dense_forces_std": np.ones(3)}, "test", "dense")
    with pytest.raises(DataError, match="must count the atoms"):
        force_bars(arrays | {"test_forces_atoms": np.zeros(3)}, "test", "dense")
    del arrays["test_forces_reference"]
    with pytest.raises(DataError, match="'test_forces_reference' is missing"):
        force_bars(arrays, "test", "dense")


def test_sources_that_differ_are_named() -> None:
    said = source_sentence(
        {"source": "members", "sources": {"dense": "distance", "pruned": "members"}}
    )
    assert "training atoms (dense) and the spread of the members' forces (pruned)" in said


def test_atoms_are_coloured_and_ringed_in_the_gallery(
    calibrated_metrics: dict[str, Any], arrays: Arrays
) -> None:
    plain = gallery_figure(calibrated_metrics, arrays)
    z = arrays["gallery_test_z"]
    std, distance = np.full(len(z), 0.01), np.full(len(z), 0.5)
    std[-1], distance[-1] = 0.4, 1.2  # the hydrogen of HCN, the first to be shown
    arrays |= {"gallery_test_forces_std": std, "gallery_test_distance": distance}
    figure = gallery_figure(calibrated_metrics, arrays)
    assert plain is not None and figure is not None

    def faces(axes: Any) -> list[float]:
        circles = [a for a in axes.get_children() if type(a).__name__ == "Circle"]
        return [sum(c.get_facecolor()[:3]) for c in circles if c.get_facecolor()[3] > 0]

    def rings(axes: Any) -> int:
        circles = [a for a in axes.get_children() if type(a).__name__ == "Circle"]
        return sum(c.get_facecolor()[3] == 0 for c in circles)

    first, others = figure.axes[0], figure.axes[1:3]
    assert min(faces(first)) < 0.5 and min(min(faces(axes)) for axes in others) > 2.5
    assert [rings(axes) for axes in (first, *others)] == [1, 0, 0]
    assert rings(plain.axes[0]) == 0 and len(figure.axes) == len(plain.axes) + 1
    assert "C" in [text.get_text() for text in first.texts], "colours name no element any more"
    assert any("eV/Å" in text.get_text() for text in figure.texts)
    arrays["gallery_test_distance"] = distance[:-1]
    with pytest.raises(DataError, match="'gallery_test_distance' has shape"):
        gallery_figure(calibrated_metrics, arrays)
