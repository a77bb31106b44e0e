"""What users import stays importable, wherever the code moves to."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "egnn_prune": "EGNN IrrepsNet Prediction PropertyModel channel_groups compact fine_tune forces "
    "load load_estimator prune save sparsity_sweep",
    "egnn_prune.ase": "PrunedCalculator UncertaintyExceeded UncertaintyGuard UncertaintyWarning",
    "egnn_prune.checkpoint": "load load_estimator read_header save",
    "egnn_prune.data": "load",
    "egnn_prune.export": "export_onnx export_program tensors",
    "egnn_prune.inference": "predict_structures write_predictions",
    "egnn_prune.pruning": "CRITERIA SCHEDULES SCOPES WEIGHT_CRITERIA ChannelGroup Context Member "
    "Movement TracedNetwork apply_masks apply_weight_masks choose choose_weights choose_within "
    "compact compact_with_optimizer count_macs effective_masks effective_sparsity freeze hold "
    "incremental keep_masks latency_of ledger lift_masks macs_of n_m_mask reinitialise release "
    "rewind score_channels score_weights shuffle_masks snapshot sparsities thaw",
    "egnn_prune.testing": "MAX_SHIFT assert_equivariant assert_prunable equivariance_error "
    "random_transform",
    "egnn_prune.uncertainty": "CALIBRATIONS Calibrated Calibration DeepEnsemble Estimator "
    "IsotonicQuantiles LastLayer MCDropout ModuleDropout MonotoneVariance PredictionRigidity "
    "RobustScaling SinglePass SplitConformal TemperatureScaling VarianceScaling calibrate "
    "classification_scores draw_networks dropout_modules mc_dropout ood_scores "
    "out_of_distribution_scores regression_scores thinned",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_what_users_import_stays_importable(module):
    found = importlib.import_module(module)
    assert [name for name in PUBLIC[module].split() if not hasattr(found, name)] == []
