"""Steps that make an adopted potential smaller without training; each gives a new potential."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from ase.data import chemical_symbols
from torch import Tensor

from egnn_prune.adapters.interaction_network import InteractionNetwork, orders_of
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.pruning import apply_masks, compact


def without(model: AdoptedPotential, groups: Iterable[str]) -> AdoptedPotential:
    """A smaller copy that lacks all channels of some groups, whatever kinds are offered."""
    gone = set(groups)
    twin = copy.deepcopy(model)
    twin.kinds = tuple({g.kind for g in twin.network.channel_groups()})
    keep = {g.name: torch.full((g.n,), g.name not in gone) for g in twin.channel_groups()}
    apply_masks(twin, keep)
    small = compact(twin)
    assert isinstance(small, AdoptedPotential)
    small.kinds = model.kinds
    return small


def odd_paths(model: AdoptedPotential) -> list[str]:
    """Names of the path groups with odd l1 + l2 + l3."""
    return [
        f"network.layers.{t}.path.{k}"
        for t, layer in enumerate(model.network.layers)
        for k, path in enumerate(layer.shape.paths)
        if path[3] and sum(orders_of(path)) % 2
    ]


def drop_odd_paths(model: AdoptedPotential) -> AdoptedPotential:
    r"""Remove the paths of an SO(3) network that no mirror-symmetric energy needs.

    A path with odd :math:`l_1 + l_2 + l_3` is a cross product: it changes sign in the mirror where
    the energy must not. What is left is exactly mirror-symmetric, and has fewer paths: no data, no
    training. The force changes by what the network had not learned of the symmetry.

    Raises:
        ConfigError: the network knows parity, so all of its paths are mirror-symmetric already.
    """
    network = model.network
    if not isinstance(network, InteractionNetwork) or network.options.parity:
        raise ConfigError(
            "odd paths are dropped from networks without parity (SO(3), such as SevenNet-0); this "
            "one is mirror-symmetric as it is"
        )
    return without(model, odd_paths(model))


def drop_species(model: AdoptedPotential, elements: Iterable[int | str]) -> AdoptedPotential:
    """Keep some elements only; for structures of these the numbers stay exactly the same.

    Args:
        model: the potential.
        elements: atomic numbers or symbols.

    Raises:
        ConfigError: there is none, or the potential does not know one.
    """
    numbers = sorted({_number(element) for element in elements})
    strange = [z for z in numbers if z not in model.elements]
    if strange or not numbers:
        what = f"the element {chemical_symbols[strange[0]]}" if strange else "no element at all"
        raise ConfigError(
            f"the potential cannot be kept for {what}: it knows "
            f"{', '.join(chemical_symbols[z] for z in sorted(model.elements))}"
        )
    index = torch.tensor([model.elements.index(z) for z in numbers])
    small = type(model.network).from_config(model.network.config() | {"species": len(index)})
    axes, old = model.network.species_axes(), model.network.state_dict()
    small = small.to(model.atom_scale.device, model.atom_scale.dtype)
    small.load_state_dict(
        {
            name: value.index_select(axes[name], index.to(value.device)) if name in axes else value
            for name, value in old.items()
        }
    )
    shifts = [model.scale.per_element[i] for i in index.tolist()]
    result = AdoptedPotential(small, numbers, shifts, model.atom_scale[index], model.kinds)
    return _like(result, model)


def _number(element: int | str) -> int:
    if isinstance(element, str):
        if element not in chemical_symbols:
            raise ConfigError(f"{element!r} is no element; give symbols or atomic numbers")
        return chemical_symbols.index(element)
    if not 0 < element < len(chemical_symbols):
        raise ConfigError(f"{element} is no atomic number of an element")
    return int(element)


@torch.no_grad()
def collapse_linear_readout(model: AdoptedPotential) -> AdoptedPotential:
    """Join the linear maps between the last scalars and the energy into one; exact.

    Raises:
        ConfigError: there is nothing to join, or something between the maps.
    """
    network = model.network
    if not isinstance(network, InteractionNetwork) or len(network.readout) < 2:
        raise ConfigError("the read-out has no two linear maps in a row that could be joined")
    small = InteractionNetwork.from_config(network.config() | {"readout": []})
    small = small.to(model.atom_scale.device, model.atom_scale.dtype)
    joined: dict[str, Tensor] = {
        k: v for k, v in network.state_dict().items() if not k.startswith("readout")
    }
    (linear,) = small.readout
    assert isinstance(linear, CopyLinear)
    joined["readout.0.coefficient"] = linear.coefficient
    joined["readout.0.weight"] = network.readout_weights()[None] / linear.coefficient
    if linear.bias is not None:
        zero = model.atom_scale.new_zeros(1, small.layer(-1).made["0e"])
        nobody = torch.zeros(1, dtype=torch.long, device=zero.device)
        joined["readout.0.bias"] = network.energies(zero, nobody)
    small.load_state_dict(joined)
    return _like(model.with_network(small), model)


@torch.no_grad()
def from_scratch(model: AdoptedPotential, neighbours: float, seed: int = 0) -> AdoptedPotential:
    """The same shape with fresh weights, as e3nn draws them: the control of inherited weights.

    Args:
        model: the potential, usually compact.
        neighbours: mean number of neighbours in the domain; sums over them are divided by its root.
        seed: of the weights.
    """
    if not neighbours > 0:
        raise ConfigError(f"the mean number of neighbours must be positive, not {neighbours}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model.network).from_config(model.network.config()).to(model.atom_scale.dtype)
    for name, buffer in fresh.named_buffers():
        if name.endswith("denominator"):
            buffer.fill_(neighbours**0.5)
        elif name.endswith("coupling"):  # which products of features there are: no weight
            buffer.copy_(model.network.get_buffer(name))
    return _like(model.with_network(fresh), model)


def _like(small: AdoptedPotential, model: AdoptedPotential) -> AdoptedPotential:
    """The same precision, device and mode."""
    small = small.to(model.atom_scale.device, model.atom_scale.dtype)
    return small.train(model.training)
