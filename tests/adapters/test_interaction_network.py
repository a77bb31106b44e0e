"""Potentials of the NequIP family from settings alone: none of the packages is needed."""

from __future__ import annotations

import copy

import pytest
import torch
from potential_cases import batch_of, ethanol, graph_of, methanol_crystal, mirror_error, results
from torch.func import functional_call

from egnn_prune.adapters import (
    AdoptedPotential,
    collapse_linear_readout,
    copies_and_paths,
    drop_odd_paths,
    drop_species,
    from_scratch,
)
from egnn_prune.adapters.choice import path_cost
from egnn_prune.adapters.interaction_network import InteractionNetwork
from egnn_prune.adapters.steps import odd_paths, without
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import energy_and_forces
from egnn_prune.models.irreps_paths import paths
from egnn_prune.pruning import apply_masks, compact, compact_with_optimizer
from egnn_prune.pruning.criteria.gate_passes import gate_gradients
from egnn_prune.testing import assert_equivariant, assert_prunable

ELEMENTS = (1, 6, 8)
#: Near -17,660 eV for two carbons: float32 numbers of this size are 2 meV apart.
SHIFTS = (-13.587222780835477, -8830.0123456789, -2041.8396277138)
SILU, TANH = {"name": "silu", "factor": 1.679}, {"name": "tanh", "factor": 1.593}


def layer(sources: str, conv: str, made: str, lmax: int, own: bool = True) -> dict:
    targets = [part.partition("x")[2] for part in made.split("+")]
    listed = paths(sources.split(), targets, lmax)
    if not any(ir.endswith("o") for ir in targets + sources.split()):  # SO(3): no selection
        listed = turned(sources.split(), targets, lmax)
    return {
        "conv": conv,
        "made": made,
        "radial": [6],
        "paths": [[p.source, p.l, p.target, True] for p in listed],
        "own": own,
    }


def turned(sources, targets, lmax):
    """All paths that rotations allow."""
    from egnn_prune.models.irreps_paths import Path

    return [
        Path(a, l, c)
        for c in targets
        for a in sources
        for l in range(lmax + 1)  # noqa: E741
        if abs(int(a[0]) - l) <= int(c[0]) <= int(a[0]) + l
    ]


def settings(parity: bool, self_connection: str = "linear", bias: bool = False) -> dict:
    if parity:
        layers = [
            layer("0e", "5x0e", "6x0e+4x1o", 1, self_connection != "elements"),
            layer("0e 1o", "5x0e+3x1o", "6x0e", 1),
        ]
    else:
        layers = [
            layer("0e", "5x0e", "6x0e+4x1e+3x2e", 2),
            layer("0e 1e 2e", "5x0e+3x1e+2x2e", "6x0e+2x1e", 2),
            layer("0e 1e", "4x0e+2x1e", "6x0e", 2),
        ]
    return {
        "species": 3,
        "embedding": 6,
        "layers": layers,
        "readout": [5],
        "options": {
            "radial": {"cutoff": 3.5, "bessel": 5, "envelope": "polynomial", "factor": 0.6},
            "lmax": 1 if parity else 2,
            "activations": {"even": SILU, "odd": TANH, "gate": SILU, "radial": SILU},
            "self_connection": self_connection,
            "bias": bias,
            "parity": parity,
        },
    }


def potential(dtype=torch.float64, **options) -> AdoptedPotential:
    network = InteractionNetwork.from_config(settings(**({"parity": False} | options)))
    model = AdoptedPotential(network, ELEMENTS, SHIFTS, torch.tensor([1.1, 0.9, 1.3]).to(dtype))
    return model.to(dtype).eval()


