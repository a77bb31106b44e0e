"""An exported program as an ASE calculator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from egnn_prune.ase.calculator import PrunedCalculator
from egnn_prune.ase.results import EXTRAS
from egnn_prune.deployment.exported_model import ExportedModel


class ExportedCalculator(PrunedCalculator):
    """Energy, forces and stress of a program that ``egnn-prune export`` wrote, in ASE's units.

    The numbers are those of :class:`~egnn_prune.ase.PrunedCalculator` on the model that was
    exported, to rounding: energy, ``forces`` unless exported by ``--no-forces``, ``stress`` if
    exported by ``--stress``, all from one pass, and of the ``extras`` ``energy_uncertainty``. The
    program states no epistemic part, no error bars of forces and no energies of atoms. Where it
    was exported from a file that holds what the training structures looked like, structures unlike
    them are flagged as there.

    A program is code, and loading one runs what its file holds: take programs from people you
    trust only, such as your own. Calculators can be pickled and copied; the file goes with them.

    Args:
        program: a ``.pt2`` file.
        on_uncertain: of structures unlike the training structures, see
            :class:`~egnn_prune.ase.PrunedCalculator`.
        unit: of the program's energies where its file does not say.

    Raises:
        ConfigError: the file is no program but a model, or predicts no potential energy, or an
            argument cannot be used.
        InputError: there is no such file, or it is no program of this package.
        DataError: (when it computes) the structure cannot be used: what a
            :class:`~egnn_prune.ase.PrunedCalculator` refuses, and periodic structures where the
            model has no cutoff.
        UncertaintyExceeded: (when it computes) see ``on_uncertain``.

    Example:
        >>> atoms.calc = ExportedCalculator("ethanol.pt2")  # doctest: +SKIP
        >>> energy, forces = atoms.get_potential_energy(), atoms.get_forces()  # doctest: +SKIP
    """

    def __init__(
        self, program: str | Path, on_uncertain: str = "warn", *, unit: str | None = None
    ) -> None:
        super().__init__(program, on_uncertain=on_uncertain, device="cpu", unit=unit)
        model: Any = self.model
        slopes = [name for name in ("forces", "stress") if name in model.about.outputs]
        self.implemented_properties = ["energy", "free_energy", *slopes, *EXTRAS]

    @staticmethod
    def _loaded(model: Any, which: str, device: str, unit: str | None) -> Any:
        return ExportedModel.load(model, unit)

    def _predict(self, moving: Any, slopes: bool, forces_std: bool = False) -> None:
        super()._predict(moving, True)  # a program computes everything at once
