"""TorchSim's own checks of models, on ours (with Python 3.12, where TorchSim is installed)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from small_adopted import masked, potential
from trained_models import calibrated

from egnn_prune import compact, prune
from egnn_prune.ase import PrunedCalculator
from egnn_prune.errors import DataError, MissingExtraError
from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel, TargetScale
from egnn_prune.uncertainty import DeepEnsemble, MCDropout, SinglePass

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        import torch_sim as ts
        from torch_sim.models.interface import validate_model_outputs
        from torch_sim.testing import SIMSTATE_GENERATORS, assert_model_calculator_consistency

        from egnn_prune.torchsim import TorchSimModel
except (ImportError, MissingExtraError):
    ts, SIMSTATE_GENERATORS = None, {}

with_torch_sim = pytest.mark.skipif(ts is None, reason="the extra [torchsim] is not installed")
CPU = torch.device("cpu")
#: Of all structures of TorchSim's own tests.
ELEMENTS = (1, 6, 7, 8, 12, 13, 14, 18, 20, 22, 26, 28, 29, 31, 51, 76)
SCALE = TargetScale(tuple(-10.0 * z for z in ELEMENTS), 0.0, 2.0)


def egnn(seed: int = 0, **keywords) -> PropertyModel:
    torch.manual_seed(seed)
    options = EGNNOptions(radial=4, cutoff=3.5, dropout=keywords.pop("dropout", 0.0))
    settings = {"hidden": 6, "layers": 2, "options": options, "scale": SCALE}
    return PropertyModel.build(ELEMENTS, **settings, **keywords).double().eval()


def irreps() -> PropertyModel:
    torch.manual_seed(0)
    options = IrrepsOptions(cutoff=3.5, lmax=1)
    settings = {"copies": 4, "layers": 2, "radial": 4, "hidden": 4, "scale": SCALE}
    return PropertyModel.build_irreps(ELEMENTS, **settings, options=options).double().eval()


MODELS = {
    "egnn": lambda: calibrated(SinglePass(egnn())),
    "compact egnn": lambda: calibrated(SinglePass(compact(prune(egnn(), "magnitude", 0.5)))),
    "irreps": lambda: calibrated(SinglePass(irreps())),
    "compact irreps": lambda: calibrated(SinglePass(compact(prune(irreps(), "magnitude", 0.4)))),
    "shallow ensemble": lambda: calibrated(SinglePass(egnn(members=3))),
    "deep ensemble": lambda: calibrated(SinglePass(DeepEnsemble([egnn(s) for s in range(2)]))),
    "dropout": lambda: calibrated(MCDropout(egnn(dropout=0.2), 3)),
}


@with_torch_sim
@pytest.mark.parametrize("name", MODELS)
def test_torch_sims_own_validation(name):
    model = TorchSimModel(MODELS[name](), unit="eV")
    validate_model_outputs(model, CPU, torch.float64)


@with_torch_sim
@pytest.mark.parametrize("state", SIMSTATE_GENERATORS)
def test_it_says_what_the_calculator_says(state):
    """TorchSim's own comparison, on each of its own structures."""
    estimator = MODELS["compact egnn"]()
    made = SIMSTATE_GENERATORS[state](CPU, torch.float64)
    model = TorchSimModel(estimator, unit="eV", compute_stress=bool(made.pbc.all()))
    calculator = PrunedCalculator(estimator, unit="eV", on_uncertain="ignore")
    assert_model_calculator_consistency(model, calculator, made)


@with_torch_sim
@pytest.mark.parametrize("change", [lambda p: p, masked], ids=["as it is", "masked"])
def test_adopted_potentials(change):
    estimator = SinglePass(change(potential()))
    atoms = molecule("CH3CH2OH")
    state = ts.io.atoms_to_state([atoms, molecule("H2O")], CPU, torch.float64)
    model = TorchSimModel(estimator, compute_stress=False)
    found = model(state)
    atoms.calc = PrunedCalculator(estimator)
    assert float(found["energy"][0]) == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert np.allclose(found["forces"][:9].numpy(), atoms.get_forces(), atol=1e-10)
    assert set(found) == {"energy", "forces"}  # it states no error bars


@with_torch_sim
def test_error_bars_are_the_calculators():
    estimator = MODELS["deep ensemble"]()
    systems = [bulk("Si", "diamond", a=5.43), molecule("H2O")]
    for atoms in systems:
        state = ts.io.atoms_to_state([atoms], CPU, torch.float64)
        found = TorchSimModel(estimator, unit="eV")(state)
        atoms.calc = PrunedCalculator(estimator, unit="eV", on_uncertain="ignore")
        atoms.get_potential_energy()
        for name, ours in (("energy_std", "energy_uncertainty"), ("energy_epistemic_std",) * 2):
            assert float(found[name][0]) == pytest.approx(atoms.calc.results[ours], rel=1e-9)
        assert bool(found["stress"].isnan().all()) == (not atoms.pbc.any())
    single = TorchSimModel(estimator, unit="eV", dtype=torch.float32)(state)
    assert all(value.dtype == torch.float32 for value in single.values())


@with_torch_sim
def test_units_and_unknown_elements():
    estimator = MODELS["egnn"]()
    state = ts.io.atoms_to_state([molecule("H2O")], CPU, torch.float64)
    ev, kcal = (TorchSimModel(estimator, unit=unit)(state) for unit in ("eV", "kcal/mol"))
    for name in ("energy", "forces", "energy_std"):
        assert torch.allclose(kcal[name], 0.0433641 * ev[name], rtol=1e-5)
    gold = ts.io.atoms_to_state([bulk("Au")], CPU, torch.float64)
    with pytest.raises(DataError, match="element Au"):
        TorchSimModel(estimator, unit="eV")(gold)


@with_torch_sim
def test_torch_sims_dynamics_conserve_energy_and_optimiser_goes_down():
    systems = [bulk("Si", "diamond", a=5.43), bulk("Si", "diamond", a=5.2)]
    for atoms in systems:
        atoms.rattle(0.05, seed=1)
    model = TorchSimModel(MODELS["egnn"](), unit="eV")
    start = model(ts.io.atoms_to_state(systems, CPU, torch.float64))["energy"]
    state = ts.optimize(systems, model, optimizer=ts.Optimizer.fire, max_steps=20)
    assert bool((state.energy < start).all())
    moving = ts.io.atoms_to_state([a.repeat((2, 1, 1)) for a in systems], CPU, torch.float64)
    moving.rng = 0
    start = ts.integrate(moving, model, integrator=ts.Integrator.nve, n_steps=1,
                         temperature=300, timestep=0.0005)  # fmt: skip
    end = ts.integrate(start, model, integrator=ts.Integrator.nve, n_steps=40,
                       temperature=300, timestep=0.0005)  # fmt: skip

    def total(state) -> torch.Tensor:
        kinetic = 0.5 * (state.momenta.square().sum(1) / state.masses)
        return state.energy.index_add(0, state.system_idx, kinetic)

    assert bool(((total(end) - total(start)).abs() < 1e-3).all())
    assert bool((end.energy - start.energy).abs().max() > 1e-6)


def test_without_torch_sim_it_is_said(monkeypatch):
    if ts is not None:
        pytest.skip("TorchSim is installed")
    with pytest.raises(MissingExtraError, match=r"pip install 'egnn_prune\[torchsim\]'"):
        import egnn_prune.torchsim  # noqa: F401