KINDS = ("stream", "conv", "path", "radial", "hidden")
CASES = {
    "so3": {},
    "o3": {"parity": True},
    "elements": {"parity": True, "self_connection": "elements"},
    "bias": {"bias": True},
    "none": {"self_connection": "none"},
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_group_can_be_pruned(case):
    model, batch = potential(**CASES[case]), batch_of(ethanol(1), ethanol(2))
    assert {g.kind for g in model.channel_groups()} == {"conv", "path"}
    assert_prunable(model.offering(*KINDS), batch)
    if "parity" in CASES[case]:
        assert_equivariant(model, batch)


def test_periodic_cells_can_be_pruned():
    batch = batch_of(methanol_crystal(), methanol_crystal(5.2))
    assert_prunable(potential(), batch, sparsities=(0.5,))


def halves(model: AdoptedPotential) -> dict[str, torch.Tensor]:
    """Every second channel of each group, and no path of odd l1 + l2 + l3.

    Something still reads each copy: an optimiser moves dead weights by their old momentum where
    their gradient is zero (masked), and leaves them where there is none (compact).
    """
    odd = odd_paths(model)
    return {
        g.name: torch.arange(g.n) % 2 == 0 if g.n > 1 else torch.tensor([g.name not in odd])
        for g in model.channel_groups()
    }


def step(model, optimiser, batch) -> None:
    optimiser.zero_grad()
    _, forces = energy_and_forces(model, batch, history=True)
    forces.square().mean().backward()
    optimiser.step()


def test_a_masked_network_trains_on_as_the_compact_one():
    model, batch = potential().offering(*KINDS), batch_of(ethanol(1), ethanol(2))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    step(model, optimiser, batch)  # moments of what goes, too
    apply_masks(model, halves(model))
    step(model, optimiser, batch)
    small, twin = compact_with_optimizer(model, optimiser)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    for _ in range(3):
        step(model, optimiser, batch)
        step(small, twin, batch)
        torch.testing.assert_close(small(batch).mean, model(batch).mean, rtol=0, atol=1e-9)
    for (name, a), b in zip(compact(model).named_parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=name)


def test_a_masked_path_stays_zero_while_the_others_learn():
    model, batch = potential(), batch_of(ethanol())
    gone = next(g for g in model.channel_groups() if g.kind == "path" and ".1." in g.name)
    keep = {g.name: torch.full((g.n,), g.name != gone.name) for g in model.channel_groups()}
    apply_masks(model, keep)
    rows = next(m for m in gone.members if "radial_out" in m.name and not m.reads)
    before = {k: v.clone() for k, v in effective_weights(model).items()}
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    for _ in range(2):
        step(model, optimiser, batch)
    after = effective_weights(model)
    name = rows.name
    index = rows.index.flatten()
    others = torch.ones(len(after[name]), dtype=torch.bool)
    others[index] = False
    assert after[name][index].abs().max() == 0
    assert (after[name][others] != before[name][others]).all(1).any()
    assert before[name][others].abs().sum() > 0


def effective_weights(model) -> dict[str, torch.Tensor]:
    """What the network sees, masks applied."""
    return {
        f"{name}.weight": module.weight.detach()
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), torch.Tensor)
    }


def test_a_paths_score_is_the_exact_derivative():
    model, batch = potential(), batch_of(ethanol(1), ethanol(2))
    groups = [g for g in model.channel_groups() if g.kind in ("path", "conv")]
    found = gate_gradients(
        model,
        {g.name: model.get_submodule(g.gate) for g in groups},
        [batch],
        lambda m, b: m(b).mean,
    )
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for group in groups:
        made = [m for m in group.members if ".radial_out." in m.name and not m.reads]
        scale = torch.ones(group.n, dtype=torch.float64, requires_grad=True)
        scaled = {}
        for member in made:  # the rows that make the path's weights, or the copy's
            factors = torch.ones(len(tensors[member.name]), dtype=torch.float64)
            index = member.index
            factors = factors.index_put(
                (index.flatten(),), scale[:, None].expand(index.shape).flatten()
            )
            scaled[member.name] = tensors[member.name] * factors[:, None]
        energies = functional_call(model, tensors | scaled, (batch,)).mean
        for b in range(2):
            (exact,) = torch.autograd.grad(energies[b], scale, retain_graph=True)
            torch.testing.assert_close(found[group.name][b], exact, rtol=1e-9, atol=1e-10)
    assert max(float(v.abs().max()) for v in found.values()) > 1e-3


def test_shifts_are_added_in_float64():
    single, double = potential(torch.float32), potential()
    double.load_state_dict(single.state_dict())
    atoms = ethanol()
    energy, exact = results(single, atoms)[0], results(double, atoms)[0]
    assert energy < -17660
    assert abs(energy - exact) < 2e-5  # a float32 sum would be off by 1e-3
    moved = graph_of(atoms)
    moved.pos = moved.pos + 1e4
    assert abs(float(single(moved).mean.detach()) - energy) < 2e-5


def test_elements_keep_their_scale_in_float64():
    scale = torch.tensor([1.1, 0.9, 1.3], dtype=torch.float64)  # no float32 numbers
    network = InteractionNetwork.from_config(settings(False)).double()
    model = AdoptedPotential(network, ELEMENTS, SHIFTS, scale).eval()
    small = compact(model)
    assert torch.equal(small.atom_scale, scale)
    assert torch.equal(drop_species(model, [1, 8]).atom_scale, scale[[0, 2]])


