"""Trained models in TorchSim, which simulates many structures side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.deployment.atom_pass import AtomPass, atom_pass
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import InputError
from egnn_prune.system.lazy_imports import naming_extras
from egnn_prune.uncertainty import Estimator
from egnn_prune.uncertainty.estimator import finite

with naming_extras("egnn_prune.torchsim needs"):
    from torch_sim.models.interface import ModelInterface


class TorchSimModel(ModelInterface):
    r"""Energies, forces, stresses and their error bars for TorchSim, in eV and Angstrom.

    What it returns, of B systems of N atoms in all: ``energy [B]``, ``forces [N, 3]``,
    ``stress [B, 3, 3]`` (NaN of molecules, which have none), and, where the model states them,
    ``energy_std [B]``, the calibrated standard deviation, ``energy_epistemic_std [B]``, its
    epistemic part, ``forces_std [N]``, the calibrated standard deviation of each component of the
    force, and ``atoms_distance [N]``, how far the network sees each atom from its training atoms,
    in units of the limit. TorchSim carries these along as extras of the state.

    Args:
        model: the folder of a run, a ``.safetensors`` file, an estimator, or a
            :class:`~egnn_prune.deployment.TrainedModel`.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; a model in memory stays where it
            is.
        dtype: of what it returns; float32 cannot hold energies of -20,000 eV to better than 2 meV.
        compute_forces: whether forces are computed.
        compute_stress: whether stresses are, and forces with them.
        which: ``"pruned"`` or ``"dense"``, of a run's folder.
        unit: of the model's energies where it does not say.

    Raises:
        MissingExtraError: (at import) TorchSim is not installed; it needs Python 3.12.
        ConfigError: the model predicts no potential energy, or an argument cannot be used.
        InputError: the model cannot be read; (in ``forward``) a number is NaN or infinite.
        DataError: (in ``forward``) a system cannot be used, such as for an unknown element.

    Example:
        >>> model = TorchSimModel("runs/demo")  # doctest: +SKIP
        >>> state = torch_sim.optimize(atoms, model, optimizer="fire")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path | Estimator | TrainedModel,
        device: str = "auto",
        dtype: torch.dtype = torch.float64,
        *,
        compute_forces: bool = True,
        compute_stress: bool = True,
        which: str = "pruned",
        unit: str | None = None,
    ) -> None:
        super().__init__()
        self.trained = TrainedModel.load(model, which, device, unit)
        self.electronvolts = self.trained.electronvolts()
        self.estimator = self.trained.estimator  # so that it moves with this module
        self._dtype = dtype
        self._compute_forces, self._compute_stress = compute_forces, compute_stress
        self._memory_scales_with = "n_atoms" if self.trained.cutoff is None else "n_atoms_x_density"

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.trained.device

    @property
    def compute_forces(self) -> bool:
        """Whether forces are computed."""
        return self._compute_forces or self._compute_stress

    @compute_forces.setter
    def compute_forces(self, value: bool) -> None:
        self._compute_forces = value

    @property
    def compute_stress(self) -> bool:
        """Whether stresses are computed."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, value: bool) -> None:
        self._compute_stress = value

    def forward(self, state: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Energies, forces, stresses and error bars of all systems of a state.

        Args:
            state: a ``SimState``; it is not changed.
            kwargs: ignored, as TorchSim's own models do.
        """
        model, batch = self.trained, self._batch(state)
        periodic = "cell" in batch
        found = atom_pass(
            model.method,
            batch,
            forces=self.compute_forces,
            stress=self.compute_stress and periodic,
            members=self.compute_forces and model.force_error_bars_are_free and model.reads_members,
        )
        values = self._values(found, batch.z)
        if self.compute_stress and not periodic:
            systems = values["energy"].shape[0]
            values["stress"] = torch.full((systems, 3, 3), torch.nan)
        return {k: v.detach().to(state.device, self._dtype) for k, v in values.items()}

    def _batch(self, state: Any) -> Data:
        """The systems as one batch of graphs."""
        batch = Data(z=state.atomic_numbers.long(), pos=state.positions.detach().double())
        batch.batch = state.system_idx
        sizes = state.system_idx.bincount(minlength=state.n_systems)
        batch.ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        if bool(state.pbc.any()):
            batch.cell = state.cell.detach().double().mT.contiguous()  # its vectors are columns
            batch.pbc = state.pbc.expand(state.n_systems, 3)
        return batch.to(self.device)

    def _values(self, found: AtomPass, z: Tensor) -> dict[str, Tensor]:
        """What a pass found, in eV and Angstrom.

        Raises:
            InputError: a number is NaN or infinite.
        """
        model, ev = self.trained, self.electronvolts
        finite(found.prediction)
        with torch.no_grad():
            calibrated: Any = model.calibration(found.prediction)
        values = {"energy": ev * calibrated.mean}
        for name in ("forces", "stress"):
            slope = getattr(found, name)
            if slope is not None:
                values[name] = ev * slope
        if not all(bool(value.isfinite().all()) for value in values.values()):
            raise InputError(
                f"forces of {model.source} are NaN or infinite; check the state and the weights"
            )
        if model.has_error_bars:  # zeros would claim certainty
            values["energy_std"] = ev * calibrated.variance.sqrt()
            values["energy_epistemic_std"] = ev * calibrated.ood_variance.sqrt()
        bars = model.force_error_bars
        if bars is not None:
            std, distance = found.error_bars(bars, z)
            if distance is not None:
                values["atoms_distance"] = distance
            if std is not None and self.compute_forces:
                values["forces_std"] = ev * std
        return values


__all__ = ["TorchSimModel"]
