"""The script that made the embedded data makes it again."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

DATASETS = Path(__file__).parents[2] / "datasets"


@pytest.mark.slow
def test_regeneration_matches_the_shipped_file():
    missing = [name for name in ("rdkit", "tblite") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"regenerating the data needs the extra 'data': no {' and no '.join(missing)}")
    command = [DATASETS / "make_xtb_molecules.py", "--check", DATASETS / "xtb_molecules.npz"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same within 1e-6" in done.stdout
