"""One prediction path: what a trained model says of structures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from trained_models import ethanol, trained

from egnn_prune import save
from egnn_prune.ase.structures import graph_of
from egnn_prune.deployment.atom_pass import AtomPass
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import InputError


@pytest.fixture
def model(tmp_path):
    """``model(**metadata)``: a model of energies in kcal/mol."""

    def make(**metadata: object) -> TrainedModel:
        save(trained(), tmp_path / "m.safetensors", target="energy", unit="kcal/mol", **metadata)
        return TrainedModel.load(tmp_path / "m.safetensors")

    return make


def test_molecules_and_crystals_alone_and_together(model):
    crystal = Atoms("CO", [[0, 0, 0], [1.2, 1.4, 1.3]], cell=[3, 3.2, 3.4], pbc=True)
    structures = [ethanol(), crystal, molecule("H2O")]
    graphs, model = [graph_of(atoms) for atoms in structures], model()
    together = model.predict(graphs, forces=True, coverage=0.9)
    assert model.predict([]) == []
    for graph, found in zip(graphs, together, strict=True):
        (alone,) = model.predict([graph])
        assert alone.mean == pytest.approx(found.mean) and alone.forces is alone.interval is None
        assert found.forces.shape == graph.pos.shape and found.stress is None
        assert found.interval[0] < found.mean < found.interval[1]
        assert found.unit == "kcal/mol" and 0 < found.ood_score == found.epistemic_std < found.std
        assert found.in_distribution is None and found.reason == ""
    (strained,) = model.predict(graphs[1:2], stress=True)
    assert strained.stress.shape == (3, 3) and strained.forces.shape == (2, 3)
    two = model.predict([graphs[0], graphs[2]], forces=True)  # one batch
    assert [len(found.forces) for found in two] == [9, 3]
    for found, other in zip(two, together[::2], strict=True):
        assert np.allclose(found.forces, other.forces) and found.mean == pytest.approx(other.mean)


def test_one_decision_about_the_distribution(model):
    domain = TrainingDomain.of([graph_of(ethanol(seed=seed)) for seed in range(20)]).to_json()
    graphs = [graph_of(ethanol(seed=30)), graph_of(molecule("CO"))]
    inside, outside = model(training_domain=domain).predict(graphs)
    assert inside.in_distribution is None and outside.in_distribution is False
    assert inside.atoms_in_distribution.all() and not outside.atoms_in_distribution.any()
    assert outside.reason.startswith("it has 2 atoms, in training 9")
    found = model(validation_epistemic_std={"q99": 1e9}).predict(graphs)
    assert [one.in_distribution for one in found] == [True, True] and found[0].unlike is None
    strict = model(validation_epistemic_std={"q99": 1e9}).predict(graphs, threshold=1e-9)
    assert strict[0].reason == "its epistemic deviation is beyond 1e-09 kcal/mol"
    exact = model().predict(graphs, threshold=inside.ood_score)
    assert exact[0].in_distribution is True


def test_another_unit(model):
    graph = graph_of(ethanol())
    (found,) = model().predict([graph], forces=True, coverage=0.9, threshold=50.0)
    there = found.converted(0.5, "half")
    for name in ("mean", "std", "epistemic_std", "ood_score", "threshold"):
        assert getattr(there, name) == 0.5 * getattr(found, name)
    assert np.array_equal(there.forces, 0.5 * found.forces) and there.unit == "half"
    assert there.interval == (0.5 * found.interval[0], 0.5 * found.interval[1])
    assert there.stress is None and there.in_distribution is found.in_distribution is True


def test_forces_that_are_not_finite_are_refused(model, monkeypatch):
    def broken(method, batch, **_):
        return AtomPass(method.predict(batch), torch.full((9, 3), torch.nan), None, None, None)

    monkeypatch.setattr("egnn_prune.deployment.trained_model.atom_pass", broken)
    with pytest.raises(InputError, match=r"forces of .* are NaN or infinite"):
        model().predict([graph_of(ethanol())], forces=True)
