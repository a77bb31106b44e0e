"""Who may import whom (CONTRIBUTING.md, "Layout"): read from the source, nothing is run."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "egnn_prune"
SHARED = {"prediction", "channels", "errors", "files"}
ALLOWED = {
    "models": SHARED | {"models"},
    "pruning": SHARED | {"pruning"},
    "uncertainty": SHARED | {"uncertainty"},
    "data": SHARED | {"data", "models"},
    "selection": SHARED | {"selection"},
    "report": SHARED | {"report"},
    "vision": SHARED
    | {"vision", "data", "training", "selection", "report", "pruning", "uncertainty"}
    | {"configs", "studies", "run_folder", "device", "provenance"},
    "training": SHARED | {"training", "models", "pruning", "uncertainty", "data", "configs"},
}
GRAPH_LIBRARIES = {"torch_geometric", "lightning", "hydra", "ase", "e3nn"}


def imports(folder: str) -> set[tuple[str, str]]:
    """``(file, imported module)`` of every import below a folder of the package."""
    found = set()
    for path in (PACKAGE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found |= {(str(path.relative_to(PACKAGE)), name) for name in names}
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_it_may_know(folder):
    own = {(f, n.split(".")[1]) for f, n in imports(folder) if n.startswith("egnn_prune.")}
    assert own, f"no imports found below {folder}: has it moved?"
    assert {(f, n) for f, n in own if n not in ALLOWED[folder]} == set()


@pytest.mark.parametrize("folder", ["pruning", "uncertainty"])
def test_pruning_and_uncertainty_know_torch_only(folder):
    outside = {(f, n.split(".")[0]) for f, n in imports(folder)}
    assert {(f, n) for f, n in outside if n in GRAPH_LIBRARIES} == set()


def test_images_bring_no_pruning_code():
    """What holds, masks or prunes weights is the engine's; experiments call it."""
    own = {(f, n) for f, n in imports("vision") if "parametrize" in n or "torch_pruning" in n}
    assert own | {(f, n) for f, n in imports("vision") if n.startswith("torch.nn.utils")} == set()
    words = ("register_parametrization", "register_forward", "register_hook", ".masked_fill")
    found = {
        (path.name, word)
        for path in (PACKAGE / "vision").rglob("*.py")
        for word in words
        if word in path.read_text()
    }
    assert found == set()
