"""Nothing in a file of a stranger is run: no pickles, no YAML objects, no targets of Hydra."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import egnn_prune
from egnn_prune.deployment.trained_model import TrainedModel

PACKAGE = Path(egnn_prune.__file__).parent
MODEL = Path(__file__).parent / "deployment/gallery/format2/rigidity_robust.safetensors"
#: Calls that run what a file says.
RUNNING = {
    *("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval"),
    *(
        "exec",
        "hydra.utils.instantiate",
        "instantiate",
        "torch.jit.load",
        "torch.export.load",
        "joblib.load",
        "dill.load",
    ),
}
#: MACE's own files are pickles, read only when their user says that they are trusted
#: (``EGNN_PRUNE_TRUST_PICKLES``). Exported programs are there to be run, by ``ExportedCalculator``.
TRUSTED = {"adapters/mace.py", "deployment/program_file.py"}


def calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_no_call_runs_what_a_file_says():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for call in calls(path):
            name, given = (
                ast.unparse(call.func),
                {k.arg: ast.unparse(k.value) for k in call.keywords},
            )
            wrong = name in RUNNING or given.get("allow_pickle") == "True"
            if name == "torch.load" or given.get("weights_only"):
                wrong |= given.get("weights_only") != "True"
            if name == "np.load":
                wrong |= given.get("allow_pickle") != "False"
            if wrong:
                found[str(path.relative_to(PACKAGE))] = name
    assert set(found) <= TRUSTED, found


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def test_a_model_folder_is_its_safetensors_file(tmp_path):
    (tmp_path / "pruned.safetensors").write_bytes(MODEL.read_bytes())
    for name in ("model.pt", "dense.ckpt", "stages.pkl", "fit.ckpt"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    for name in ("config.yaml", "run.json", "metrics.json", ".hydra.yaml"):
        (tmp_path / name).write_text(
            "!!python/object/apply:pytest.fail [yaml]\n_target_: pytest.fail\nmsg: hydra\n"
        )
    assert TrainedModel.load(tmp_path, device="cpu").unit == "eV"
