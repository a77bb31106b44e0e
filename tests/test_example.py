"""The example runs as written, and its network is one that nobody prepared for this package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_prune_your_own_gnn(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "prune_your_own_gnn.py")]
    options = ["--molecules=64", "--steps=4", "--tuning=2", "--width=10"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command + options, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "assert_prunable: passed" in done.stdout
    assert "7 groups, 35 of 70 channels kept" in done.stdout
    rows = re.findall(r"^(dense|without 50%|the same)\D+(\d+) +([\d,]+)", done.stdout, re.M)
    assert [(name, int(steps)) for name, steps, _ in rows] == [
        ("dense", 4),
        ("without 50%", 4),
        ("the same", 6),
    ]
    dense, at_once, tuned = (int(weights.replace(",", "")) for *_, weights in rows)
    assert dense > 1.3 * tuned and at_once == tuned
    assert not list(tmp_path.iterdir())
