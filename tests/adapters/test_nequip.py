"""NequIP's networks: read, pruned, saved and written back, against NequIP's own code."""

from __future__ import annotations

import copy
import functools
import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of NequIP's own imports
    pytest.importorskip("nequip", reason="needs the package nequip")
    from nequip.integrations.ase import NequIPCalculator
    from nequip.integrations.utils import basic_transforms
    from nequip.model import FullNequIPGNNModel, NequIPGNNModel

from potential_cases import (
    batch_of,
    ethanol,
    graph_of,
    methanol_crystal,
    mirror_error,
    relative,
    results,
)

from egnn_prune import compact
from egnn_prune.adapters import (
    AdoptedPotential,
    UnknownLayout,
    drop_odd_paths,
    drop_species,
)
from egnn_prune.adapters import load as load_potential
from egnn_prune.adapters.nequip import read_nequip, write_nequip
from egnn_prune.adapters.nequip_own import nequip_defaults, nequip_input
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.pruning import apply_masks
from egnn_prune.testing import assert_equivariant, assert_prunable

TYPES = ["H", "C", "O"]
SETTINGS = {
    "seed": 0,
    "model_dtype": "float64",
    "r_max": 3.5,
    "type_names": TYPES,
    "num_layers": 2,
    "l_max": 1,
    "parity": False,
    "num_features": [6, 4],
    "radial_mlp_depth": 1,
    "radial_mlp_width": 6,
    "avg_num_neighbors": 7.0,
    "per_type_energy_scales": {"H": 1.3, "C": 1.1, "O": 0.7},
    "per_type_energy_shifts": {"H": -13.6, "C": -1029.5, "O": -2041.2},
}
#: An SO(3) network: no parities, and with that odd paths. NequIP's ``parity=False`` only leaves
#: out irreps of unnatural parity, and is symmetric under reflections all the same.
TURNED = {
    "irreps_edge_sh": "1x0e+1x1e+1x2e",
    "type_embed_num_features": 6,
    "feature_irreps_hidden": ["6x0e+4x1e+3x2e", "6x0e+4x1e", "6x0e"],
    "radial_mlp_depth": [1, 1, 1],
    "radial_mlp_width": [5, 6, 7],
}


def build(**settings):
    with nequip_defaults():
        return NequIPGNNModel(**(SETTINGS | settings))


#: What it takes for an odd scalar to matter to an energy: 0e -> 1o -> 1e -> 0o -> 1e -> 1o -> 0e.
ODD_SCALARS = {
    "irreps_edge_sh": "1x0e+1x1o",
    "feature_irreps_hidden": [f"3x0e+2x{ir}" for ir in ("1o", "1e", "0o", "1e", "1o")] + ["3x0e"],
    "radial_mlp_depth": [1] * 6,
    "radial_mlp_width": [4] * 6,
}


def build_full(**settings):
    left_out = {"num_layers", "l_max", "parity", "num_features"}
    rest = {k: v for k, v in SETTINGS.items() if k not in left_out}
    with nequip_defaults():
        return FullNequIPGNNModel(**(rest | TURNED | settings))


@functools.cache
def adopted(**settings) -> AdoptedPotential:
    return read_nequip(build(**settings))


def own_results(model, atoms):
    """Energy, forces and stress by NequIP's calculator."""
    with nequip_defaults():
        transforms = basic_transforms(
            model.metadata, float(model.metadata["r_max"]), TYPES, {t: t for t in TYPES}
        )
        atoms.calc = NequIPCalculator(model.eval(), "cpu", transforms=transforms)
        stress = torch.tensor(atoms.get_stress(voigt=False)) if atoms.pbc.any() else None
        return atoms.get_potential_energy(), torch.tensor(atoms.get_forces()).double(), stress


