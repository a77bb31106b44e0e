"""A saved model at work on a device: predictions for files of structures, and dynamics."""

from __future__ import annotations

import ase.io
import numpy as np
import torch
from ase.build import molecule

from egnn_prune.ase.predict_file import predict_structures
from egnn_prune.ase.simulation import simulate
from egnn_prune.data import load
from egnn_prune.deployment import checkpoint
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.device_checks.checking import CheckContext, Found, require
from egnn_prune.device_checks.graphs import TOLERANCE, egnn
from egnn_prune.uncertainty import MCDropout, calibrate

#: Of a harmless potential in float32, meV/atom/ps.
DRIFT = 50.0


def predictions_and_dynamics(context: CheckContext, found: Found) -> None:
    """A file of structures gets the CPU's values and forces; a trajectory keeps its energy."""
    from torch_geometric.data import Batch

    # Weak moves and a read-out that has seen nothing: a smooth, shallow potential, which holds
    # together for as long as the check runs.
    model = egnn(context, readout_dropout=0.1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("position_out.weight"):
                parameter.div_(300.0)
    val = Batch.from_data_list(load("xtb").with_cutoff(4.0).split("val")[: context.pick(128, 20)])
    estimator = calibrate(MCDropout(model, samples=context.pick(20, 3), seed=0), [val])
    path = context.folder / "potential.safetensors"
    checkpoint.save(estimator, path, target="energy", unit="eV", units={"pos": "Angstrom"})
    atoms = molecule("CH3CH2OH")
    random = np.random.default_rng(0)
    structures = []
    for _ in range(context.pick(200, 10)):
        structures.append(atoms.copy())
        structures[-1].positions += 0.05 * random.normal(size=(len(atoms), 3))
    file = context.folder / "structures.xyz"
    ase.io.write(file, structures)
    values = {}
    for device in ("cpu", str(context.device)):
        made = predict_structures(TrainedModel.load(path, device=device), file)
        values[device] = (
            np.array([[row["value"], row["std"]] for row in made.rows]),
            np.concatenate([a.get_forces() for a in made.structures]),
        )
    (numbers, forces), (numbers_there, forces_there) = values["cpu"], values[str(context.device)]
    for name, a, b in (("values", numbers, numbers_there), ("forces", forces, forces_there)):
        found[f"{name} deviation"] = float(np.abs(a - b).max() / np.abs(a).max())
    limit = TOLERANCE[torch.float32]
    found["tolerance"] = limit
    require(found["values deviation"] <= limit, "predicted values differ from the CPU's")
    require(found["forces deviation"] <= 10 * limit, "predicted forces differ from the CPU's")
    start = context.folder / "start.xyz"
    ase.io.write(start, atoms)
    report = simulate(
        path,
        start,
        context.folder / "md",
        steps=context.pick(1000, 100),
        timestep=0.5,
        interval=5,
        on_uncertain="ignore",
        device=str(context.device),
    )
    found |= {
        "drift meV/atom/ps": report.drift_meV_atom_ps,
        "steps/s": report.steps_per_second,
    }
    require(report.stopped is None, f"the dynamics stopped: {report.stopped}")
    require(abs(report.drift_meV_atom_ps) < DRIFT, "the dynamics does not conserve its energy")
