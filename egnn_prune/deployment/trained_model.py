"""A trained model as its users want it: structures in, values with error bars and forces out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Batch, Data

from egnn_prune.deployment.atom_pass import AtomPass, atom_energies, atom_pass, member_pass
from egnn_prune.deployment.checkpoint import read_estimator
from egnn_prune.deployment.memory_needed import refuse_what_does_not_fit
from egnn_prune.deployment.moving_structure import MovingStructure
from egnn_prune.deployment.stated_model import StatedModel, agreed_unit
from egnn_prune.deployment.structure_prediction import StructurePrediction
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import Prediction, members_of
from egnn_prune.system.device import choose_device
from egnn_prune.uncertainty import (
    AtomErrorBars,
    Calibrated,
    Calibration,
    Estimator,
    SinglePass,
)
from egnn_prune.uncertainty.calibration.base import NoCalibration
from egnn_prune.uncertainty.estimator import finite

NUMBERS = ("mean", "std", "epistemic_std", "ood_score")


@dataclass(frozen=True)
class TrainedModel(StatedModel):
    """An estimator and what its file says about it.

    Attributes:
        estimator: network, uncertainty method and calibration, in evaluation mode.
        target: what is predicted, or ``""`` where nobody said.
        unit: of the target, or ``""``.
        ood_threshold: the epistemic standard deviation that 99 % of the validation structures stay
            below, in ``unit``; ``None`` in files that do not hold it.
        source: the file, for messages.
        domain: what the training structures looked like; ``None`` in files that do not hold it.
    """

    estimator: Estimator
    target: str = ""
    unit: str = ""
    ood_threshold: float | None = None
    source: str = "the model"
    domain: TrainingDomain | None = None

    @classmethod
    def load(
        cls,
        model: str | Path | Estimator | TrainedModel,
        which: str = "pruned",
        device: str | None = "auto",
        unit: str | None = None,
    ) -> TrainedModel:
        """Load a run's model. Nothing is unpickled.

        Args:
            model: the folder of a run (of ``specialise``, too), a ``.safetensors`` file, or an
                estimator or such a model in memory, which stays on its device.
            which: ``"pruned"`` or ``"dense"``, of a folder; a file or an estimator is what it is.
            device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
            unit: of the target where the model does not say.

        Raises:
            ConfigError: ``model`` is something else, or ``which`` or ``unit`` contradict it.
            InputError: there is no such model, or it does not predict from elements and positions.
        """
        if isinstance(model, TrainedModel):
            _refuse_dense(which, model.source)
            return replace(model, unit=agreed_unit(model.unit, unit or "", model.source))
        if not isinstance(model, (str, Path, Estimator)):
            raise ConfigError(
                "a model is given as the folder of a run, a .safetensors file or an estimator "
                f"(egnn_prune.load_estimator reads one), not as {type(model).__name__}"
            )
        if which not in ("pruned", "dense"):
            raise ConfigError(f"which must be 'pruned' or 'dense', not {which!r}")
        if isinstance(model, Estimator):
            _refuse_dense(which, "an estimator in memory")
            found = cls(model.eval(), unit=agreed_unit(_own_unit(model), unit or "", "the model"))
        else:
            path = file_of(model, which)
            estimator, metadata = read_estimator(path)
            domain = metadata.get("training_domain")
            validation = metadata.get("validation_epistemic_std") or metadata.get(
                "validation_doubt"
            )
            stated = str(metadata.get("unit") or "")
            found = cls(
                estimator.to(choose_device(device or "auto")).requires_grad_(False),
                str(metadata.get("target") or ""),
                agreed_unit(agreed_unit(_own_unit(estimator), stated, path), unit or "", path),
                (validation or {}).get("q99") or None,
                str(path),
                TrainingDomain.from_json(domain) if domain is not None else None,
            )
            length = (metadata.get("units") or {}).get("pos", "Angstrom")
            if length != "Angstrom":
                raise InputError(
                    f"{path} was trained on positions in {length}, not in Angstrom as structures "
                    "have them; train it on data in Angstrom"
                )
        if not found.elements:
            raise InputError(
                f"{found.source} does not predict from elements and positions (it reads other "
                "features), so structures cannot be handed to it"
            )
        return found

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the model knows."""
        return tuple(getattr(members_of(self.estimator.network)[0], "elements", ()))

    @property
    def has_error_bars(self) -> bool:
        """Whether it says how sure it is; one pass of a potential of others does not."""
        first, *others = members_of(self.estimator.network)
        own = bool(others) or getattr(first, "states_noise", True)
        return own or not isinstance(self.method, SinglePass)

    def checked_threshold(self, threshold: float | None) -> float | None:
        """A threshold that somebody asked for, unless there is nothing to compare with it.

        Raises:
            ConfigError: the model has no error bars.
        """
        if threshold is not None and not self.has_error_bars:
            raise ConfigError(
                f"{self.source} states no uncertainty, so there is nothing to compare a threshold "
                "with; leave it out, or give the model error bars, such as "
                "egnn_prune.uncertainty.PredictionRigidity(network).fit(batches)"
            )
        return threshold

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.estimator.network.parameters()).device

    @property
    def cutoff(self) -> float | None:
        """Angstrom within which atoms see each other; ``None`` for all pairs."""
        first = members_of(self.estimator.network)[0]
        inner = getattr(first, "trunk", getattr(first, "network", None))
        return getattr(getattr(inner, "options", None), "cutoff", None)

    @property
    def calibration(self) -> Calibration:
        """What calibrates the error bars."""
        found = self.estimator
        return found.calibration if isinstance(found, Calibrated) else NoCalibration()

    @property
    def method(self) -> Estimator:
        """The uncertainty method, as it was before calibration."""
        found = self.estimator
        return found.estimator if isinstance(found, Calibrated) else found

    def predict(
        self,
        graphs: Sequence[Data],
        *,
        forces: bool = False,
        stress: bool = False,
        coverage: float | None = None,
        threshold: float | None = None,
        forces_std: bool = False,
    ) -> list[StructurePrediction]:
        """Predict structures, from one pass over all members (and one back for forces or stress).

        Mean, uncertainty and forces belong together: the mean is that of the members, which is what
        the calibration was fitted to, and forces are its exact gradient. Molecules and periodic
        structures cannot share a batch: a mixed list is predicted one by one.

        Args:
            graphs: ``z [N]``, ``pos [N, 3]`` in Angstrom, ``cell`` and ``pbc`` where periodic.
            forces: whether they are computed.
            stress: whether it and the forces are; all structures are periodic then.
            coverage: of the intervals that are computed.
            threshold: in the target's unit; by default the one of the file.
            forces_std: whether error bars of forces are computed, where the file holds some: at no
                cost from distances, or from the members' forces.

        Raises:
            ConfigError: a threshold, of a model without error bars.
            DataError: the graphs cannot be used.
            InputError: a prediction or a force is NaN or infinite, or the structures are too large
                for the memory that there is.
        """
        self.checked_threshold(threshold)
        if len({"cell" in graph for graph in graphs}) != 1:  # none, or both kinds
            asked: dict[str, Any] = {"forces": forces, "stress": stress, "coverage": coverage}
            asked["forces_std"] = forces_std
            return [self.predict([g], **asked, threshold=threshold)[0] for g in graphs]
        refuse_what_does_not_fit(
            graphs, lambda piece: self.predict([piece], forces=forces), self.cutoff, self.device
        )
        # a copy: graphs are moved in place
        batch = copy.copy(graphs[0]) if len(graphs) == 1 else Batch.from_data_list(list(graphs))
        members = forces_std and self.reads_members
        found = atom_pass(
            self.method, batch.to(self.device), forces=forces, stress=stress, members=members
        )
        return self._stated(found, graphs, coverage, threshold, forces_std)

    def moving(self, graph: Data, *, compiled: bool = False) -> MovingStructure:
        """A structure to be predicted many times, with its atoms elsewhere every time.

        Args:
            graph: as for :meth:`predict`.
            compiled: whether its passes are compiled, which takes minutes at the first of them.

        Raises:
            DataError: the graph cannot be used.
        """
        return MovingStructure(self.method, graph, self.device, compiled)

    def predict_moved(
        self,
        structure: MovingStructure,
        *,
        forces: bool = False,
        stress: bool = False,
        forces_std: bool = False,
    ) -> StructurePrediction:
        """Predict a structure where its atoms are now: :meth:`predict`, in less time.

        Args:
            structure: from :meth:`moving`, of this very model.
            forces: see :meth:`predict`.
            stress: see :meth:`predict`.
            forces_std: see :meth:`predict`.

        Raises:
            DataError: there is no list of neighbours.
            InputError: a prediction or a force is NaN or infinite.
        """
        members = forces_std and self.reads_members
        found = structure.atom_pass(forces=forces, stress=stress, members=members)
        return self._stated(found, [structure.graph], None, None, forces_std)[0]

    @property
    def reads_members(self) -> bool:
        """Whether error bars of forces come from the members' forces."""
        bars = self.force_error_bars
        return bars is not None and bars.source == "members"

    def _stated(
        self,
        found: AtomPass,
        graphs: Sequence[Data],
        coverage: float | None,
        threshold: float | None,
        forces_std: bool,
    ) -> list[StructurePrediction]:
        """What a pass over graphs says of each of them, with calibrated error bars."""
        prediction, bars = found.prediction, self.force_error_bars
        slopes = [slope for slope in (found.forces, found.stress) if slope is not None]
        finite(prediction)
        spread = [] if found.spread is None else [found.spread]
        if not all(bool(slope.isfinite().all()) for slope in slopes + spread):
            raise InputError(
                f"forces of {self.source} are NaN or infinite; check the structure and the weights"
            )
        limits = None
        with torch.no_grad():
            calibrated: Any = self.calibration(prediction)
            numbers: list[list[float]] = calibrated.mean[:, None].tolist()
            if self.has_error_bars:  # zeros would claim certainty
                variances = (calibrated.variance, calibrated.epistemic, calibrated.ood_variance)
                roots = (variance.sqrt() for variance in variances)
                numbers = torch.stack([calibrated.mean, *roots], 1).tolist()
                if coverage is not None:
                    limits = self.calibration.interval(prediction, coverage)
        sizes = [len(g.pos) for g in graphs]
        parts = slopes[0].double().cpu().split(sizes) if slopes else None
        std, distances = None, None
        if bars is not None and found.features is not None:
            z = torch.cat([graph.z for graph in graphs]).to(found.features.device)
            std, distances = found.error_bars(bars, z)
        stds = std.split(sizes) if forces_std and std is not None else None
        far = None if distances is None else distances.split(sizes)
        return [
            StructurePrediction(
                unit=self.unit,
                **dict(zip_longest(NUMBERS, numbers[i])),
                threshold=self.ood_threshold if threshold is None else threshold,
                interval=(float(limits[0][i]), float(limits[1][i])) if limits else None,
                forces=parts[i].numpy() if parts else None,
                stress=None if found.stress is None else found.stress[i].double().cpu().numpy(),
                graph=graph,
                domain=self.domain,
                forces_std=stds[i].numpy() if stds else None,
                forces_threshold=self.forces_threshold if stds else None,
                distances=far[i].numpy() if far else None,
            )
            for i, graph in enumerate(graphs)
        ]

    @property
    def force_error_bars(self) -> AtomErrorBars | None:
        """Error bars of forces, where the model's file holds some."""
        found = self.estimator.atoms
        return found if isinstance(found, AtomErrorBars) else None

    @property
    def force_error_bars_are_free(self) -> bool:
        """Whether error bars of forces take no pass more than the forces themselves."""
        bars = self.force_error_bars
        several = len(members_of(self.estimator.network)) > 1
        return bars is not None and (bars.source == "distance" or several)

    @property
    def forces_threshold(self) -> float | None:
        """What the forces' deviations of 99 % of the validation structures stayed below."""
        bars = self.force_error_bars
        return None if bars is None else float(bars.std_limit)

    def atom_energies(self, graph: Data) -> NDArray[np.float64]:
        """Energies of single atoms ``[N]`` in the target's unit, whose sum is the mean.

        Raises:
            ConfigError: the target is no sum over atoms, or the network does not state its parts.
            DataError: the graph cannot be used.
        """
        found = atom_energies(self.method, copy.copy(graph).to(self.device))
        if not bool(found.isfinite().all()):
            raise InputError(
                f"energies of atoms of {self.source} are NaN or infinite; check the structure and "
                "the weights"
            )
        energies: NDArray[np.float64] = found.cpu().numpy()
        return energies

    def member_forces(self, graph: Data) -> Prediction | None:
        """Every member's forces ``[M, N, 3]`` with their spread, ``None`` for a single member.

        As the members state them: the calibration was fitted on the target, not on its slopes.
        """
        try:
            return member_pass(self.method, copy.copy(graph).to(self.device))[1]
        except ConfigError:  # one member
            return None


