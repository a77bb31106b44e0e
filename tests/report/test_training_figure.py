"""Learning curves: what was logged is drawn where it belongs, and only where it exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from egnn_prune.report import write_report
from egnn_prune.report.run.training import load_curves, training_figure


@pytest.fixture
def curves(run_folder: Path) -> Path:
    folder = run_folder / "curves"
    folder.mkdir()
    (folder / "dense.csv").write_text("step,seconds,val_mae\n10,1.0,0.5\n20,2.0,0.25\n")
    (folder / "pruned.csv").write_text("step,seconds,val_mae\n5,0.5,0.75\n")
    return run_folder


def test_fine_tuning_continues_the_dense_line(curves, metrics):
    figure = training_figure(metrics, load_curves(curves))
    dense, pruned = figure.axes[0].lines
    assert dense.get_xydata().tolist() == [[10, 0.5], [20, 0.25]]
    assert pruned.get_xydata().tolist() == [[20, 0.25], [25, 0.75]]
    assert len(figure.axes) == 1  # nothing was learned about forces


def test_forces_get_their_own_panel(curves, metrics):
    (curves / "curves/dense.csv").write_text("step,seconds,val_mae,val_force_mae\n10,1,0.5,0.1\n")
    figure = training_figure(metrics, load_curves(curves))
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    assert "forces" in figure.axes[1].get_title("left")


def test_the_page_shows_them_where_a_run_kept_them(curves):
    assert "Learning curves." in write_report(curves).read_text()
    for path in (curves / "curves").iterdir():
        path.unlink()
    (curves / "training.png").unlink()
    assert "Learning curves." not in write_report(curves).read_text()
    assert not (curves / "training.png").exists()


@pytest.mark.parametrize("text", ["", "step,val_mae\n", "step,val_mae\n1,x\n", "a,b\n1,2\n"])
def test_a_broken_curve_is_named(curves, text):
    (curves / "curves/dense.csv").write_text(text)
    with pytest.raises(ValueError, match=r"dense\.csv is no learning curve"):
        load_curves(curves)
