"""What the documentation says can be done: its links lead somewhere, its commands and code run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from small_specialist import specialist
from tiny_teacher import tiny_teacher

from egnn_prune import adapters, data, save
from egnn_prune.cli.arguments import Tool
from egnn_prune.cli.jobs import Job
from egnn_prune.cli.registry import COMMANDS, NAME
from egnn_prune.configs.settings import Settings, described
from egnn_prune.models import EGNNOptions, PropertyModel
from egnn_prune.training import PruningCallback
from egnn_prune.uncertainty import MCDropout, SinglePass, VarianceScaling, calibrate
from egnn_prune.vision.settings import VisionSettings

ROOT = Path(__file__).parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "datasets/README.md")
PAGES = [ROOT / name for name in OUTSIDE]
PAGES += sorted((ROOT / "docs").glob("*.md"))
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


# ----------------------------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


# -------------------------------------------------------------------------------- commands


def commands(page: Path) -> Iterator[str]:
    """Commands in blocks and in the text, each on one line, without comments."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for b in blocks for line in b.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^    (.*scripts/.*)$", text, re.MULTILINE)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_code(text))]
    for line in lines:
        if re.match(r"(OMP_NUM_THREADS=\d+ )?(\.venv/bin/)?(python|make|egnn-prune)\b", line):
            yield line.partition("  #")[0].strip()


def check_script(script: str, arguments: list[str], load_script, monkeypatch) -> None:
    """Hydra or argparse knows every argument, and every value has its setting's type."""
    module = load_script(script.removesuffix(".py"))
    if isinstance(module.main, Job | Tool):
        module.main.check(arguments)
    else:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        module.parse()  # argparse exits where it does not know one


def check_command(words: list[str]) -> None:
    """The same for ``egnn-prune ...``; its own options stand before any command."""
    length = 2 if words[:1] == ["study"] else 1
    if words and not words[0].startswith("-"):
        COMMANDS[" ".join(words[:length])].load().check(words[length:])


@each_page
def test_commands_can_be_given(page, load_script, monkeypatch):
    makefile = (ROOT / "Makefile").read_text()
    for command in commands(page):
        words = shlex.split(command)
        while "=" in words[0] and "/" not in words[0]:
            words.pop(0)
        if words[0].endswith("python"):
            if len(words) > 1 and words[1].startswith("scripts/"):
                check_script(words[1].removeprefix("scripts/"), words[2:], load_script, monkeypatch)
        if words[0].endswith(NAME):
            check_command(words[1:])
        for target in words[1:] if words[0] == "make" else ():
            if target.startswith("ARGS=") and words[1] in ("train", "compare"):
                COMMANDS[words[1]].load().check(shlex.split(target.removeprefix("ARGS=")))
            elif "=" not in target:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), command


SECTIONS = "data|model|uncertainty|selection|pruning|training|finetuning|network"


@each_page
def test_settings_that_are_named_exist(page):
    known = {name for schema in (Settings, VisionSettings) for name, _, _ in described(schema())}
    for code in re.findall(r"`([^`]+)`", without_code(page.read_text())):
        for name in re.findall(rf"(?<![\w./])((?:{SECTIONS})\.[a-z_]+)=", code):
            assert name in known, code


@each_page
def test_files_that_are_named_exist(page):
    for code in re.findall(r"`([^`\s]+)`", without_code(page.read_text())):
        if re.match(r"(scripts|tests|docs|figures|datasets|egnn_prune)/[\w/.]+\.\w+$", code):
            assert "NAME" in code or (ROOT / code).exists(), code


# ------------------------------------------------------------------------------------ code


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def molecules():
    return data.load("xtb").with_cutoff(4.0)


def network(molecules, **options: object) -> PropertyModel:
    torch.manual_seed(0)
    return PropertyModel.build(
        molecules.elements, hidden=8, layers=2, options=EGNNOptions(radial=8, cutoff=4.0), **options
    )


