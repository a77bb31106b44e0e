"""The energies of single atoms, fitted anew to other data than a potential was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from egnn_prune.channels import evaluating
from egnn_prune.data.collation import loader
from egnn_prune.errors import ConfigError, DataError


def refit_shifts(model: nn.Module, graphs: Sequence[Data], batch_size: int = 16) -> None:
    r"""Change a potential's per-element energies to those of the data, in place and in float64.

    .. math:: \delta = \arg\min_\delta
        \sum_b \Big(E_b^\text{ref} - E_b - \sum_a \delta_{z_a}\Big)^2,
        \qquad c_z \to c_z + \delta_z

    with the smallest :math:`\delta` of all that fit alike: elements whose counts are collinear in
    the data (one formula) share the change, and elements that are not there keep their energy.
    Two methods of electronic structure differ by thousands of eV in these and by far less in all
    else, so this comes before fine-tuning on other data than the teacher's.

    Args:
        model: has ``elements`` and a ``scale`` with energies per element, such as
            :class:`~egnn_prune.models.PropertyModel`.
        graphs: structures with energies ``y [1]`` in eV.
        batch_size: structures per pass.

    Raises:
        ConfigError: the model has no energies per element.
        DataError: there are no structures, one has no energy, or energies are NaN or infinite.
    """
    potential: Any = model
    elements = getattr(model, "elements", ())
    if not elements or not potential.scale.per_element:
        raise ConfigError(
            f"{type(model).__name__} has no energies per element to be refitted; give it a scale "
            "with per_element"
        )
    if not len(graphs):
        raise DataError("refitting the energies per element needs at least one structure")
    known = torch.tensor(elements)
    counts, rest = [], []
    device = next(model.parameters()).device
    with torch.no_grad(), evaluating(model):
        for batch in loader(graphs, batch_size):
            y = getattr(batch, "y", None)
            if y is None or y.numel() != batch.num_graphs:
                raise DataError(
                    "refitting the energies per element needs an energy y [1] of every structure"
                )
            rest.append(y.reshape(-1).double() - model(batch.to(device)).mean.double().cpu())
            one_hot = (batch.z.cpu()[:, None] == known).double()
            total = torch.zeros(batch.num_graphs, len(known), dtype=torch.float64)
            counts.append(total.index_add(0, batch.batch.cpu(), one_hot))
    residual = torch.cat(rest)
    if not bool(residual.isfinite().all()):
        number = int((~residual.isfinite()).nonzero()[0])
        raise DataError(
            f"the energy of structure {number}, or what the model predicts for it, is NaN or "
            "infinite; mend or leave out that structure"
        )
    change = torch.linalg.lstsq(torch.cat(counts), residual[:, None], driver="gelsd").solution[:, 0]
    shifts = torch.tensor(potential.scale.per_element, dtype=torch.float64) + change
    potential.scale = replace(potential.scale, per_element=tuple(shifts.tolist()))
