"""What the core of the package can do without its extras, and what it says where one is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import ase.io
import pytest
from trained_models import ethanol, trained

import egnn_prune
from egnn_prune import save, training
from egnn_prune.errors import ConfigError, MissingExtraError
from egnn_prune.system.lazy_imports import EXTRAS, naming_extras

TESTS = Path(__file__).parent
ROOT = TESTS.parent
#: Which libraries of an extra were imported, other than by torch-geometric itself.
HEAVY = """
import sys, torch, torch_geometric
theirs = set(sys.modules)
def heavy():
    names = {names} - theirs
    return sorted(names & set(sys.modules))
""".format(names={*EXTRAS, "torch_pruning", "pytorch_lightning"})


def python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, as nothing here has been imported there."""
    path = os.pathsep.join([str(ROOT), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_predicting_imports_no_extra(tmp_path):
    save(trained(), tmp_path / "model.safetensors", target="energy", unit="eV")
    ase.io.write(tmp_path / "five.xyz", [ethanol(0.05, seed) for seed in range(5)])
    done = python(
        f"""{HEAVY}
import egnn_prune.ase
assert heavy() == [] and "ase.io" not in sys.modules, heavy()
from trained_models import ethanol
model, script, file, out = sys.argv[1:]
egnn_prune.load(model)
atoms = ethanol()
atoms.calc = egnn_prune.ase.PrunedCalculator(model)
assert atoms.get_forces().shape == (9, 3)
import runpy
sys.argv[1:] = [model, file, "--out", out]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert not end.code
assert heavy() == [], heavy()
""",
        tmp_path / "model.safetensors",
        ROOT / "scripts" / "predict.py",
        tmp_path / "five.xyz",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 6


def test_pruning_and_compacting_import_no_extra_and_fine_tuning_names_its_own():
    done = python(
        f"""{HEAVY}
from torch_geometric.data import Batch
import egnn_prune
from egnn_prune.ase.structures import graph_of
from trained_models import ethanol, network
graphs = [graph_of(ethanol(0.05, seed)) for seed in range(4)]
for graph in graphs:
    graph.y = torch.zeros(1, dtype=graph.pos.dtype)
batches = [Batch.from_data_list(graphs)]
model = network(graphs[0].pos.dtype)
pruned = egnn_prune.prune(model, sparsity=0.5, data=batches)
small = egnn_prune.compact(pruned)
count = lambda module: sum(p.numel() for p in module.parameters())
assert count(small) < count(model)
assert heavy() == [], heavy()

sys.modules["lightning"] = None
try:
    egnn_prune.fine_tune(pruned, batches, steps=1)
except ImportError as error:
    print(error)
""",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "this needs the package lightning; run `pip install 'egnn_prune[train]'`\n"
    )


def test_a_command_without_its_extra_ends_in_one_sentence(tmp_path):
    done = python(
        """
import runpy, sys
sys.modules["matplotlib"] = None
sys.argv = [sys.argv[1], "out=" + sys.argv[2]]
runpy.run_path(sys.argv[0], run_name="__main__")
""",
        ROOT / "scripts" / "train_pruned_egnn.py",
        tmp_path / "run",
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "error: this needs the package matplotlib; run `pip install 'egnn_prune[report]'`\n"
    )


@pytest.mark.parametrize("library", EXTRAS)
def test_the_extra_that_is_named_brings_the_library(library):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["optional-dependencies"][EXTRAS[library]]
    listed = {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}
    named = {"omegaconf": "hydra-core", "torch_sim": "torch-sim-atomistic"}  # not always installed
    assert (named.get(library) or packages_distributions()[library][0].lower()) in listed


def test_what_no_extra_brings_stays_an_ordinary_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ModuleNotFoundError, match="torch_pruning") as caught, naming_extras():
        import torch_pruning  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_a_missing_extra_is_both_wrong_input_and_a_failed_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for kind in (ConfigError, ImportError):
        with pytest.raises(kind, match=r"^images need the package torchvision; run"):
            with naming_extras("images need"):
                import torchvision  # noqa: F401
    # the hub's library comes with two extras
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"egnn_prune\[vision\]"):
        with naming_extras("images need", "vision"):
            import huggingface_hub  # noqa: F401


@pytest.mark.parametrize("package", [egnn_prune, training])
def test_lazy_packages_have_all_their_names_and_no_others(package):
    assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018
