"""SevenNet's trained networks, which come with its package, against SevenNet's own code."""

from __future__ import annotations

import copy
import functools
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SevenNet's own imports
    pytest.importorskip("sevenn", reason="needs the package sevenn")
    import sevenn.util
    from sevenn.calculator import SevenNetCalculator

from potential_cases import (
    ethanol,
    graph_of,
    methanol_crystal,
    mirror_error,
    relative,
    results,
)

from egnn_prune.adapters import (
    AdoptedPotential,
    UnknownLayout,
    collapse_linear_readout,
    copies_and_paths,
    drop_odd_paths,
    drop_species,
    load,
)
from egnn_prune.adapters.sevennet import read_sevennet
from egnn_prune.adapters.steps import odd_paths
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.pruning import apply_masks, compact

pytestmark = pytest.mark.filterwarnings("ignore")  # of SevenNet: TorchScript, its atom graphs
MODELS = {"7net-0": None, "7net-l3i5": None, "7net-mf-0": "PBE"}


@functools.cache
def adopted(name: str) -> AdoptedPotential:
    return load(name, modal=MODELS[name])


@functools.cache
def original(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sevenn.util.model_from_checkpoint(name)[0].eval()


def water_box(molecules: int = 2, edge: float = 6.2) -> Atoms:
    """Water of usual density, at random angles on a grid, rattled."""
    box, generator = Atoms(), np.random.default_rng(0)
    spots = np.stack(np.meshgrid(*[np.arange(molecules)] * 3), -1).reshape(-1, 3)
    for spot in spots:
        one = molecule("H2O")
        one.euler_rotate(*generator.uniform(0, 360, 3), center="COM")
        one.translate((spot + 0.25) * edge / molecules)
        box += one
    box.set_cell([edge] * 3)
    box.pbc = True
    box.rattle(0.05, seed=0)
    return box


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "7net-l3i5")) for n in MODELS],
)
def test_energy_forces_and_stress_are_sevennets_own(name):
    potential = adopted(name)
    calculator = SevenNetCalculator(
        copy.deepcopy(original(name)), "model_instance", "cpu", modal=MODELS[name]
    )
    for atoms in (ethanol(), methanol_crystal(6.0)):
        atoms.calc = calculator
        energy, forces, stress = results(potential, atoms)
        assert abs(energy - atoms.get_potential_energy()) <= 2e-6 * len(atoms) + 1e-7 * abs(energy)
        assert relative(forces, torch.tensor(atoms.get_forces()).double()) <= 2e-5
        if stress is not None:
            own = torch.tensor(atoms.get_stress(voigt=False)).double()
            assert relative(stress, own) <= 5e-5


def test_levels_of_theory():
    with pytest.raises(ConfigError, match=r"several levels of theory; choose one by modal=, of .*"):
        read_sevennet(original("7net-mf-0"))
    with pytest.raises(ConfigError, match=r"of R2SCAN, PBE \(not 'B3LYP'\)"):
        read_sevennet(original("7net-mf-0"), modal="B3LYP")
    with pytest.raises(ConfigError, match="one level of theory; leave modal= away"):
        read_sevennet(original("7net-0"), modal="PBE")


@pytest.mark.parametrize("name", ["7net-0", pytest.param("7net-l3i5", marks=pytest.mark.slow)])
def test_masked_is_compact(name):
    model = copy.deepcopy(adopted(name))
    generator = torch.Generator().manual_seed(0)
    scores = {g.name: torch.rand(g.n, generator=generator) for g in model.channel_groups()}
    keep = copies_and_paths(model, scores, 0.75, 0.5)
    layers = model.network.layout()
    apply_masks(model, keep)
    small = compact(model)
    for before, after in zip(layers, small.network.layout(), strict=True):
        assert after["conv"] == {ir: n - int(0.75 * n) for ir, n in before["conv"].items()}
    atoms = ethanol()
    reference = float(model.reference(graph_of(atoms)))
    found, expected = results(small, atoms), results(model, atoms)
    assert abs(found[0] - expected[0]) <= 1e-5 * abs(expected[0] - reference)
    assert relative(found[1], expected[1]) <= 1e-5
    # and they are not what was there before
    assert relative(expected[1], results(adopted(name), atoms)[1]) > 1e-2


def test_odd_paths_of_sevennet_0():
    model = adopted("7net-0")
    listed = [p for layer in model.network.layout() for p in layer["paths"]]
    assert (len(odd_paths(model)), len(listed)) == (12, 51)
    small = drop_odd_paths(model)
    assert mirror_error(model, ethanol()) > 1e-3
    assert mirror_error(small, ethanol()) < 2e-5
    for atoms in (water_box(), ethanol()):
        change = results(small, atoms)[1] - results(model, atoms)[1]
        assert change.square().mean().sqrt() < 0.010  # eV/Angstrom
        assert change.abs().max() > 0


def test_elements_and_readout_go_without_a_change():
    model, water = adopted("7net-0"), molecule("H2O")
    water.rattle(0.1)
    small = drop_species(model, ["H", "O"])
    assert small.elements == (1, 8)
    assert torch.equal(results(small, water)[1], results(model, water)[1])
    assert results(small, water)[0] == results(model, water)[0]
    joined = collapse_linear_readout(small)
    assert abs(results(joined, water)[0] - results(small, water)[0]) < 1e-5
    assert relative(results(joined, water)[1], results(small, water)[1]) < 1e-5


def broken(change):
    network = copy.deepcopy(original("7net-0"))
    change(network._modules)
    return network


def test_other_layouts_are_refused():
    def rename(parts):
        parts["3_mystery"] = parts.pop("3_convolution")

    with pytest.raises(UnknownLayout, match="has a part '3_mystery', which"):
        read_sevennet(broken(rename))
    with pytest.raises(UnknownLayout, match="lacks a part 'reduce_hidden_to_energy'"):
        read_sevennet(broken(lambda parts: parts.pop("reduce_hidden_to_energy")))
    with pytest.raises(UnknownLayout, match="not put together as egnn_prune knows it"):
        read_sevennet(broken(lambda parts: parts.pop("2_self_interaction_2")))

    def louder(parts):
        parts["2_self_interaction_2"].linear.register_forward_hook(lambda *args: 1.01 * args[-1])

    with pytest.raises(UnknownLayout, match="gives other numbers than the original"):
        read_sevennet(broken(louder))


def test_a_translation_that_is_off_is_refused(monkeypatch):
    from egnn_prune.adapters import sevennet

    translated = sevennet._translated

    def wrong(*args):
        potential = translated(*args)
        with torch.no_grad():
            potential.network.layer(2).up["1e"].weight[0] *= 1.05
        return potential

    monkeypatch.setattr(sevennet, "_translated", wrong)
    with pytest.raises(UnknownLayout, match="gives other numbers than the original"):
        read_sevennet(original("7net-0"))


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"did you mean 7net-l3i5\? \(known by name"):
        load("7net-l3i6")
    (tmp_path / "mine.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="sevenn cannot read"):
        load(tmp_path / "mine.pth")
    (tmp_path / "mine.txt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="ends in none of"):
        load(tmp_path / "mine.txt")
