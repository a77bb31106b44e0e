"""The notebooks of docs/tutorials: what is stored was computed, and can be computed again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells(path: Path) -> list[dict[str, Any]]:
    """Those with code."""
    found = json.loads(path.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


@each_notebook
def test_what_is_stored_was_computed_in_order(path):
    counts = [cell["execution_count"] for cell in cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "run `make tutorials`"


@each_notebook
def test_outputs_are_small_and_say_nothing_of_the_machine(path):
    text = path.read_text()
    assert len(text) < 500_000
    kinds = {output["output_type"] for cell in cells(path) for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data"}  # no errors, no results that nobody printed
    assert '"stderr"' not in text, "warnings or progress bars"
    assert not re.search(r"(/home|/root|/tmp|/work|site-packages)/", text)


@pytest.mark.slow
@each_notebook
def test_it_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")  # set by the notebook, too: here it is put back
    if path.stem == "first_potential":
        pytest.importorskip("sevenn", reason="SevenNet-0 comes with the extra sevennet")
    matplotlib.use("agg")
    known: dict[str, Any] = {"__name__": "__main__"}
    threads = torch.get_num_threads()
    try:
        for cell in cells(path):
            exec(compile("".join(cell["source"]), path.name, "exec"), known)
    finally:
        torch.set_num_threads(threads)
        matplotlib.pyplot.close("all")
    stored = "".join(
        "".join(output["text"])
        for cell in cells(path)
        for output in cell["outputs"]
        if output["output_type"] == "stream"
    )
    assert without_numbers(capsys.readouterr().out) == without_numbers(stored)


def without_numbers(text: str) -> list[str]:
    """What is said, whatever the processor makes of the numbers in it, or the clock of a time."""
    measured = re.compile("faster|dense time|stretched")
    lines = [line for line in text.splitlines() if not measured.search(line)]
    return [" ".join(re.sub(r"[-+]?\d[\d.,e+-]*", "#", line).split()) for line in lines]