@pytest.fixture(scope="module")
def runs(molecules, tmp_path_factory) -> Path:
    """A folder with the runs that the examples read, as tiny networks that nobody trained."""
    from torch_geometric.data import Batch

    folder = tmp_path_factory.mktemp("examples")
    val = Batch.from_data_list(molecules.split("val")[:40])
    about = {"target": "energy", "unit": "eV", "units": {"pos": "Angstrom"}}
    about["validation_epistemic_std"] = {"q99": 100.0, "max": 200.0}
    for name, method in {
        "demo": MCDropout(network(molecules, readout_dropout=0.1), samples=3),
        "ethanol": SinglePass(network(molecules, members=2)),
    }.items():
        (folder / "runs" / name).mkdir(parents=True)
        for which in ("dense", "pruned"):
            path = folder / "runs" / name / f"{which}.safetensors"
            save(calibrate(method, [val], VarianceScaling()), path, **about)
    return folder


def run_blocks(codes: list[str], known: dict[str, object]) -> dict[str, object]:
    """All blocks one after another, in one namespace, as a reader would type them."""
    for code in codes:
        exec(compile(code, "example", "exec"), known)
    return known


def test_the_readme(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    codes = [code.replace("steps=100", "steps=5") for code in blocks(ROOT / "README.md")]
    assert len(codes) == 2
    known = run_blocks(codes, {})
    assert known["small"] is not known["pruned"] and known["forces"].shape == (9, 3)
    assert float(known["error_bar"]) > 0
    assert "kept" in capsys.readouterr().out


def test_the_page_on_the_main_job(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    page = ROOT / "docs" / "main-job.md"
    known = run_blocks([code.replace("steps=100", "steps=5") for code in blocks(page)], {})
    assert known["forces"].shape == known["molecules"].pos.shape
    assert bool((known["low"] < known["high"]).all()) and known["small"] is not known["pruned"]
    assert "kept" in capsys.readouterr().out


def test_the_page_on_pruning(runs, molecules, monkeypatch):
    from torch_geometric.loader import DataLoader

    monkeypatch.chdir(runs)
    given = {"model": network(molecules), "loader": DataLoader(molecules.split("train")[:64], 32)}
    codes = [code.replace("steps=500", "steps=5") for code in blocks(ROOT / "docs" / "pruning.md")]
    assert isinstance(run_blocks(codes, given)["callback"], PruningCallback)


def test_the_page_on_uncertainty(runs, molecules, monkeypatch):
    from torch_geometric.data import Batch

    monkeypatch.chdir(runs)
    train, val, batch = (
        Batch.from_data_list(molecules.split(split)[:30]) for split in ("train", "val", "test")
    )
    given = {"train_batches": [train], "validation_batches": [val], "batch": batch}
    graphs = []  # with forces of some size, which these molecules have none of
    for graph in molecules.split("train")[:60]:
        graph.forces = torch.randn(len(graph.z), 3, generator=torch.Generator().manual_seed(0))
        graphs.append(graph)
    given |= {"train_graphs": graphs[:30], "validation_graphs": graphs[30:]}
    given["atoms"] = molecule("CH3CH2OH")
    known = run_blocks(blocks(ROOT / "docs" / "uncertainty.md"), given)
    assert bool((known["high"] > known["low"]).all())


def test_the_page_on_potentials(runs, monkeypatch):
    from ase.md.verlet import VelocityVerlet

    monkeypatch.chdir(runs)
    first, second, *_ = blocks(ROOT / "docs" / "potentials.md")
    known = run_blocks([first], {})
    known["dynamics"] = VelocityVerlet(known["atoms"], timestep=0.1)
    run_blocks([second.replace("20000", "3")], known)
    assert known["dynamics"].nsteps == 3


@pytest.mark.slow
def test_the_page_on_potentials_exports(runs, monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
    (tmp_path / "runs").symlink_to(runs / "runs")
    monkeypatch.chdir(tmp_path)
    known = run_blocks(blocks(ROOT / "docs" / "potentials.md")[2:], {})
    assert known["forces"].shape == (3, 3)


def test_the_page_on_specialising(tmp_path, monkeypatch):
    """A tiny teacher stands for SevenNet-0, and a network that nobody trained for the run."""
    codes = blocks(ROOT / "docs" / "specialising.md")
    assert len(codes) == 2
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    save(specialist(), folder / "specialised.safetensors", target="energy", unit="eV")
    monkeypatch.chdir(tmp_path)
    named = []
    monkeypatch.setattr(adapters, "load", lambda name, *_, **__: named.append(name) or teacher)
    teacher = tiny_teacher()
    known = run_blocks(codes[:1], {"atoms": molecule("CH3CH2OH")})
    assert named == ["7net-0"] and known["atoms"].get_forces().shape == (9, 3)
    assert len(known["small"].elements) == 3
    run_blocks(codes[1:], known)
    assert isinstance(known["atoms"].calc, known["SpecialistCalculator"])
    assert known["atoms"].get_forces().shape == (9, 3) and named == ["7net-0"] * 2


@pytest.mark.slow
def test_the_page_on_audits(runs, monkeypatch, tmp_path):
    """Nothing is compiled and nothing simulated, which take minutes."""
    (code,) = blocks(ROOT / "docs" / "audit.md")
    for long, short in {"(False, True)": "(False, False)", '"compiled"))': SHORT_AUDIT}.items():
        assert long in code
        code = code.replace(long, short)
    frames = []
    for k in range(6):
        frames.append(molecule("CH3CH2OH"))
        frames[-1].rattle(0.05, seed=k)
    (tmp_path / "runs").symlink_to(runs / "runs")
    monkeypatch.chdir(tmp_path)
    known = run_blocks([code], {"structures": frames})
    assert (tmp_path / "audit" / "audit.html").is_file() and known["report"].findings


SHORT_AUDIT = '"compiled"), md_steps=0, sizes=[])'


def test_the_page_on_your_own_data(tmp_path, monkeypatch, capsys):
    frames = []
    for k in range(20):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, seed=k)
        calculated = SinglePointCalculator(atoms, energy=float(k), forces=atoms.positions)
        atoms.calc = calculated
        frames.append(atoms)
    write(tmp_path / "structures.xyz", frames, format="extxyz")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "docs" / "own-data.md")
    known = run_blocks([code], {})
    assert known["data"].elements == [1, 6, 8]
    assert "'train': 16" in capsys.readouterr().out


def test_the_page_on_your_own_network(tmp_path, monkeypatch, capsys):
    codes = [c.replace("steps=20", "steps=2") for c in blocks(ROOT / "docs" / "own-network.md")]
    assert len(codes) == 7
    module = ModuleType("my_networks")  # where pickle finds the page's classes
    monkeypatch.setitem(sys.modules, "my_networks", module)
    monkeypatch.chdir(tmp_path)
    known = run_blocks(codes, vars(module))
    dense, small = (
        sum(p.numel() for p in known[name].parameters()) for name in ("network", "small")
    )
    assert type(known["small"]) is type(known["network"]) and small < dense
    assert bool((known["low"] < known["high"]).all()) and bool((known["error_bar"] > 0).all())
    whole = torch.load("own.pt", weights_only=False)  # written above
    graphs = next(iter(known["validation"]))
    for other in (known["same"], whole):
        torch.testing.assert_close(other.eval()(graphs), known["own"].eval()(graphs))
    assert known["equivariant"].radial[0].out_features < 32
    said = capsys.readouterr().out
    assert "kept" in said and "1o" in said and "left as it is: " in said


INTEGRATIONS = ROOT / "docs" / "integrations.md"
SECTIONS_WITH_CODE = re.findall(
    r"^## (.+)\n(?:(?!^## ).*\n)*?```python", INTEGRATIONS.read_text(), re.M
)


@pytest.mark.parametrize("section", SECTIONS_WITH_CODE)
@pytest.mark.filterwarnings("ignore::egnn_prune.ase.UncertaintyWarning")  # nobody trained it
@pytest.mark.filterwarnings("ignore:All systems have reached the maximum:UserWarning")  # TorchSim's
def test_the_page_on_integrations(section, runs, monkeypatch, tmp_path):
    """Every section runs by itself, where the other side is installed."""
    text = INTEGRATIONS.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for name in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE):
        pytest.importorskip(name, reason=f"needs the package {name}")
    (tmp_path / "runs").symlink_to(runs / "runs")
    monkeypatch.chdir(tmp_path)
    code = code.replace("max_epochs=3", "max_epochs=1, accelerator='cpu'")
    assert run_blocks([code], {})


def test_integrations_have_a_section_each():
    assert len(SECTIONS_WITH_CODE) == 8


def test_the_page_on_images():
    (code,) = blocks(ROOT / "docs" / "images.md")
    known = run_blocks([code.replace('"cifar10", ood="cifar100"', '"digits"')], {})
    x, _ = next(iter(known["train"]))
    assert x.shape == (128, 1, 8, 8)
