"""Who imports whom (CONTRIBUTING.md, "Layout"): read from the source, nothing is run."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "egnn_prune"
#: Every room of the package, the top first: a room may import from rooms in lower lines only, and
#: within a line from those that stand further right.
LAYERS = """
    cli
    bench device_checks
    studies
    vision pipeline
    audit testing api ase
    evaluation training
    deployment
    adapters pruning uncertainty selection models report runs data
    graphs prediction channels configs system
    errors
"""
#: Modules of the root that only hand on names, and may know where these live.
HAND_ON = {"__init__", "__main__", "checkpoint", "export", "hub", "inference", "torchsim"}
#: Rooms that may know only these.
NARROW = {
    "pruning": {"errors", "channels", "system"},
    "uncertainty": {"errors", "channels", "prediction", "system"},
    "selection": {"errors", "channels"},
    "report": {"errors", "system"},
    "models": {"errors", "channels", "prediction", "graphs", "system"},
}
#: Names handed on for users: ``egnn_prune.pruning.TracedNetwork`` lives with the adapters,
#: ``egnn_prune.adapters.calculator`` with the other calculators.
EXCEPTIONS = {("pruning/__init__.py", "adapters"), ("adapters/__init__.py", "ase")}
GRAPH_LIBRARIES = {"torch_geometric", "lightning", "hydra", "ase", "e3nn"}


def room(path: Path) -> str:
    """The folder, or the module, of the package's root that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module == "egnn_prune"
            names |= {f"egnn_prune.{a.name}" for a in node.names} if whole else {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def arrows() -> set[tuple[str, str]]:
    """``(file, room)``: whom each file imports of the package's other rooms.

    A public name of the root (``from egnn_prune import compact``) counts as a room above all.
    """
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for name in imports(path):
            _, _, rest = name.partition("egnn_prune.")
            if rest and (target := rest.split(".")[0]) != room(path):
                found.add((str(path.relative_to(PACKAGE)), target))
    return {(file, to) for file, to in found - EXCEPTIONS if to != "__version__"}


def test_every_room_has_its_place():
    rooms = {room(path) for path in PACKAGE.rglob("*.py")} - HAND_ON
    assert rooms == set(LAYERS.split())


def test_imports_go_down_only():
    rank = {
        name: (i, j)
        for i, line in enumerate(LAYERS.strip().split("\n"))
        for j, name in enumerate(line.split())
    }
    up = {
        (file, target)
        for file, target in arrows()
        if (source := room(PACKAGE / file)) not in HAND_ON
        and rank.get(target, (-1, 0)) <= rank[source]
    }
    assert up == set()


@pytest.mark.parametrize("name", NARROW)
def test_a_room_imports_only_what_it_may_know(name):
    known = {(file, target) for file, target in arrows() if room(PACKAGE / file) == name}
    assert known, f"no imports found below {name}: has it moved?"
    assert {(file, target) for file, target in known if target not in NARROW[name]} == set()


def test_production_code_imports_no_assertions():
    allowed = {"testing", "device_checks", "bench"}
    assert {f for f, t in arrows() if t == "testing" and room(PACKAGE / f) not in allowed} == set()


def test_modules_import_no_circle_within_a_room():
    """Importing any module first must work: no module needs itself to be imported."""
    graph: dict[str, set[str]] = {}
    modules = {
        ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p
        for p in PACKAGE.rglob("*.py")
        if p.name != "__init__.py"
    }
    for name, path in modules.items():
        graph[name] = {m for m in imports(path) if m in modules}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", ["pruning", "uncertainty"])
def test_pruning_and_uncertainty_know_torch_only(folder):
    files = (PACKAGE / folder).rglob("*.py")
    found = {(path.name, name.split(".")[0]) for path in files for name in imports(path)}
    assert {(f, n) for f, n in found if n in GRAPH_LIBRARIES} == set()


def test_images_bring_no_pruning_code():
    """What holds, masks or prunes weights is the engine's; experiments call it."""
    found = set()
    words = ("register_parametrization", "register_forward", "register_hook", ".masked_fill")
    for path in (PACKAGE / "vision").rglob("*.py"):
        strange = {n for n in imports(path) if "parametrize" in n or "torch_pruning" in n}
        strange |= {n for n in imports(path) if n.startswith("torch.nn.utils")}
        found |= {(path.name, n) for n in strange | {w for w in words if w in path.read_text()}}
    assert found == set()
