"""e3nn's own test of equivariance, on our networks before and after surgery."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from e3nn import o3
from e3nn.util.test import assert_equivariant
from small_adopted import potential
from torch import Tensor, nn
from torch_geometric.data import Data

from egnn_prune import compact, prune
from egnn_prune.adapters import drop_odd_paths
from egnn_prune.models import (
    EGNNOptions,
    IrrepsOptions,
    PropertyModel,
    energy_and_forces,
    energy_forces_stress,
)
from egnn_prune.uncertainty import SinglePass

ELEMENTS = (1, 6, 8)


def egnn() -> PropertyModel:
    torch.manual_seed(0)
    options = EGNNOptions(attention=True, radial=6, cutoff=3.5)
    return PropertyModel.build(ELEMENTS, hidden=8, layers=2, options=options).double().eval()


def irreps() -> PropertyModel:
    torch.manual_seed(0)
    options = IrrepsOptions(cutoff=3.5, lmax=2)
    model = PropertyModel.build_irreps(
        ELEMENTS, copies=4, layers=2, radial=6, hidden=6, options=options
    )
    return model.double().eval()


NETWORKS = {
    "EGNN": egnn,
    "IrrepsNet": irreps,
    "adopted": lambda: drop_odd_paths(potential()),
}
SURGERY = {
    "dense": lambda model: model,
    "masked": lambda model: prune(model, "magnitude", 0.5),
    "compact": lambda model: compact(prune(model, "magnitude", 0.5)),
}


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    """e3nn turns irreps by matrices of the default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


Z = torch.tensor([6, 1, 8, 1, 6, 1, 8])


def places() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 1.2 * torch.randn(len(Z), 3, generator=generator, dtype=torch.float64)


def of_molecules(model: nn.Module):
    def energy_forces(pos: Tensor) -> list[Tensor]:
        prediction, forces = energy_and_forces(SinglePass(model), Data(z=Z, pos=pos))
        return [prediction.mean[:, None].detach(), forces.detach()]

    return energy_forces


def crystal() -> list[Tensor]:
    cell = torch.tensor([[5.0, 0.2, 0.0], [0.1, 5.4, 0.3], [0.0, -0.2, 5.2]]).double()
    return [1.8 * places(), cell.view(1, 9)]


def of_crystals(model: nn.Module):
    """Energy, forces and the stress as irreps of a symmetric tensor."""
    basis = o3.ReducedTensorProducts("ij=ji", i="1o").change_of_basis.double()

    def energy_forces_and_stress(pos: Tensor, cell: Tensor) -> list[Tensor]:
        graph = Data(z=Z, pos=pos, cell=cell.view(1, 3, 3), pbc=torch.ones(1, 3, dtype=torch.bool))
        prediction, forces, found = energy_forces_stress(SinglePass(model), graph)
        stress = torch.einsum("kij,bij->bk", basis, found)
        return [x.detach() for x in (prediction.mean[:, None], forces, stress)]

    return energy_forces_and_stress


def checked(func, args: list[Tensor], irreps_in: list, irreps_out: list, scale: float) -> None:
    """e3nn's assertion, relative to the size of what is predicted."""
    found = assert_equivariant(
        func,
        args_in=args,
        irreps_in=irreps_in,
        irreps_out=irreps_out,
        tolerance=1e-9 * scale,
        ntrials=2,
    )
    assert len(found) in (2, 4)  # rotations and reflections, with and without translation


@pytest.mark.parametrize("surgery", SURGERY)
@pytest.mark.parametrize("name", NETWORKS)
def test_energies_and_forces_of_molecules(name, surgery):
    func = of_molecules(SURGERY[surgery](NETWORKS[name]()))
    energy, forces = func(places())
    assert float(forces.abs().max()) > 1e-4
    scale = max(1.0, float(energy.abs().max()))
    checked(func, [places()], ["cartesian_points"], ["0e", "1o"], scale)


@pytest.mark.parametrize("surgery", SURGERY)
@pytest.mark.parametrize("name", NETWORKS)
def test_stresses_of_crystals(name, surgery):
    """The cell turns with the atoms; the stress is a symmetric tensor of rank two."""
    func, args = of_crystals(SURGERY[surgery](NETWORKS[name]())), crystal()
    energy, _, found = func(*args)
    assert float(found.abs().max()) > 1e-6
    scale = max(1.0, float(energy.abs().max()))
    checked(func, args, ["cartesian_points", "3x1o"], ["0e", "1o", "0e+2e"], scale)


def test_a_network_without_parity_turns_and_does_not_reflect():
    """As SevenNet-0 is; what :func:`drop_odd_paths` takes away is what e3nn finds."""
    func, args = of_crystals(potential()), crystal()
    how = {"irreps_in": ["cartesian_points", "3x1o"], "irreps_out": ["0e", "1o", "0e+2e"]}
    how["tolerance"] = 1e-6
    assert_equivariant(func, args_in=args, do_parity=False, **how)
    with pytest.raises(AssertionError, match=r"parity_k=1") as caught:
        assert_equivariant(func, args_in=args, **how)
    assert "parity_k=0" not in str(caught.value)


def test_a_network_that_sees_the_axes_fails():
    """What these tests rest on: e3nn's assertion finds what is broken."""
    func = of_molecules(egnn())

    def broken(pos: Tensor) -> list[Tensor]:
        energy, forces = func(pos)
        return [energy + 1e-3 * pos[:1, :1], forces]

    with pytest.raises(AssertionError, match="equivariance error was too large"):
        checked(broken, [places()], ["cartesian_points"], ["0e", "1o"], 1.0)