def test_an_element_that_it_never_saw():
    atoms = ethanol()
    atoms.numbers[0] = 16
    with pytest.raises(DataError, match=r"does not know the element S .*it knows H, C, O: take"):
        potential()(graph_of(atoms))
    with pytest.raises(ConfigError, match="cannot be kept for the element S: it knows H, C, O"):
        drop_species(potential(), ["S"])
    with pytest.raises(ConfigError, match="'Xx' is no element"):
        drop_species(potential(), ["Xx"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_built_again_from_its_settings(dtype):
    model, batch = potential(dtype, parity=True, self_connection="elements"), batch_of(ethanol())
    again = AdoptedPotential.from_config(model.config()).to(dtype).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(batch).mean, model(batch).mean)
    assert again.config() == model.config()
    assert not again.network.layer(0).own
    small = compact(model)
    assert not small.network.layer(0).own and small.network.layer(1).own


def test_without_odd_paths_the_mirror_image_is_the_same():
    model, atoms = potential(), ethanol()
    small = drop_odd_paths(model)
    listed = [p for layer in model.network.layout() for p in layer["paths"]]
    left = [p["kept"] for layer in small.network.layout() for p in layer["paths"]]
    assert left == [(int(p["source"][0]) + p["l"] + int(p["target"][0])) % 2 == 0 for p in listed]
    assert mirror_error(model, atoms) > 1e-4
    assert mirror_error(small, atoms) < 1e-11
    with pytest.raises(ConfigError, match="mirror-symmetric as it is"):
        drop_odd_paths(potential(parity=True))


@pytest.mark.parametrize("self_connection", ["linear", "elements"])
def test_dropping_other_elements_is_exact(self_connection):
    model = potential(parity=True, self_connection=self_connection)
    water = ethanol()[[2, 3, 4]]
    water.numbers = [8, 1, 1]
    small = drop_species(model, ["O", 1])
    assert small.elements == (1, 8)
    for found, expected in zip(results(small, water)[:2], results(model, water)[:2], strict=True):
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize("bias", [False, True])
def test_the_linear_readout_collapses_exactly(bias):
    model, atoms = potential(bias=bias), ethanol()
    if bias:
        with torch.no_grad():
            for linear in model.network.readout:
                linear.bias.normal_()
    small = collapse_linear_readout(model)
    assert len(small.network.readout) == 1
    assert abs(results(small, atoms)[0] - results(model, atoms)[0]) < 1e-10
    torch.testing.assert_close(results(small, atoms)[1], results(model, atoms)[1])
    with pytest.raises(ConfigError, match="no two linear maps in a row"):
        collapse_linear_readout(small)


def test_the_control_from_scratch():
    model, batch = potential(), batch_of(ethanol())
    before = torch.rand(1), torch.random.get_rng_state()
    first, again = (from_scratch(model, 12.0, seed=3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert torch.equal(first(batch).mean, again(batch).mean)
    assert not torch.allclose(first(batch).mean, from_scratch(model, 12.0, seed=4)(batch).mean)
    assert first.network.config() == model.network.config()
    weights, fresh = dict(model.named_parameters()), dict(first.named_parameters())
    drawn = [k for k in weights if k.endswith(".weight")]
    assert not any(torch.equal(weights[k], fresh[k]) for k in drawn)
    # sums over neighbours are divided by the root of the domain's own number of them
    for t in range(3):
        assert float(first.network.layer(t).denominator) == pytest.approx(12.0**0.5)
    with pytest.raises(ConfigError, match="must be positive, not 0"):
        from_scratch(model, 0)


def test_a_network_pruned_to_one_irrep_still_runs():
    model, atoms = potential(), ethanol()
    gone = [f"network.layers.{t}.{kind}.2e" for t in range(2) for kind in ("conv", "stream")]
    small = without(model, [name for name in gone if name != "network.layers.0.conv.2e"])
    assert results(small, atoms)[1].isfinite().all()
    masked = copy.deepcopy(model)
    with torch.no_grad():  # what the copies of 2e would have carried
        masked.network.layer(1).up["2e"].weight.zero_()
        for leaf in (masked.network.layer(0).mix["2e"],):
            leaf.weight.zero_()
    assert abs(results(small, atoms)[0] - results(masked, atoms)[0]) < 1e-10


@pytest.mark.parametrize(("conv", "share"), [(0.5, 0.3), (0.75, 0.5), (0.0, 0.0)])
def test_copies_and_paths_take_the_shares_asked_for(conv, share):
    model = potential()
    generator = torch.Generator().manual_seed(0)
    scores = {g.name: torch.rand(g.n, generator=generator) for g in model.channel_groups()}
    keep = copies_and_paths(model, scores, conv, share)
    assert set(keep) == set(scores)
    for name, mask in keep.items():
        if ".conv." in name:
            assert int((~mask).sum()) == int(conv * len(mask))
            left = scores[name][mask].min() if mask.any() else 0
            assert (scores[name][~mask] <= left).all()
    costs = {name: path_cost(model, name) for name in keep if ".path." in name}
    gone = [name for name in costs if not keep[name]]
    assert sum(costs[name] for name in gone) <= share * sum(costs.values())
    # no path that was left would have fitted into what remains, unless it is its layer's last
    rest = share * sum(costs.values()) - sum(costs[name] for name in gone)
    for name in costs:
        beside = [n for n in costs if n.rpartition(".")[0] == name.rpartition(".")[0] and keep[n]]
        if keep[name] and len(beside) > 1:
            assert costs[name] > rest or share == 0
    assert path_cost(model, "network.layers.1.path.1") == 3 * 3 * 1  # 3 copies of 1e over l=1 to 0e
