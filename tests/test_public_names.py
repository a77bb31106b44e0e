"""What users import stays importable, wherever the code moves to."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch
from trained_models import trained

from egnn_prune import Prediction, pruning, save, uncertainty
from egnn_prune.deployment import TrainedModel
from egnn_prune.report.common.files import load_metrics, load_predictions

PUBLIC = {
    "egnn_prune": "EGNN IrrepsNet Prediction PropertyModel break_even channel_groups compact "
    "fine_tune forces load load_estimator prune save sparsity_sweep",
    "egnn_prune.ase": "Collection ExportedCalculator PrunedCalculator SpecialistCalculator Teacher "
    "UncertaintyExceeded UncertaintyGuard UncertaintyWarning evaluate_many",
    "egnn_prune.audit": "AuditReport Candidate audit calculator_of",
    "egnn_prune.checkpoint": "load load_estimator read_header save",
    "egnn_prune.data": "load",
    "egnn_prune.adapters": "AdoptedPotential Committee OwnRegressor TracedNetwork load "
    "plain_radials",
    "egnn_prune.export": "export_onnx export_program tensors",
    "egnn_prune.hub": "from_pretrained pretrained_file push_to_hub save_pretrained",
    "egnn_prune.inference": "predict_structures write_predictions",
    "egnn_prune.pruning": "CRITERIA SCHEDULES SCOPES WEIGHT_CRITERIA ChannelCosts "
    "ChannelGroup Context LatencyBudget Member Movement TakingTurns TracedNetwork apply_masks "
    "apply_weight_masks best_multiple channel_costs choose choose_weights choose_within "
    "latency_share_of compact compact_with_optimizer count_macs effective_masks "
    "effective_sparsity freeze hold incremental keep_masks latency_of ledger lift_masks "
    "macs_of n_m_mask reinitialise release rewind score_channels score_weights shuffle_masks "
    "snapshot sparsities thaw",
    "egnn_prune.testing": "MAX_SHIFT assert_equivariant assert_prunable equivariance_error "
    "random_transform",
    "egnn_prune.uncertainty": "AtomDistance AtomErrorBars AtomEvidence CALIBRATIONS Calibrated "
    "Calibration DeepEnsemble Estimator IsotonicQuantiles LastLayer MCDropout ModuleDropout "
    "MonotoneVariance PowerVariance PredictionRigidity ReadoutEnsemble RobustScaling SinglePass "
    "SplitConformal NoiseAndRigidity TemperatureScaling VarianceScaling calibrate "
    "classification_scores draw_networks dropout_modules mc_dropout ood_scores "
    "out_of_distribution_scores regression_scores thinned",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_what_users_import_stays_importable(module):
    found = importlib.import_module(module)
    assert [name for name in PUBLIC[module].split() if not hasattr(found, name)] == []


def test_words_of_before_that_files_hold(tmp_path):
    path = tmp_path / "pruned.safetensors"
    save(trained(), path, target="energy", unit="eV", validation_doubt={"q99": 0.25})
    assert TrainedModel.load(path).ood_threshold == 0.25

    old = {"schema_version": 1, "dataset": {"unit": "eV"}}
    model = {"test_mae": 1.0, "params": 1, "macs_per_graph": 1, "ence_recalibrated": 0.5}
    old["models"] = {"dense": model, "pruned": model}
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    found = load_metrics(tmp_path / "metrics.json")
    assert found["models"]["dense"]["ence_calibrated"] == 0.5
    np.savez(tmp_path / "predictions.npz", test_dense_std_recalibrated=np.ones(2))
    assert list(load_predictions(tmp_path / "predictions.npz")) == ["test_dense_std_calibrated"]


def test_words_of_before_in_python():
    two = torch.zeros(1, 2)
    prediction = Prediction(two[0], two[0] + 1, two[0], two, two)
    assert torch.equal(prediction.doubt, prediction.ood_variance)
    assert pruning.hold is pruning.register_masks and pruning.release is pruning.remove_masks
    assert uncertainty.thinned is uncertainty.dropout_samples
