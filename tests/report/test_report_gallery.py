"""The gallery: right molecules, right numbers, and clear words about broken arrays."""

from __future__ import annotations

import numpy as np
import pytest
from molecules import MOLECULES

from egnn_prune.report.run.error_bars import error_bars
from egnn_prune.report.run.gallery import exhibits, gallery_figure, gallery_notes, summary


def test_exhibits(calibrated_predictions):
    arrays = calibrated_predictions
    shown = exhibits(arrays, "test")
    assert [each.label for each in shown] == list(reversed(MOLECULES))
    assert shown[0].std == arrays["test_pruned_std_calibrated"].max()
    row = int(np.argmax(arrays["test_pruned_std"]))
    assert shown[0].mean == pytest.approx(arrays["test_pruned_mean"][row])
    assert shown[0].target == arrays["test_target"][row]
    assert shown[0].z.tolist() == [6, 7, 1]
    assert shown[0].off == pytest.approx(
        abs(arrays["test_pruned_mean"][row] - arrays["test_target"][row]) / shown[0].std
    )


def test_sentence(calibrated_metrics, calibrated_predictions):
    rows = calibrated_predictions["gallery_test_row"].astype(int)
    target = calibrated_predictions["test_target"]
    std = calibrated_predictions["test_pruned_std_calibrated"][rows]
    mean = calibrated_predictions["test_pruned_mean"] = target + 0.1
    mean[rows] = target[rows] + std * [1.9, -2.1, 0.5]
    own = np.sqrt(np.mean((mean - target)[rows] ** 2))
    ratio = own / np.sqrt(np.mean((mean - target) ** 2))
    first, second = gallery_notes(calibrated_metrics, calibrated_predictions)
    assert first.startswith(
        "test: for 2 of the 3 most uncertain molecules the truth lies within 2 "
    )
    assert f"{own:.3g} eV, {ratio:.1f} times" in first
    assert second.startswith("OOD: ")


def test_figure(calibrated_metrics, calibrated_predictions):
    target = calibrated_predictions["test_target"]
    rows = calibrated_predictions["gallery_test_row"].astype(int)
    calibrated_predictions["test_pruned_mean"][rows] = target[rows] + [0.0, 0.0, 100.0]
    calibrated_predictions["gallery_test_smiles"] = np.array(["$x^2$", "", "C" * 60])
    figure = gallery_figure(calibrated_metrics, calibrated_predictions)
    assert len(figure.axes) == 6
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    flat = [text for panel in texts for text in panel]
    assert any(text.endswith("σ off ✗") for text in texts[0]), "the wrong one is said to be wrong"
    assert any("0.0σ off ✓" in text for text in texts[1])
    assert "CH4" in flat, "no SMILES: the formula"
    assert "$x^2$" in flat
    assert "C" * 21 + "…" in flat
    limits = {axes.get_xlim() for axes in figure.axes}
    assert len(limits) == 1, "one scale"
    boxes = [axes.get_position() for axes in figure.axes]
    width, height = figure.get_size_inches()
    for box, axes in zip(boxes, figure.axes, strict=True):
        low, high = axes.get_ylim()
        left, right = axes.get_xlim()
        across, up = box.width * width / (right - left), box.height * height / (high - low)
        assert across == pytest.approx(up), "an atom is round"


def test_texts_do_not_overlap(calibrated_metrics, calibrated_predictions):
    for split in ("test", "ood"):  # the longest that fits
        calibrated_predictions[f"gallery_{split}_smiles"] = np.array(["NC(=O)CN" * 4] * 3)
    figure = gallery_figure(calibrated_metrics, calibrated_predictions)
    figure.canvas.draw()
    texts = [text for axes in figure.axes for text in axes.texts if len(text.get_text()) > 2]
    boxes = [text.get_window_extent() for text in [*texts, *figure.texts]]
    assert len(boxes) == 6 * 3 + 3
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert 0 <= box.x0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


def test_half_a_gallery_and_none(calibrated_metrics, calibrated_predictions, predictions):
    ood = [key for key in calibrated_predictions if key.startswith("gallery_ood")]
    for key in ood:
        del calibrated_predictions[key]
    assert len(gallery_figure(calibrated_metrics, calibrated_predictions).axes) == 3
    del calibrated_predictions["gallery_test_row"]
    assert gallery_figure(calibrated_metrics, calibrated_predictions) is None
    assert gallery_notes(calibrated_metrics, calibrated_predictions) == []


def test_no_error_bar(calibrated_metrics, calibrated_predictions):
    calibrated_predictions["ood_pruned_std_calibrated"][:] = 0
    calibrated_predictions["test_pruned_std_calibrated"][:] = 0
    figure = gallery_figure(calibrated_metrics, calibrated_predictions)
    assert any("no error bar" in text.get_text() for text in figure.axes[0].texts)
    figure.canvas.draw()
    bars = error_bars(calibrated_predictions, "test", "pruned")
    shown = exhibits(calibrated_predictions, "test")
    assert "for 0 of the 3" in summary(shown, bars, "test", "eV")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("z", None, "'gallery_test_z' is missing"),
        ("z", np.ones(4), "counts 11 atoms, but 'gallery_test_z' has shape"),
        ("pos", np.zeros((11, 2)), r"'gallery_test_pos' \(11, 2\)"),
        ("atoms", np.array([3, 5]), "'gallery_test_atoms' needs a positive number per row"),
        ("atoms", np.array([11, 0, 0]), "'gallery_test_atoms' needs a positive number per row"),
        ("row", np.array([0, 1, 600]), "'gallery_test_row' points outside of the 600 molecules"),
        ("row", np.array([0, 1, -1]), "'gallery_test_row' points outside"),
    ],
)
def test_broken_arrays(calibrated_metrics, calibrated_predictions, key, value, message):
    if value is None:
        del calibrated_predictions[f"gallery_test_{key}"]
    else:
        calibrated_predictions[f"gallery_test_{key}"] = value
    with pytest.raises(ValueError, match=message):
        gallery_figure(calibrated_metrics, calibrated_predictions)
