"""NequIP's own code as the adapter calls it: its defaults, its forward pass, its activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.adapters.activations import Activation, Activations
from egnn_prune.adapters.e3nn_layout import activation_of
from egnn_prune.adapters.potential import AdoptedPotential


@contextmanager
def nequip_defaults() -> Iterator[None]:
    """Within, what NequIP wants of the whole process: float64 as the default, its own seed."""
    import e3nn
    from lightning.pytorch.utilities.seed import isolate_rng
    from nequip.utils.global_state import set_global_state

    dtype, optimisation = torch.get_default_dtype(), e3nn.get_optimization_defaults()
    with isolate_rng():
        try:
            set_global_state()
            torch.set_default_dtype(torch.float64)
            yield
        finally:
            torch.set_default_dtype(dtype)
            e3nn.set_optimization_defaults(**optimisation)


def activations_of(layers: list[Any]) -> Activations:
    """One of each kind, from all gates; NequIP has the same in every layer."""
    scalars: dict[str, Activation] = {}
    gates: list[Activation] = []
    for layer in layers:
        gate = layer.equivariant_nonlin
        for (_, ir), act in zip(gate.irreps_scalars, gate.act_scalars.acts, strict=True):
            scalars[str(ir)] = activation_of(act)
        gates += [activation_of(act) for act in gate.act_gates.acts]
    even = scalars.get("0e", Activation())
    odd = scalars.get("0o", Activation("tanh"))
    return Activations(even, odd, gates[0] if gates else even, Activation("silu"))


def nequip_input(graph: Data, elements: tuple[int, ...], cutoff: float) -> dict[str, Tensor]:
    """A structure as NequIP takes it, with edges that NequIP found."""
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase

    cell, pbc = graph.get("cell"), graph.get("pbc")
    periodic = {} if cell is None else {"cell": cell[0].numpy(), "pbc": pbc[0].numpy()}
    atoms = Atoms(graph.z.numpy(), graph.pos.double().numpy(), **periodic)
    data = compute_neighborlist_(from_ase(atoms), r_max=cutoff)
    types = torch.tensor([elements.index(z) for z in graph.z.tolist()])
    return data | {AtomicDataDict.ATOM_TYPE_KEY: types}


def original_energy_and_forces(
    model: Any, potential: AdoptedPotential, graph: Data
) -> tuple[Tensor, Tensor]:
    """Energy and forces as NequIP's own code computes them."""
    with nequip_defaults():
        data = nequip_input(graph, potential.elements, potential.network.options.cutoff)
        data["pos"].requires_grad_()
        training = model.training
        try:
            out = model.eval()(data)
        finally:
            model.train(training)
    energy = out["total_energy"]
    forces = out.get("forces")
    if forces is None:  # built without derivatives
        forces = -torch.autograd.grad(energy.sum(), data["pos"])[0]
    return energy.detach().flatten(), forces.detach()
