"""NequIP's own network at the irreps of our :class:`IrrepsNet`, run by NequIP's own code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from egnn_prune.adapters.nequip_own import nequip_defaults
from egnn_prune.bench.cases import NEIGHBOURS, Case
from egnn_prune.bench.contender import Contender, Unavailable
from egnn_prune.bench.inputs import Inputs

ELEMENTS = ["H", "C", "O"]


def nequip(case: Case, device: str, compiled: bool) -> Contender:
    """The network of the case, without derivatives: passes take them as for the others.

    Raises:
        Unavailable: NequIP is not installed, or ought to be compiled.
    """
    if compiled:
        raise Unavailable("nequip has a compiler of its own, nequip-compile, not measured here")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NequIP's own imports
            from nequip.model import NequIPGNNModel
    except ImportError as error:
        raise Unavailable(f"nequip is not installed ({error})") from None
    with nequip_defaults():
        network: Any = NequIPGNNModel(
            seed=0,
            model_dtype="float32",
            r_max=case.cutoff or 5.0,
            type_names=ELEMENTS,
            num_layers=case.layers,
            l_max=2,
            parity=False,
            num_features=case.hidden,
            radial_mlp_depth=2,
            radial_mlp_width=64,
            avg_num_neighbors=NEIGHBOURS,
            per_type_energy_scales=1.0,
            per_type_energy_shifts=0.0,
            do_derivatives=False,
        )
    network = network.to(device)

    def outputs(inputs: Inputs) -> Sequence[Tensor]:
        data = {
            "pos": inputs.pos,
            "edge_index": inputs.edge_index.flip(0),  # NequIP's rows are (centre, neighbour)
            "atom_types": inputs.batch.z,
            "batch": inputs.batch.batch,
            "num_atoms": inputs.batch.ptr.diff(),
        }
        return (network(data)["total_energy"],)

    parameters = [p for p in network.parameters() if p.requires_grad]
    return Contender(outputs, parameters, parameters[0], network)