CASES = {
    "float64": {"num_layers": 3},
    "parity": {"parity": True, "l_max": 2, "num_features": [5, 3, 2]},
    "parity float32": {"parity": True, "model_dtype": "float32"},
    "one layer": {"num_layers": 1, "parity": True},
    "deep radial": {"radial_mlp_depth": 2, "bessel_trainable": True, "polynomial_cutoff_p": 4},
    "linear read-out": {
        "readout_mlp_hidden_layers_depth": 2,
        "readout_mlp_hidden_layers_width": 3,
        "readout_mlp_nonlinearity": None,
        "type_embed_num_features": 9,
    },
    "odd scalars": ODD_SCALARS,
    "no scales": {"per_type_energy_scales": None, "per_type_energy_shifts": -3.0},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:Found `per_type_energy:UserWarning")
def test_energy_forces_and_stress_are_nequips_own(case):
    settings = CASES[case]
    model = (build_full if "feature_irreps_hidden" in settings else build)(**settings)
    with torch.no_grad():
        for parameter in model.parameters():  # away from what the builder draws
            parameter.mul_(1.0 + 0.1 * torch.rand_like(parameter))
    potential = read_nequip(model)
    single = potential.atom_scale.dtype == torch.float32
    tolerance = 2e-5 if single else 1e-9
    for atoms in (ethanol(), methanol_crystal()):
        energy, forces, stress = results(potential, atoms)
        expected, own_forces, own_stress = own_results(model, atoms)
        assert abs(energy - expected) <= (1e-4 if single else 1e-9)
        assert relative(forces, own_forces) <= tolerance
        assert (stress is None) == (own_stress is None)
        if stress is not None:
            assert relative(stress, own_stress) <= tolerance


def test_a_trained_model_is_read_as_it_is():
    model, atoms = build(), ethanol()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    with nequip_defaults():
        data = nequip_input(graph_of(atoms), (1, 6, 8), 3.5)
        for _ in range(3):
            optimizer.zero_grad()
            out = model.train()(dict(data))
            out["forces"].square().mean().backward()
            optimizer.step()
    energy, forces, _ = results(read_nequip(model), atoms)
    expected, own_forces, _ = own_results(model, atoms)
    assert abs(energy - expected) <= 1e-9
    assert relative(forces, own_forces) <= 1e-9


def test_defaults_of_the_process_and_random_numbers_stay():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model = build(num_layers=1)
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_default_dtype() == torch.float32
    assert model.training
    read_nequip(model)
    assert torch.get_default_dtype() == torch.float32
    assert model.training


@pytest.mark.parametrize("parity", [False, True])
def test_it_can_be_pruned_and_is_symmetric(parity):
    potential = adopted(parity=parity, num_layers=3 if parity else 2)
    batch = batch_of(ethanol(1), ethanol(2))
    assert_prunable(potential, batch)
    kinds = {group.kind for group in potential.network.channel_groups()}
    assert kinds == {"stream", "conv", "path", "radial"}
    assert_prunable(potential.offering(*kinds), batch)
    assert_equivariant(potential, batch)
    assert mirror_error(potential, ethanol()) <= 1e-10


def test_channels_that_nothing_reads_are_left_out():
    potential = adopted(parity=True, num_layers=3)
    parity_kinds = [set(layer["stream"]) for layer in potential.network.layout()]
    # nothing in the last layer makes 0e from 0o or 1e
    assert parity_kinds == [{"0e", "1o"}, {"0e", "1o"}, {"0e"}]
    potential(batch_of(ethanol())).mean.sum().backward()
    unused = [k for k, p in potential.named_parameters() if p.grad is None]
    potential.zero_grad()
    assert unused == []


def test_odd_paths_of_a_network_without_parity():
    potential, atoms = read_nequip(build_full()), ethanol()
    assert not potential.network.options.parity
    assert mirror_error(potential, atoms) > 1e-5
    small = drop_odd_paths(potential)
    assert mirror_error(small, atoms) <= 1e-11
    paths = [p["kept"] for layer in small.network.layout() for p in layer["paths"]]
    assert 0 < paths.count(False) < len(paths)
    with pytest.raises(ConfigError, match="mirror-symmetric as it is"):
        drop_odd_paths(adopted())


def test_dropped_elements_change_nothing_for_the_others():
    potential, water = adopted(parity=True), methanol_crystal()[[1, 2, 3]]
    water.numbers = [8, 1, 1]
    small = drop_species(potential, ["H", "O"])
    for found, expected in zip(results(small, water), results(potential, water), strict=True):
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))
    assert small.network.species == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_built_again_from_its_settings_and_weights(dtype):
    potential, batch = adopted(model_dtype=dtype), batch_of(ethanol())
    again = AdoptedPotential.from_config(potential.config()).to(potential.atom_scale.dtype)
    again.load_state_dict(potential.state_dict())
    assert torch.equal(again.eval()(batch).mean, potential(batch).mean)


def shrunk(potential: AdoptedPotential) -> AdoptedPotential:
    """Two thirds of the stream, and the same number of copies into the convolutions."""
    potential = potential.offering("stream", "conv", "radial")
    keep = {}
    for group in potential.channel_groups():
        share = 0.5 if group.kind == "radial" else 0.67
        order = torch.randperm(group.n, generator=torch.Generator().manual_seed(group.n))
        keep[group.name] = torch.zeros(group.n, dtype=torch.bool)
        keep[group.name][order[: round(share * group.n)]] = True
    twin = copy.deepcopy(potential)
    apply_masks(twin, keep)
    return compact(twin)


@pytest.mark.parametrize(
    ("dtype", "parity"), [("float32", True), ("float64", True), ("float64", False)]
)
def test_nequips_own_code_gives_a_written_models_numbers(dtype, parity):
    potential = adopted(parity=parity, model_dtype=dtype, num_layers=3 if parity else 2)
    small = shrunk(potential)
    with torch.no_grad():  # as fine-tuning on a domain with other neighbours would leave it
        small.network.layer(1).denominator.mul_(1.1)
    written = write_nequip(small)
    assert str(written.model_dtype) == f"torch.{dtype}"
    tolerance = 1e-5 if dtype == "float32" else 1e-9
    sizes = [sum(p.numel() for p in m.parameters()) for m in (written, build(parity=parity))]
    assert sizes[0] < sizes[1]
    for atoms in (ethanol(), methanol_crystal()):
        energy, forces, stress = results(small, atoms)
        found, own_forces, own_stress = own_results(written, atoms)
        assert abs(found - energy) <= (2e-5 if dtype == "float32" else 1e-9)
        assert relative(own_forces, forces) <= tolerance
        if stress is not None:
            assert relative(own_stress, stress) <= 2 * tolerance


def test_other_shapes_are_written_or_refused():
    turned = read_nequip(build_full(convnet_sc=False))
    atoms = ethanol()
    assert relative(own_results(write_nequip(turned), atoms)[1], results(turned, atoms)[1]) < 1e-9
    shifted = read_nequip(build_full(learnable_shift=True))
    assert relative(own_results(write_nequip(shifted), atoms)[1], results(shifted, atoms)[1]) < 1e-9
    with pytest.raises(ConfigError, match=r"lacks the path .* which NequIP has"):
        write_nequip(drop_odd_paths(turned))

    narrow = copy.deepcopy(adopted(num_layers=2).offering("conv"))
    keep = {group.name: torch.arange(group.n) < 3 for group in narrow.channel_groups()}
    apply_masks(narrow, keep)
    with pytest.raises(ConfigError, match="3 copies of 0e enter the convolution of layer 0 where"):
        write_nequip(compact(narrow))
    few = adopted(num_layers=2, type_embed_num_features=2)
    with pytest.raises(ConfigError, match="3 elements are embedded in 2 scalars"):
        write_nequip(few)


REFUSED = {
    "adds features to those of the layer before": {"convnet_resnet": True},
    "NormActivation": {"convnet_nonlinearity_type": "norm"},
    "cutoff for each pair": {"per_edge_type_cutoff": {"H": 2.0}},
    "neighbours for each type": {"avg_num_neighbors": {"H": 3.0, "C": 4.0, "O": 5.0}},
    "SiLU between two linear maps": {"readout_mlp_hidden_layers_depth": 1},
    r"has a part 'pair_potential' \(ZBL\)": {
        "pair_potential": {
            "_target_": "nequip.nn.pair_potential.ZBL",
            "units": "metal",
            "chemical_species": TYPES,
        }
    },
    "activation abs": {"convnet_nonlinearity_scalars": {"e": "abs", "o": "tanh"}},
    "type 'X1', which is no chemical element": {
        "type_names": ["H", "C", "X1"],
        "per_type_energy_scales": 1.0,
        "per_type_energy_shifts": 0.0,
    },
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_it_cannot_say_is_refused_by_name(words):
    same = ["6x0e+4x1e", "6x0e+4x1e", "6x0e"]  # residual layers need the same irreps twice
    model = build_full(**({"feature_irreps_hidden": same} | REFUSED[words]))
    with pytest.raises(UnknownLayout, match=words):
        read_nequip(model)


def test_other_layouts_are_refused():
    with pytest.raises(UnknownLayout, match="lacks a part 'layer0_convnet'"):
        read_nequip(torch.nn.Linear(2, 2))
    model = build()
    parts = next(m for m in model.modules() if hasattr(m, "type_embed"))
    # a constant that the translation does not look at: only the trial can notice
    parts.layer1_convnet.conv.tp_scatter.tp.register_forward_hook(lambda *args: 1.01 * args[-1])
    with pytest.raises(UnknownLayout, match="gives other numbers than the original"):
        read_nequip(model)
    model = build()
    parts = next(m for m in model.modules() if hasattr(m, "type_embed"))
    del parts.layer1_convnet.conv.linear_2
    with pytest.raises(UnknownLayout, match="not put together as egnn_prune knows it"):
        read_nequip(model)


def test_a_checkpoint_and_files_that_are_none(tmp_path):
    from nequip.train import NequIPLightningModule
    from nequip.utils import get_current_code_versions

    config = {"_target_": "nequip.model.NequIPGNNModel", **SETTINGS}
    with nequip_defaults():
        module = NequIPLightningModule(
            config,
            {"train": 1, "val": 0, "test": 0},
            info_dict={
                "versions": get_current_code_versions(verbose=False),
                "training_module": {"_target_": "nequip.train.NequIPLightningModule"},
            },
        )
    path = tmp_path / "best.ckpt"
    torch.save(
        {
            "state_dict": module.state_dict(),
            "hyper_parameters": dict(module.hparams),
            "pytorch-lightning_version": "2.6.0",
        },
        path,
    )
    potential = load_potential(path)
    atoms = ethanol()
    _, expected, _ = own_results(module.model["sole_model"], atoms)
    assert relative(results(potential, atoms)[1], expected) <= 1e-9
    with pytest.raises(ConfigError, match="one level of theory"):
        load_potential(path, modal="PBE")
    for name in ("broken.ckpt", "broken.nequip.zip"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(InputError, match=f"nequip cannot read .*{name}"):
            load_potential(tmp_path / name)
