"""What a release states in several files is the same in all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import egnn_prune

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RECIPE = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
#: Packages that have another name on conda-forge.
ON_CONDA_FORGE = {
    "torch": "pytorch",
    "torch-geometric": "pytorch_geometric",
    "vesin": "python-vesin",
}


# --------------------------------------------------------------------------------- version


def test_the_package_states_the_version_and_others_repeat_it():
    assert PYPROJECT["project"]["dynamic"] == ["version"]  # hatchling takes it from this file:
    assert ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"] == Path(egnn_prune.__file__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    stated = {"CITATION.cff": citation["version"], "recipe": RECIPE["context"]["version"]}
    assert stated == dict.fromkeys(stated, egnn_prune.__version__)


def test_the_newest_release_of_the_changelog_is_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    unreleased, *releases = headings
    assert unreleased == "Unreleased"
    assert releases[:1] in ([], [egnn_prune.__version__])  # none before the first release


# ----------------------------------------------------------------------------------- conda


def test_the_conda_recipe_needs_what_the_package_needs():
    needed = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    assert not [r.name for r in needed if r.marker or r.extras]  # conda could not say these
    expected = {ON_CONDA_FORGE.get(r.name, r.name): r.specifier for r in needed}
    run = dict(line.split(" ", 1) for line in RECIPE["requirements"]["run"])
    python = run.pop("python").replace("${{ python_min }}", RECIPE["context"]["python_min"])
    assert python == PYPROJECT["project"]["requires-python"]
    assert {name: SpecifierSet(versions) for name, versions in run.items()} == expected


def test_the_conda_recipe_has_the_package_s_command_and_build_system():
    scripts = PYPROJECT["project"]["scripts"]
    assert RECIPE["build"]["python"]["entry_points"] == [f"{k} = {v}" for k, v in scripts.items()]
    builders = PYPROJECT["build-system"]["requires"]
    assert {b.replace(">=", " >=") for b in builders} <= set(RECIPE["requirements"]["host"])
