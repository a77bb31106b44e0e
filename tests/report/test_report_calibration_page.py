"""The calibration section: panels, sentences computed from the run, reasons for leaving it out."""

from __future__ import annotations

import numpy as np
import pytest

from egnn_prune.report.run.calibration_figure import calibration_figure
from egnn_prune.report.run.calibration_page import calibration_section


def test_panels(calibrated_metrics, calibrated_predictions):
    figure = calibration_figure(calibrated_metrics, calibrated_predictions)
    assert len(figure.axes) == 6
    for row in (figure.axes[:3], figure.axes[3:]):
        # a reference line, then two models before and after; sparsification has two oracles more
        assert [len(axes.lines) for axes in row] == [5, 5, 7]
    test, ood = figure.axes[0], figure.axes[3]
    assert test.get_xlim() == test.get_ylim() == ood.get_xlim()
    assert [text.get_text() for text in test.texts] == ["ENCE", "0.200 → 0.100", "0.320 → 0.100"]
    assert [text.get_text() for text in ood.texts] == ["ENCE", "0.300 → 0.150", "0.480 → 0.150"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["AUSE", "0.400", "0.400"]
    before, after = test.lines[1], test.lines[2]
    np.testing.assert_allclose(after.get_xdata(), 2 * before.get_xdata())
    np.testing.assert_allclose(after.get_ydata(), before.get_ydata())
    for axes in figure.axes[2::3]:  # a rescaled error bar ranks as before
        np.testing.assert_allclose(axes.lines[2].get_ydata(), axes.lines[3].get_ydata())


def test_panels_without_ood_and_recalibration(calibrated_metrics, calibrated_predictions):
    kept = {
        key: value
        for key, value in calibrated_predictions.items()
        if not key.startswith("ood") and not key.endswith("calibrated")
    }
    for model in calibrated_metrics["models"].values():
        for key in [key for key in model if key.endswith("calibrated")]:
            model[key] = None
    figure = calibration_figure(calibrated_metrics, kept)
    assert [len(axes.lines) for axes in figure.axes] == [3, 3, 5]
    assert figure.axes[0].texts[1].get_text() == "0.200"
    (legend,) = figure.legends
    assert "calibrated" not in [text.get_text() for text in legend.get_texts()]
    section = calibration_section(calibrated_metrics, kept)
    assert section.missing is None
    assert any("no calibrated error bars" in sentence for sentence in section.verdict)
    assert not any("On OOD" in text for _, text in section.panels)
    assert not any("→" in text for _, text in section.panels)


def test_texts_do_not_overlap(calibrated_metrics, calibrated_predictions):
    figure = calibration_figure(calibrated_metrics, calibrated_predictions)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        boxes += [axes.title.get_window_extent(), axes._left_title.get_window_extent()]
        boxes += [axes.xaxis.label.get_window_extent(), axes.yaxis.label.get_window_extent()]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    boxes = [box for box in boxes if box.width > 1 and box.height > 1]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert 0 <= box.x0 and box.x1 <= figure.bbox.width


def test_sentences_are_computed(calibrated_metrics, calibrated_predictions):
    arrays = calibrated_predictions
    for name, factor in (("dense", 1.0), ("pruned", 2.0)):
        for split in ("test", "ood"):
            std = np.linspace(0.1, 0.2, arrays[f"{split}_target"].size)
            arrays[f"{split}_{name}_std"] = std
            arrays[f"{split}_{name}_std_calibrated"] = factor * std
            # nine in ten errors are one error bar long, one in ten is three
            size = np.where(np.arange(std.size) % 10 == 0, 3.0, 1.0)
            arrays[f"{split}_{name}_mean"] = arrays[f"{split}_target"] + factor * size * std
    section = calibration_section(calibrated_metrics, arrays)
    text = dict(section.panels)
    assert list(text) == ["Reliability", "Coverage", "Sparsification"]
    assert "On test: dense 1.3x, pruned 2.7x → 1.3x." in text["Reliability"]
    # 2 error bars are outside of the interval of 1.645
    assert "On test: dense 90 %, pruned 0 % → 90 %." in text["Coverage"]
    assert "probability dense 0.80, pruned 0.80" in text["Sparsification"]
    question, mended = section.verdict[:2]
    assert "ENCE) by +60.0 % [+30.0, +90.0] and the test MAE by +2.1 % [+0.4, +3.8]" in question
    assert question.endswith("in this run calibration suffered more than accuracy.")
    assert "by +0.0 % [-20.0, +20.0] from" in mended and "by -50.0 % [-70.0, -30.0]" in mended
    assert any("“variance”, fitted on 500 molecules" in sentence for sentence in section.verdict)


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ({"calibration_harm": [-0.1, 0.6]}, "which of the two suffered more cannot be told"),
        ({"ence_factor": [-0.1, 0.9]}, "which of the two suffered more cannot be told"),
        ({"calibration_harm": [-0.6, -0.2]}, "accuracy suffered more than calibration"),
        (
            {"calibration_harm": [-0.6, -0.2], "test_mae": [-0.1, 0.3]},
            "which of the two suffered more cannot be told",
        ),
        ({"ence_factor": [-0.9, -0.1], "test_mae": [-0.2, -0.1]}, "in this run neither suffered"),
    ],
)
def test_a_verdict_needs_its_intervals(calibrated_metrics, calibrated_predictions, ends, verdict):
    calibrated_metrics["intervals"] |= ends
    section = calibration_section(calibrated_metrics, calibrated_predictions)
    assert verdict in section.verdict[0]


