"""Potentials back in SevenNet's own format: opened by its calculator, with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small_adopted import masked, potential, structures

pytest.importorskip("sevenn", reason="needs the package sevenn")

from egnn_prune import compact
from egnn_prune.adapters import (
    AdoptedPotential,
    calculator,
    collapse_linear_readout,
    drop_odd_paths,
    drop_species,
    load,
    write_sevennet,
)
from egnn_prune.adapters.sevennet import read_sevennet
from egnn_prune.errors import ConfigError
from egnn_prune.models import energy_forces_stress
from egnn_prune.pruning import apply_masks

pytestmark = pytest.mark.filterwarnings("ignore")  # of sevenn: TorchScript, accelerators


def alike(model: AdoptedPotential, removed: int = 1) -> AdoptedPotential:
    """Without some copies of every irrep, as many in a convolution as in the stream before it."""
    model = model.offering("conv", "stream")
    keep = {g.name: torch.arange(g.n) >= removed for g in model.channel_groups()}
    for name in keep:  # which ones does not matter
        if ".conv." in name:
            keep[name] = keep[name].flip(0)
    apply_masks(model, keep)
    return compact(model).eval()


STEPS = {
    "as it is": lambda model: model,
    "alike": alike,
    "collapsed": collapse_linear_readout,
    "fewer elements": lambda model: drop_species(model, ["H", "C"]),
    "all": lambda model: collapse_linear_readout(drop_species(alike(model), ["H", "C"])),
    "half, masked": lambda model: masked(model.offering("conv")),
}


#: e3nn takes seconds to build SevenNet's model.
CASES = [("as it is", torch.float32), ("all", torch.float64)]
SLOW = [(step, torch.float32) for step in STEPS if step not in dict(CASES)]


@pytest.mark.parametrize(
    "step, dtype", CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_there_and_back(step, dtype):
    """SevenNet's model, read again, is the potential, in SevenNet's precision."""
    model = STEPS[step](potential(dtype)).eval()
    again = read_sevennet(write_sevennet(model))
    assert again.elements == model.elements and again.atom_scale.dtype == torch.float32
    batch = structures(6, 5, periodic=True)
    batch.z[batch.z == 8] = 6
    wanted, found = energy_forces_stress(model, batch), energy_forces_stress(again, batch)
    # float32 shifts of 2,000 eV for each atom
    assert torch.allclose(wanted[0].mean, found[0].mean, rtol=1e-6)
    for a, b in zip(wanted[1:], found[1:], strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1.0, float(a.abs().max()))
    assert wanted[1].abs().max() > 0.1


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", 5.6)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.mark.slow
def test_sevennet_opens_its_own_network_again(tmp_path):
    """SevenNet-0 whole, and with fewer elements and copies, by SevenNet's calculator."""
    from sevenn.calculator import SevenNetCalculator

    whole = load("7net-0")
    few = drop_species(whole, ["Na", "Cl"])
    for name, model in (("7net-0", whole), ("whole", whole), ("small", alike(few, 16))):
        theirs = name
        if name != "7net-0":
            theirs = str(tmp_path / f"{name}.pth")
            write_sevennet(model, theirs)
        atoms, same = salt(), salt()
        atoms.calc, same.calc = SevenNetCalculator(theirs, device="cpu"), calculator(model)
        assert abs(atoms.get_potential_energy() - same.get_potential_energy()) < 1e-5
        assert np.abs(atoms.get_forces() - same.get_forces()).max() < 1e-5
        assert np.abs(atoms.get_stress() - same.get_stress()).max() < 1e-5
    assert np.abs(atoms.get_forces()).max() > 0.01


def test_what_sevennet_has_no_words_for(tmp_path):
    """One sentence, and no file."""
    model, path = potential(), tmp_path / "small.pth"
    narrow = compact(masked(model.offering("conv")))
    radial = potential().offering("radial")
    groups = radial.channel_groups()
    keep = {g.name: torch.arange(g.n) >= ("layers.1." in g.name) for g in groups}
    apply_masks(radial, keep)
    for wrong, words in (
        (drop_odd_paths(potential()), "layer 1 lacks 1 of 5 paths, such as 1e over l = 1 to 1e"),
        (narrow, "2 copies of 0e enter the convolution of layer 0 and 4 are in the stream"),
        (compact(radial), "radial networks of its layers have different widths"),
        (potential(self_connection="elements"), "self connection is of the kind elements"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            write_sevennet(wrong, path)
        assert "egnn_prune.save" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"ends in \.pth, not small\.pt"):
        write_sevennet(model, tmp_path / "small.pt")
    assert not list(tmp_path.iterdir())
