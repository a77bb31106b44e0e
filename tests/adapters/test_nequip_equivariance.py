"""NequIP's own tests of symmetry, on its models before and after surgery by this package."""

from __future__ import annotations

import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of NequIP's own imports
    pytest.importorskip("nequip", reason="needs the package nequip")
    from nequip.utils.test import assert_AtomicData_equivariant, assert_permutation_equivariant

from potential_cases import graph_of, methanol_crystal
from test_nequip import adopted, build, shrunk

from egnn_prune.adapters.nequip import write_nequip
from egnn_prune.adapters.nequip_own import nequip_defaults, nequip_input

#: Crystals, for NequIP's stress of a molecule is NaN, which its own test then compares.
ATOMS = {"dense": methanol_crystal, "wide": lambda: methanol_crystal(6.5)}


def inputs(atoms) -> dict[str, torch.Tensor]:
    return nequip_input(graph_of(atoms), (1, 6, 8), 3.5)


@pytest.mark.parametrize("kind", ATOMS)
@pytest.mark.parametrize("parity", [True, False])
@pytest.mark.parametrize("surgery", ["NequIP's", "written back", "pruned"])
def test_nequips_own_tests(surgery, parity, kind):
    potential = adopted(parity=parity, num_layers=3 if parity else 2)
    if surgery == "NequIP's":
        model = build(parity=parity, num_layers=3 if parity else 2)
    else:
        model = write_nequip(shrunk(potential) if surgery == "pruned" else potential)
    with nequip_defaults():
        data = inputs(ATOMS[kind]())
        said = assert_AtomicData_equivariant(model.eval(), data, e3_tolerance=1e-7)
        assert "FAIL" not in said and "forces" in said
        assert "FAIL" not in assert_permutation_equivariant(model, data, tolerance=1e-8)