def test_forces_are_judged_first(calibrated_metrics, calibrated_predictions):
    for model in calibrated_metrics["models"].values():
        model["test_force_mae"] = 0.1
    calibrated_metrics["models"]["pruned"]["test_force_mae"] = 0.1037
    for ends, verdict in (
        ([0.01, 0.06], "+3.7 % [+1.0, +6.0]: forces are less accurate."),
        ([-0.02, 0.06], "[-2.0, +6.0]: whether forces became more or less accurate cannot be told"),
        ([-0.06, -0.02], "forces are more accurate."),
    ):
        calibrated_metrics["intervals"]["test_force_mae"] = ends
        first, second = calibration_section(calibrated_metrics, calibrated_predictions).verdict[:2]
        assert verdict in first and "test energy MAE" in second


def test_sparsification_sentence(calibrated_metrics, calibrated_predictions):
    """The most uncertain fifth has error 3, the others 1."""
    for split in ("test", "ood"):
        n = calibrated_predictions[f"{split}_target"].size
        std = np.linspace(1, 2, n)
        error = np.where(np.arange(n) >= 0.8 * n, 3.0, 1.0)
        for name in ("dense", "pruned"):
            calibrated_predictions[f"{split}_{name}_std_calibrated"] = std
            calibrated_predictions[f"{split}_{name}_mean"] = (
                calibrated_predictions[f"{split}_target"] + error
            )
    text = dict(calibration_section(calibrated_metrics, calibrated_predictions).panels)
    drop = 100 * (1 / np.sqrt(0.8 + 0.2 * 9) - 1)
    assert f"On test: dense {drop:.0f} % (oracle {drop:.0f} %)" in text["Sparsification"]


def test_table_holds_both_splits(calibrated_metrics, calibrated_predictions):
    rows = {
        row.key: row for row in calibration_section(calibrated_metrics, calibrated_predictions).rows
    }
    assert {"nll", "ence", "crps", "coverage_90", "ause", "ood_auroc", "ood_ence"} <= set(rows)
    assert rows["ood_coverage_90"].texts["pruned"] == "0.756 → 0.895"
    assert rows["ence"].change == "+0.120 → +0.000"
    assert rows["ence"].better is None


def test_left_out(metrics, predictions, calibrated_metrics):
    for model in calibrated_metrics["models"].values():
        model["ence"] = model["ence_calibrated"] = None
    assert "written before calibration" in calibration_section(metrics, predictions).missing
    calibrated_metrics["models"]["dense"]["ence"] = 0.1
    assert calibration_section(calibrated_metrics, predictions).missing is None
    flat = predictions | {"test_dense_std": np.zeros_like(predictions["test_target"])}
    assert "no error bars" in calibration_section(calibrated_metrics, flat).missing
    assert "no test" in calibration_section(calibrated_metrics, {}).missing


def test_wrong_length(calibrated_metrics, calibrated_predictions):
    calibrated_predictions["ood_dense_std_calibrated"] = np.ones(3)
    with pytest.raises(ValueError, match="'ood_dense_std_calibrated' has shape"):
        calibration_figure(calibrated_metrics, calibrated_predictions)
