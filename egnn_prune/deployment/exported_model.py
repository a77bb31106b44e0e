"""An exported program in place of a trained model: what calculators ask, the program answers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.deployment.export import inputs_of
from egnn_prune.deployment.moving_graph import MovingGraph
from egnn_prune.deployment.program_file import ProgramDescription, description_of, program_in
from egnn_prune.deployment.stated_model import StatedModel, agreed_unit
from egnn_prune.deployment.structure_prediction import StructurePrediction
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import ConfigError, DataError, InputError


@dataclass(frozen=True)
class ExportedModel(StatedModel):
    """A program of :func:`egnn_prune.export.export_program`, with what its file says about it.

    It answers what calculators ask of a :class:`~egnn_prune.deployment.trained_model.TrainedModel`,
    on the CPU. A program computes all that is in it at once, so all of that is handed out.

    Attributes:
        content: the file, from which a copy in another process is made.
        about: what the file says.
        source: its name, for messages.
        unit: of the energies.
    """

    content: bytes = field(repr=False)
    about: ProgramDescription
    source: str
    unit: str
    program: nn.Module = field(init=False, repr=False, compare=False)
    #: What the variances of a program are compared with: they have no epistemic part.
    ood_threshold: None = field(default=None, init=False)
    force_error_bars: None = field(default=None, init=False)
    force_error_bars_are_free: bool = field(default=False, init=False)
    forces_threshold: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "program", program_in(self.content, self.source))

    def __reduce__(self) -> tuple[Any, ...]:
        """Programs cannot be pickled, their files can."""
        return ExportedModel, (self.content, self.about, self.source, self.unit)

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedModel:
        """Nothing in it changes, and loading takes seconds."""
        return self

    @classmethod
    def load(cls, path: str | Path, unit: str | None = None) -> ExportedModel:
        """Read a program.

        Args:
            path: of a ``.pt2`` file. Loading it runs what the file holds: trust whoever wrote it.
            unit: of the energies where the file does not say.

        Raises:
            ConfigError: the file is something else, the program reads other features than elements,
                or ``unit`` contradicts the file.
            InputError: there is no such file, or it cannot be read.
        """
        path = Path(path).expanduser()
        about = description_of(path)
        if not about.elements or "z" not in about.inputs:
            raise ConfigError(
                f"{path} does not predict from elements and positions (it reads other features), "
                "so structures cannot be handed to it"
            )
        stated = agreed_unit(about.unit, unit or "", path)
        return cls(path.read_bytes(), about, str(path), stated)

    @property
    def target(self) -> str:  # type: ignore[override]
        """What is predicted, or ``""`` where nobody said."""
        return self.about.target

    @property
    def domain(self) -> TrainingDomain | None:
        """What the training structures looked like, where the file says that."""
        return self.about.domain

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the program knows."""
        return self.about.elements

    @property
    def has_error_bars(self) -> bool:
        """No: variances without an epistemic part leave guards and thresholds nothing to watch."""
        return False

    def checked_threshold(self, threshold: float | None) -> float | None:
        """No threshold at all: a program states no epistemic part.

        Raises:
            ConfigError: there is one.
        """
        if threshold is not None:
            raise ConfigError(
                f"{self.source} states no epistemic uncertainty, so there is nothing to compare a "
                "threshold with; leave it out, or use the model itself in a PrunedCalculator"
            )
        return None

    def predict(
        self, graphs: Sequence[Data], *, stress: bool = False, **_: bool
    ) -> list[StructurePrediction]:
        """Predict structures in one pass, all molecules or all periodic.

        Args:
            graphs: ``z [N]``, ``pos [N, 3]`` in Angstrom, ``cell`` and ``pbc`` where periodic.
            stress: whether stresses are defined, so that those of the program are handed out.

        Raises:
            ConfigError: they are periodic, and the program has no cutoff.
            DataError: their edges cannot be built.
            InputError: a number is NaN or infinite.
        """
        if not graphs:
            return []
        batch = Batch.from_data_list([_with_cell(g) if self._strained else g for g in graphs])
        return self._stated(inputs_of(batch, self.about.inputs, self.about.cutoff), graphs, stress)

    def moving(self, graph: Data, *, compiled: bool = False) -> MovingGraph:
        """A structure to be predicted many times, with its atoms elsewhere every time.

        Raises:
            ConfigError: it is to be compiled.
            DataError: it is periodic, and the program has no cutoff.
        """
        if compiled:
            raise ConfigError("a program is not compiled anew; PrunedCalculator compiles a model")
        if "cell" in graph and self.about.cutoff is None:
            raise DataError(
                f"{self.source} has no cutoff and is for molecules, but the structure is periodic"
            )
        return MovingGraph(graph, self.about.cutoff)

    def predict_moved(
        self, structure: MovingGraph, *, stress: bool = False, **_: bool
    ) -> StructurePrediction:
        """Predict a structure where its atoms are now: :meth:`predict`, in less time.

        Raises:
            DataError: there is no list of neighbours.
            InputError: a number is NaN or infinite.
        """
        graph = structure.graph
        index, shift = structure.neighbours()
        values: dict[str, Tensor] = {
            "z": graph.z,
            "pos": graph.pos,
            "edge_index": index,
            "batch": torch.zeros_like(graph.z),
            "edge_shift": shift,
        }
        if self._strained:
            values["cell"] = _with_cell(graph).cell.double()
        return self._stated([values[name] for name in self.about.inputs], [graph], stress)[0]

    def member_forces(self, graph: Data) -> None:
        """``None``: a program holds no single members."""

    def atom_energies(self, graph: Data) -> NDArray[Any]:
        """Refused: a program holds no energies of single atoms.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.source} holds no energies of single atoms; the model itself does")

    @property
    def _strained(self) -> bool:
        return "cell" in self.about.inputs

    def _stated(
        self, inputs: Sequence[Tensor], graphs: Sequence[Data], stress: bool
    ) -> list[StructurePrediction]:
        """What the program says of the structures."""
        try:
            with torch.no_grad():
                found = dict(zip(self.about.outputs, self.program(*inputs), strict=True))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{self.source} cannot compute the structure ({reason}); write it anew by "
                "`egnn-prune export`"
            ) from error
        if not stress:  # of a molecule, or of a cell without volume
            found.pop("stress", None)
        if not all(bool(value.isfinite().all()) for value in found.values()):
            raise InputError(
                f"numbers of {self.source} are NaN or infinite; check the structure and the file"
            )
        forces, strain = found.get("forces"), found.get("stress")
        sizes = [len(g.pos) for g in graphs]
        parts = None if forces is None else forces.split(sizes)
        return [
            StructurePrediction(
                unit=self.unit,
                mean=float(found["energy"][i]),
                std=float(found["variance"][i]) ** 0.5 if self.about.error_bars else None,
                epistemic_std=None,
                ood_score=None,
                threshold=None,
                interval=None,
                forces=parts[i].numpy() if parts else None,
                stress=None if strain is None else strain[i].numpy(),
                graph=graph,
                domain=self.domain,
            )
            for i, graph in enumerate(graphs)
        ]


def _with_cell(graph: Data) -> Data:
    """The graph, of a molecule with a cell that nothing depends on."""
    if "cell" in graph:
        return graph
    graph = copy.copy(graph)
    graph.cell = torch.eye(3, dtype=torch.float64)[None]
    graph.pbc = torch.zeros(1, 3, dtype=torch.bool)
    return graph