def file_of(model: str | Path, which: str = "pruned") -> Path:
    """The file of a saved model.

    Args:
        model: the folder of a run (of ``specialise``, too), or a ``.safetensors`` file.
        which: ``"pruned"`` or ``"dense"``, of a folder.

    Raises:
        ConfigError: a file is asked for its dense model, or is an exported program.
        InputError: the folder holds no such model.
    """
    path = Path(model).expanduser()
    if path.suffix == ".pt2":
        raise ConfigError(
            f"{path} is an exported program; egnn_prune.ase.ExportedCalculator runs it"
        )
    if path.is_dir():
        whole, path = path, path / f"{which}.safetensors"
        if which == "pruned" and not path.is_file():  # a run of specialise
            path = whole / "specialised.safetensors"
        if not path.is_file():
            raise InputError(
                f"{whole} holds no {which}.safetensors; give the folder of a finished "
                "run (its out=DIR) or a .safetensors file"
            )
    elif path.stem != which:
        _refuse_dense(which, f"the file {path}")
    return path


def _refuse_dense(which: str, what: str) -> None:
    if which == "dense":
        raise ConfigError(
            f"the dense model is chosen of a run's folder, but {what} is one model; give the "
            "folder, or do not ask for the dense one"
        )


def _own_unit(estimator: Estimator) -> str:
    """The unit that the network itself knows, or ``""``."""
    return str(getattr(members_of(estimator.network)[0], "unit", ""))
