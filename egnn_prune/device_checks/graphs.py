"""Networks of graphs on a device: the same numbers, symmetry, pruning, error bars."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from egnn_prune.api import pruning as api
from egnn_prune.data import GraphDataset, load
from egnn_prune.device_checks.checking import CheckContext, Found, require
from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel, energy_and_forces
from egnn_prune.prediction import Prediction
from egnn_prune.pruning import CRITERIA, apply_masks, keep_masks
from egnn_prune.testing import assert_equivariant, assert_prunable, equivariance_error
from egnn_prune.training import graph_losses
from egnn_prune.uncertainty import (
    DeepEnsemble,
    Estimator,
    LastLayer,
    MCDropout,
    SinglePass,
    calibrate,
)

CUTOFF = 4.0
#: Largest difference to the CPU, over the largest number: sums in another order, no more. Gradients
#: of a whole network amplify what its sums differ by.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}
GRADIENT_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
#: Share of the channels in which two devices may choose otherwise, where scores nearly tie.
TIES = 0.05


def molecules() -> GraphDataset:
    """The embedded data."""
    return load("xtb").with_cutoff(CUTOFF)


def batch_of(context: CheckContext, split: str = "test", full: int = 128) -> Batch:
    """The first graphs of a split, on the CPU."""
    return Batch.from_data_list(molecules().split(split)[: context.pick(full, 12)])


def egnn(context: CheckContext, seed: int = 0, **keywords: object) -> PropertyModel:
    """An untrained network of the main job's kind, with moves of a visible length."""
    torch.manual_seed(seed)
    dropout = float(str(keywords.pop("dropout", 0.0)))
    options = EGNNOptions(attention=True, radial=20, cutoff=CUTOFF, dropout=dropout)
    model = PropertyModel.build(
        molecules().elements,
        hidden=context.pick(64, 12),
        layers=context.pick(4, 2),
        options=options,
        **keywords,  # type: ignore[arg-type]
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("position_out.weight"):
                parameter.mul_(300.0)
    return model.eval()


def irreps(context: CheckContext) -> PropertyModel:
    """An untrained e3nn network."""
    torch.manual_seed(0)
    return PropertyModel.build_irreps(
        molecules().elements,
        copies=context.pick(16, 4),
        layers=2,
        radial=8,
        hidden=context.pick(64, 8),
        options=IrrepsOptions(cutoff=CUTOFF, lmax=context.pick(2, 1)),
    ).eval()


NETWORKS: dict[str, Callable[[CheckContext], PropertyModel]] = {"egnn": egnn, "irreps": irreps}


def deviation(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest number, in float64 on the CPU."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    require(found.shape == wanted.shape, f"shapes {found.shape} and {wanted.shape} differ")
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


def cases(context: CheckContext, full: int) -> Iterator[tuple[str, str, PropertyModel, Batch]]:
    """Every network in both precisions: its name, the precision's, it and a batch, on the CPU."""
    for name, build in NETWORKS.items():
        for dtype in TOLERANCE:
            batch = batch_of(context, full=full)
            batch = batch.apply(lambda t, d=dtype: t.to(d) if t.is_floating_point() else t)
            yield name, str(dtype).removeprefix("torch."), build(context).to(dtype), batch


def same_numbers(context: CheckContext, found: Found) -> None:
    """Energies, forces and gradients of the loss equal those of the CPU; so do those of a step."""
    found["tolerance"] = TOLERANCE[torch.float32]
    wrong = []
    for name, precision, here, batch in cases(context, 64):
        there, moved = copy.deepcopy(here).to(context.device), batch.clone().to(context.device)
        expected, computed = energy_and_forces(here, batch), energy_and_forces(there, moved)
        graph_losses(here, batch).mean().backward()
        graph_losses(there, moved).mean().backward()
        gradients = [
            torch.cat([p.grad.flatten().cpu() for p in m.parameters() if p.grad is not None])
            for m in (there, here)
        ]
        values = {
            "energy": (deviation(computed[0].mean, expected[0].mean), TOLERANCE),
            "forces": (deviation(computed[1], expected[1]), TOLERANCE),
            "gradient": (deviation(*gradients), GRADIENT_TOLERANCE),
        }
        for quantity, (value, limits) in values.items():
            label, limit = f"{name} {quantity} {precision}", limits[batch.pos.dtype]
            found[label] = value
            if not value <= limit:
                wrong.append(f"{label} differs by {value:.1e}, allowed {limit:.0e}")
    require(not wrong, "; ".join(wrong))


def symmetry_and_compaction(context: CheckContext, found: Found) -> None:
    """Networks turn with their molecules, and the compact one computes what the masked one did."""
    for name, precision, model, batch in cases(context, 32):
        model, batch = model.to(context.device), batch.to(context.device)
        assert_equivariant(model, batch)
        assert_prunable(model, batch)
        found[f"{name} {precision}"] = equivariance_error(model, batch)
        apply_masks(model, {g.name: torch.arange(g.n) % 3 != 0 for g in model.channel_groups()})
        small = api.compact(model)
        require(next(small.parameters()).device == batch.pos.device, "compact left the device")
        with torch.no_grad():
            difference = deviation(small(batch).mean, model(batch).mean)
        found[f"{name} masked - compact {precision}"] = difference
        limit = TOLERANCE[batch.pos.dtype]
        require(difference <= limit, f"{name}: masked and compact differ: {found}")


def criteria(context: CheckContext, found: Found) -> None:
    """Every criterion prunes on the device and keeps what it keeps on the CPU, near-ties aside."""
    batches = [batch_of(context, "train", 32) for _ in range(2)]
    moved = [batch.clone().to(context.device) for batch in batches]
    wrong = []
    for name in CRITERIA:
        if name == "movement":  # watches training
            continue
        here = egnn(context, readout_dropout=0.1, members=2)
        there = copy.deepcopy(here).to(context.device)
        a = api.prune(here, name, 0.4, data=batches, scope="group")
        b = api.prune(there, name, 0.4, data=moved, scope="group")
        masks = [torch.cat([m.cpu() for m in keep_masks(x).values()]) for x in (a, b)]
        found[name] = float((masks[0] != masks[1]).double().mean())
        if found[name] > TIES:
            wrong.append(f"{name} chooses {found[name]:.0%} of the channels otherwise")
    require(not wrong, "; ".join(wrong))


def error_bars(context: CheckContext, found: Found) -> None:
    """Every way to error bars has a spread, the same as on the CPU, and can be calibrated."""
    batch, val, train = (batch_of(context, split, 64) for split in ("test", "val", "train"))
    found["tolerance"] = TOLERANCE[torch.float32]

    def dropout(device: torch.device) -> Estimator:
        model = egnn(context, dropout=0.1, readout_dropout=0.1).to(device)
        return MCDropout(model, samples=context.pick(20, 4), seed=0)

    methods: dict[str, Callable[[torch.device], Estimator]] = {
        "MC dropout": dropout,
        "deep": lambda d: SinglePass(DeepEnsemble([egnn(context, k) for k in range(3)]).to(d)),
        "shallow": lambda d: SinglePass(egnn(context, members=3).to(d)),
        "last layer": lambda d: LastLayer(egnn(context).to(d)).fit([train.clone().to(d)]),
    }
    wrong = []
    for name, make in methods.items():
        here, there = make(torch.device("cpu")), make(context.device)
        expected, computed = here.predict(batch), there.predict(batch.clone().to(context.device))
        assert isinstance(expected, Prediction) and isinstance(computed, Prediction)
        spread = computed.epistemic.sqrt().mean()
        found[f"{name} spread"] = float(spread)
        found[f"{name} deviation"] = deviation(computed.mean, expected.mean)
        # a covariance is the inverse of a sum: it may differ more than what it is made of
        found[f"{name} epistemic deviation"] = deviation(computed.epistemic, expected.epistemic)
        limit = GRADIENT_TOLERANCE[torch.float32] * (20 if name == "last layer" else 1)
        if not spread > 0:
            wrong.append(f"{name} states no spread at all")
        if found[f"{name} deviation"] > TOLERANCE[torch.float32]:
            wrong.append(f"the means of {name} differ")
        if found[f"{name} epistemic deviation"] > limit:
            wrong.append(f"the epistemic variances of {name} differ")
        calibrated = calibrate(there, [val.clone().to(context.device)], "robust")
        low, high = calibrated.interval(batch.clone().to(context.device), coverage=0.9)
        if not bool((high > low).all()):
            wrong.append(f"an interval of {name} is empty")
    require(not wrong, "; ".join(wrong))


def parameters_of(model: nn.Module) -> int:
    """How many weights a network has."""
    return sum(p.numel() for p in model.parameters())
