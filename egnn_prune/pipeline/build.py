"""From settings and data to a fresh model, and from a trained model to its error bars."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from egnn_prune.configs.settings import (
    METHODS,
    ModelSettings,
    Settings,
    UncertaintySettings,
    readout_dropout,
)
from egnn_prune.data import GraphDataset
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import (
    EGNNOptions,
    IrrepsOptions,
    PositionModel,
    PropertyModel,
    TargetScale,
)
from egnn_prune.pipeline.affordable import affordable
from egnn_prune.prediction import Predictor
from egnn_prune.uncertainty import (
    DeepEnsemble,
    Estimator,
    LastLayer,
    MCDropout,
    NoiseAndRigidity,
    SinglePass,
)


def build_model(settings: Settings, dataset: GraphDataset) -> Predictor:
    """A fresh dense model, its target scale fitted on the training split.

    Args:
        settings: the model's and the uncertainty method's are read.
        dataset: its training split tells the elements and the scale of the target.

    Raises:
        ConfigError: it would not fit into memory, or the settings contradict the data.
    """
    s, u = settings.model, settings.uncertainty
    if dataset.outputs == "positions":
        networks = [build_position_model(settings, dataset)]
        while u.method == "deep" and len(networks) < u.members:
            networks.append(build_position_model(settings, dataset))
        return DeepEnsemble(networks) if len(networks) > 1 else networks[0]

    def build(scale: TargetScale) -> PropertyModel:
        with affordable(settings):
            return build_any(scale)

    def build_any(scale: TargetScale) -> PropertyModel:
        read_out: dict[str, Any] = {
            "hidden": s.hidden,
            "layers": s.layers,
            "members": u.members if u.method == "shallow" else 1,
            "pool": "sum" if dataset.extensive else "mean",
            "readout_dropout": readout_dropout(settings),
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
        return PropertyModel.build(dataset.elements, options=egnn_options(s), **read_out)

    scale = target_scale(build(TargetScale()), dataset, settings.training.force_weight > 0)
    members = u.members if u.method == "deep" else 1
    models = [build(scale).to(getattr(torch, settings.precision)) for _ in range(members)]
    return DeepEnsemble(models) if members > 1 else models[0]


def egnn_options(settings: ModelSettings, **data: Any) -> EGNNOptions:
    """What an EGNN computes by the settings, and by what the data brings along."""
    return EGNNOptions(
        attention=settings.attention,
        update_positions=settings.update_positions,
        radial=settings.radial,
        cutoff=settings.cutoff,
        aggregation=settings.aggregation,
        dropout=settings.dropout,
        normalise=settings.normalise,
        **data,
    )


def target_scale(model: PropertyModel, dataset: GraphDataset, forces: bool) -> TargetScale:
    """The target's normalisation, fitted on the training split.

    Args:
        model: counts elements.
        dataset: the data.
        forces: make the root mean square force (times one unit of length) the scale, so that
            normalised forces are of order one (Batzner et al. 2022).

    Raises:
        DataError: forces are asked for, and a training graph has none, or all of them are zero.
    """
    counts, y, squares = [], [], []
    for batch in DataLoader(dataset.split("train"), 1024):
        counts.append(model.element_counts(batch))
        y.append(batch.y.double())
        if forces:
            if getattr(batch, "forces", None) is None:
                raise DataError(
                    f"{dataset.name} has no forces for some training graphs; set "
                    "training.force_weight=0"
                )
            squares.append(batch.forces.double().square().flatten())
    joined = torch.cat(counts)
    counts_of = joined if dataset.extensive else joined[:, :0]
    scale = TargetScale.fit(counts_of, torch.cat(y), isolated_energies(model, dataset))
    if not forces:
        return scale
    size = float(torch.cat(squares).mean().sqrt())
    if size == 0:
        raise DataError(
            f"all training forces are zero in {dataset.name}; read the right array as forces, or "
            "set training.force_weight=0"
        )
    return replace(scale, scale=size)


def isolated_energies(model: PropertyModel, dataset: GraphDataset) -> Tensor | None:
    """Energies of isolated atoms, ``[elements]`` as the model has them; ``None`` if one lacks."""
    found = [dataset.references.get(z) for z in model.elements]
    if not dataset.extensive or None in found:
        return None
    return torch.tensor(found, dtype=torch.float64)


def build_position_model(settings: Settings, dataset: GraphDataset) -> PositionModel:
    """A fresh network that predicts positions; velocities and edge features are the data's.

    Raises:
        ConfigError: a setting that such a network cannot have.
    """
    s, u = settings.model, settings.uncertainty
    if s.network != "egnn" or not s.update_positions:
        raise ConfigError(
            f"{dataset.name} asks for positions: use model.network=egnn and "
            "model.update_positions=true"
        )
    if u.method in ("shallow", "last_layer", "rigidity"):
        raise ConfigError(
            f"uncertainty.method={u.method} needs a read-out of numbers, and {dataset.name} asks "
            "for positions; use mean_variance, dropout, deep, snapshot or bootstrap"
        )
    train = dataset.split("train")
    first = train[0]
    edges = getattr(first, "edge_attr", None)
    options = egnn_options(
        s,
        velocity=getattr(first, "vel", None) is not None,
        edge_features=0 if edges is None else edges.shape[1],
    )
    moved = torch.cat([(g.y - g.pos).flatten() for g in train])
    with affordable(settings):
        model = PositionModel.build(
            first.x.shape[1],
            hidden=s.hidden,
            layers=s.layers,
            readout_dropout=readout_dropout(settings),
            options=options,
            scale=float(moved.double().square().mean().sqrt()) or 1.0,
        )
    return model.to(getattr(torch, settings.precision))


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
    if settings.method == "rigidity":
        return NoiseAndRigidity(network)
    if settings.method not in METHODS:
        raise ConfigError(f"no estimator is built for uncertainty.method={settings.method}")
    return SinglePass(network)  # the network itself is an ensemble, or states its variance
