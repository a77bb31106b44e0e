"""From settings and data to a fresh model, and from a trained model to its error bars."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch_geometric.data import Batch

from egnn_prune.configs.settings import Settings, UncertaintySettings
from egnn_prune.data import GraphDataset
from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel, TargetScale
from egnn_prune.uncertainty import DeepEnsemble, Estimator, LastLayer, MCDropout, SinglePass


def build_model(settings: Settings, dataset: GraphDataset) -> nn.Module:
    """A fresh dense model, its target scale fitted on the training split.

    Args:
        settings: the model's and the uncertainty method's are read.
        dataset: its training split tells the elements and the scale of the target.
    """
    s, u = settings.model, settings.uncertainty

    def build(scale: TargetScale) -> PropertyModel:
        read_out: dict[str, Any] = {
            "hidden": s.hidden,
            "layers": s.layers,
            "members": u.members if u.method == "shallow" else 1,
            "pool": "sum" if dataset.extensive else "mean",
            "readout_dropout": s.readout_dropout,
            "scale": scale,
        }
        if s.network == "irreps":
            assert s.cutoff is not None
            irreps = IrrepsOptions(cutoff=s.cutoff, lmax=s.lmax, dropout=s.dropout)
            return PropertyModel.build_irreps(
                dataset.elements,
                copies=s.copies,
                radial=s.hidden,
                options=irreps,
                **read_out,
            )
        options = EGNNOptions(
            attention=s.attention,
            update_positions=s.update_positions,
            radial=s.radial,
            cutoff=s.cutoff,
            aggregation=s.aggregation,
            dropout=s.dropout,
        )
        return PropertyModel.build(dataset.elements, options=options, **read_out)

    batch = Batch.from_data_list(dataset.split("train"))
    counts = build(TargetScale()).element_counts(batch)
    scale = TargetScale.fit(counts if dataset.extensive else counts[:, :0], batch.y)
    members = u.members if u.method == "deep" else 1
    models = [build(scale).to(getattr(torch, settings.precision)) for _ in range(members)]
    return DeepEnsemble(models) if members > 1 else models[0]


def build_estimator(settings: UncertaintySettings, network: nn.Module) -> Estimator:
    """A network with the uncertainty method of the settings, not yet fitted.

    Args:
        settings: the method's name and sizes.
        network: trained.
    """
    if settings.method == "dropout":
        return MCDropout(network, settings.samples)
    if settings.method == "last_layer":
        return LastLayer(network)
    return SinglePass(network)  # the network itself is an ensemble, or states its variance
