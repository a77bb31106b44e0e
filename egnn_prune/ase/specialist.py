"""A small network with error bars of its forces, and a teacher for where it is not sure."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator, all_changes
from torch import nn
from torch_geometric.data import Data

from egnn_prune.ase.calculator import (
    PrunedCalculator,
    UncertaintyExceeded,
    UncertaintyWarning,
)
from egnn_prune.ase.collection import Collection
from egnn_prune.ase.results import REASON
from egnn_prune.ase.specialist_folder import SpecialistFolder, described
from egnn_prune.ase.specialist_learning import labelled, renewed, with_labels
from egnn_prune.ase.teacher import (
    Agreement,
    EnergyOffset,
    Labels,
    Teacher,
    TeacherFailed,
    compare_with_labels,
    refuse_other_level,
)
from egnn_prune.deployment.structure_prediction import StructurePrediction
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.uncertainty import Estimator

ACTIONS = ("warn", "stop", "ask", "learn", "ignore")
#: What an interval at a check is to hold of the teacher's force components.
COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class Watched:
    """What became of one structure.

    Attributes:
        max_force_std: the longest error bar of a force, in eV/Angstrom.
        max_distance: of the strangest atom, in units of the limit.
        threshold: of error bars, in eV/Angstrom.
        asked: whether energy and forces are the teacher's.
        reason: why the network was not sure, ``""`` where it was.
        checked_error: root mean square difference of the network's force components from the
            teacher's at a random check, in eV/Angstrom; else NaN.
        checked_inside: share of the components within the 90 % interval there; else NaN.
        learned: whether the network was replaced by a better one after this structure.
    """

    max_force_std: float
    max_distance: float
    threshold: float
    asked: bool = False
    reason: str = ""
    checked_error: float = math.nan
    checked_inside: float = math.nan
    learned: bool = False


class SpecialistCalculator(PrunedCalculator):
    r"""The small network where it is sure; beyond, what was chosen, such as asking the teacher.

    It is not sure of a structure where the calibrated standard deviation of the force on an atom
    is beyond ``forces_threshold``, where an atom's features are farther from the training atoms
    than the limit, or where the structure is bonded unlike all training structures. Then

    - ``"warn"`` warns (once), ``"ignore"`` does nothing,
    - ``"stop"`` raises :class:`~egnn_prune.ase.UncertaintyExceeded`,
    - ``"ask"`` gives the teacher's energy, forces and stress instead, and collects the structure
      with these labels,
    - ``"learn"`` does so, and after every ``learn_every`` collected structures trains the network
      further, see :meth:`learn`.

    Every structure is decided on once, when anything of it is first asked for; extras such as
    ``forces_uncertainty`` are always the network's. The teacher's energies are brought to the
    network's zero (:class:`~egnn_prune.ase.teacher.EnergyOffset`). Where teacher and network take
    turns, forces jump by the network's error, and a simulation at constant energy does not
    conserve it: use a thermostat.

    Where validation structures are given, the teacher is first compared with their labels, and
    refused where it is of another level of theory.

    Args:
        model: the folder of a run, a ``.safetensors`` file, or an estimator; with error bars of
            forces.
        teacher: see :class:`~egnn_prune.ase.teacher.Teacher`; or one of these.
        on_uncertain: see above.
        forces_threshold: largest standard deviation of a force in eV/Angstrom; by default the one
            that 99 % of the validation structures stayed below (a new one after learning).
        check: probability, for every structure, of asking the teacher just to compare.
        seed: of the checks, and of what is held out in learning.
        folder: gets the collection and the networks that were learned, from the first structure
            on that can be computed; where both are there already, it goes on with them. ``None``
            keeps all in memory.
        most: structures that wait to be learned, at most.
        learn_every: collected structures after which ``learn`` is called.
        train: labelled structures that the network was trained on, for ``learn``.
        val: labelled structures that it was calibrated on, for ``learn`` and the comparison.
        settings: of the training in :meth:`learn`, see
            :func:`egnn_prune.evaluation.improvement.improved`, as are the defaults.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        which: ``"pruned"`` or ``"dense"``, of a run's folder.
        unit: of the model's energies where it does not say.
        improve: what makes a better estimator; by default ``improved``.

    Attributes:
        last: what became of the last structure.
        attempts: what every call of :meth:`learn` came to, the oldest first.
        collection: what it was unsure of.
        agreement: of the teacher with the labels, where they were compared.

    Raises:
        ConfigError: an argument cannot be used, the model has no error bars of forces, or the
            teacher is of another level of theory.
        InputError: model, teacher or folder cannot be used.
        TeacherFailed: (when it computes) the teacher failed where its answer was needed.

    Example:
        >>> atoms.calc = SpecialistCalculator("runs/water", "7net-0", "ask", check=0.01)
    """

    def __init__(
        self,
        model: str | Path | Estimator,
        teacher: Teacher | BaseCalculator | nn.Module | str | Path | None = None,
        on_uncertain: str = "warn",
        *,
        forces_threshold: float | None = None,
        check: float = 0.0,
        seed: int = 0,
        folder: str | Path | None = None,
        most: int = 200,
        learn_every: int = 20,
        train: Sequence[Data] = (),
        val: Sequence[Data] = (),
        settings: Any = None,
        device: str = "auto",
        which: str = "pruned",
        unit: str | None = None,
        improve: Callable[..., Any] | None = None,
    ) -> None:
        _check(on_uncertain, teacher is not None, check, learn_every, most, bool(train and val))
        place = None if folder is None else SpecialistFolder(Path(folder), model)
        found = model if place is None or place.model is None else place.model
        which = which if found is model else "pruned"
        super().__init__(found, None, "ignore", device, which=which, unit=unit)
        if self.model.force_error_bars is None:
            raise ConfigError(
                f"{self.model.source} holds no error bars of forces, so nothing says where it is "
                "not sure; `egnn-prune specialise` makes models with them, and "
                "egnn_prune.evaluation.atom_error_bars.fit_atom_error_bars fits them to others"
            )
        self._forces_threshold = forces_threshold
        self._use(self.model)
        self.on_uncertain, self.check, self.seed = on_uncertain, float(check), int(seed)
        self.learn_every, self.settings = learn_every, settings
        self.train, self.val = [labelled(g) for g in train], [labelled(g) for g in val]
        if (self.train or self.val) and self.electronvolts != 1:
            raise ConfigError(
                f"{self.model.source} is not in eV, in which a teacher's labels are; go without "
                "train= and val="
            )
        made = teacher is None or isinstance(teacher, Teacher)
        self.teacher: Teacher | None = teacher if made else Teacher(teacher, device)  # type: ignore
        self.offset = EnergyOffset()
        self.agreement: Agreement | None = None
        if self.teacher is not None and place is not None:
            place.taught_by(self.teacher.name)
        if self.teacher is not None and self.val and (check or on_uncertain in ("ask", "learn")):
            self._compare(self.teacher, on_uncertain)
        self._claimed = place is None
        self.place, self.attempts = place, [] if place is None else place.attempts
        self.collection = Collection(None if place is None else place.path, most)
        self._improve, self._tried = improve, 0
        self._draws = np.random.default_rng(seed)
        self._before = self._draws.bit_generator.state
        self.last: Watched | None = None
        self._failed_checks = 0

    def _compare(self, teacher: Teacher, action: str) -> None:
        """Compare the teacher with the labels, which settles its energies' offset."""
        self.agreement = compare_with_labels(teacher, self.model, self.val, self.offset)
        refuse_other_level(self.agreement, teacher, action)

    def _use(self, model: TrainedModel) -> None:
        """Answer with this model from now on."""
        self.model = replace(model, estimator=model.estimator.eval().requires_grad_(False))
        limit = self.model.ood_threshold
        self.threshold = None if limit is None else limit * self.electronvolts
        given, own = self._forces_threshold, self.model.forces_threshold
        assert own is not None
        if given is not None and not 0 < given < math.inf:
            raise ConfigError(
                f"forces_threshold must be a positive deviation in eV/Angstrom, not {given!r}"
            )
        self.forces_threshold = own * self.electronvolts if given is None else float(given)

    @property
    def gives_stress(self) -> bool:
        """Whether every answer has a stress, the teacher's, too."""
        if self.teacher is None or self.on_uncertain not in ("ask", "learn"):
            return True
        return "stress" in self.teacher.calculator.implemented_properties

    def state(self) -> dict[str, Any]:
        """What a simulation that goes on needs besides the folder.

        It decides on the last structure again, with the draws that it had before.
        """
        return {"draws": self._before, "collected": self.collection.kept - self._tried}

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite of :meth:`state`."""
        self._draws.bit_generator.state = self._before = state["draws"]
        self._tried = self.collection.kept - int(state["collected"])
        self.results = {}

    # ------------------------------------------------------------------ a structure

    implemented_properties = [  # noqa: RUF012 (ASE declares an instance variable)
        # a teacher does not divide its energy among atoms as the network does
        name
        for name in PrunedCalculator.implemented_properties
        if name != "energies"
    ]

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute everything of a new structure at once, and decide who answers."""
        if not system_changes and "forces" in self.results:
            return  # all that there is was computed with the forces, and is perhaps the teacher's
        names = ["energy", "forces", "forces_uncertainty", "in_distribution"]
        super().calculate(atoms, names, list(system_changes) or list(all_changes))
        try:
            self._claim()
            self._decide()
        except BaseException:  # an interrupted teacher, too
            self.results = {}  # nothing is left that nobody stands for
            raise

    def _claim(self) -> None:
        """Take the folder, once the first structure turned out to be one that can be computed."""
        if self._claimed:
            return
        if self.teacher is not None:
            assert self.place is not None
            if self.on_uncertain in ("ask", "learn"):
                self.teacher.refuse_unknown(self.atoms.numbers)  # type: ignore[union-attr]
            self.place.claim()
        self.collection.claim()
        self._claimed = True

    def judged(self, found: StructurePrediction) -> StructurePrediction:
        """A prediction with this calculator's threshold of forces; energies play no part."""
        return replace(found, threshold=None, forces_threshold=self.forces_threshold)

    def _decide(self) -> None:
        results: Any = self.results
        atoms: Any = self.atoms
        self._before = self._draws.bit_generator.state
        found, reason = results.prediction, results.extras[REASON]
        watched = Watched(
            float(found.forces_std.max()),
            float(found.distances.max()) if found.distances is not None else math.nan,
            float(self.forces_threshold or math.nan),
            reason=self.judged(found).reason,
        )
        if reason and self.on_uncertain == "stop":
            raise UncertaintyExceeded(reason)
        answers = self.on_uncertain in ("ask", "learn")
        asked = bool(reason) and answers
        checking = self.teacher is not None and self._draws.random() < self.check
        self.last = watched
        if answers:
            self._meet(atoms, results)
        if checking:
            watched = self._checked(watched, atoms, results)
        if asked:
            labels = self._ask(atoms, watched)
            results["energy"] = results["free_energy"] = labels.energy + self.offset(atoms.numbers)
            results["forces"] = labels.forces
            results.pop("stress", None)
            if labels.stress is not None:
                results["stress"] = labels.stress
            watched = replace(watched, asked=True)
            due = self.collection.kept - self._tried >= self.learn_every
            if self.on_uncertain == "learn" and due:
                watched = replace(watched, learned=self._learn())
        self.last = watched

    def _meet(self, atoms: ase.Atoms, results: Any) -> None:
        """Settle the offset of energies at the first structure of a composition."""
        assert self.teacher is not None
        if not self.offset.knows(atoms.numbers):
            self.teacher.refuse_unknown(atoms.numbers)
            self.offset.settle(atoms.numbers, results["energy"] - self.teacher(atoms).energy)

    def _ask(self, atoms: ase.Atoms, watched: Watched) -> Labels:
        """The teacher's labels; the structure is collected, with or without them."""
        assert self.teacher is not None
        try:
            labels = self.teacher(atoms)
        except TeacherFailed:
            self.collection.add(atoms, watched.max_force_std)
            raise
        self.collection.add(atoms, watched.max_force_std, labels)
        return labels

    def _checked(self, watched: Watched, atoms: ase.Atoms, results: Any) -> Watched:
        """Compare the network with the teacher; a failure is said once."""
        assert self.teacher is not None
        try:
            self.teacher.refuse_unknown(atoms.numbers)
            labels = self.teacher(atoms)
        except InputError as error:
            self._failed_checks += 1
            if self._failed_checks == 1:
                warnings.warn(f"a random check failed: {error} (said once)", stacklevel=4)
            return watched
        wrong = labels.forces - results["forces"]
        bars, found = self.model.force_error_bars, results.prediction
        assert bars is not None
        half = bars.half_width(
            torch.from_numpy(found.forces_std), torch.from_numpy(atoms.numbers).long(), COVERAGE
        ).numpy()
        return replace(
            watched,
            checked_error=float(np.sqrt(np.mean(wrong**2))),
            checked_inside=float(np.mean(np.abs(wrong) <= half[:, None])),
        )

    # ------------------------------------------------------------------ learning

    def learn(self) -> bool:
        """Train the network further on what is collected; keep the better one.

        What has no labels yet gets the teacher's; what it cannot label goes on waiting. The new
        network answers from then on if it is better on held-out collected structures, and not worse
        on the validation structures; it is written into the folder. Otherwise (or where the disk is
        full) the old one stays, what was collected goes on waiting, and the next attempt, after as
        many more structures, has more to learn from.

        Returns:
            Whether the network was replaced.

        Raises:
            ConfigError: there is no teacher, or no training and validation structures, or it is of
                another level of theory.
        """
        learned = self._learn()
        if learned:
            self.results = {}  # which are the old network's
        return learned

    def _learn(self) -> bool:
        if self.teacher is None or not (self.train and self.val):
            raise ConfigError(
                "learning needs a teacher, and the labelled structures that the network was "
                "trained and calibrated on; give teacher=, train= and val="
            )
        improve = self._improve
        if improve is None:
            from egnn_prune.evaluation.improvement import improved

            improve = improved
        if self.agreement is None:
            self._compare(self.teacher, "learn")
        self._tried, waiting = self.collection.kept, self.collection.waiting
        self._label(self.teacher)
        new = with_labels(waiting, self.offset)
        train = self.train + with_labels(self.collection.learned, self.offset)
        trainable = copy.deepcopy(self.model.estimator).requires_grad_(True)
        how: dict[str, Any] = {"seed": self.seed + len(self.attempts), "device": self.model.device}
        try:
            found = improve(trainable, new, train, self.val, self.settings, **how)
            if found.accepted:
                model = renewed(self.model, found.estimator, train + new, self.val)
                if self.place is not None:  # before its structures count as learned
                    self.place.learned(model)
        except InputError as error:
            warnings.warn(f"the network learned nothing: {error}", UncertaintyWarning, stacklevel=2)
            return self._attempted({"accepted": False, "reason": str(error)})
        if found.accepted:
            self._use(model)
            self.collection.mark_learned([item for item in waiting if item.labels is not None])
        return self._attempted(described(found))

    def _label(self, teacher: Teacher) -> None:
        """Ask for the labels that are missing; what the teacher cannot compute stays without."""
        for item in self.collection.waiting:
            if item.labels is None:
                try:
                    self.collection.label(item, teacher(item.atoms))
                except TeacherFailed as error:
                    warnings.warn(f"learning goes on without a structure: {error}", stacklevel=3)

    def _attempted(self, attempt: dict[str, Any]) -> bool:
        self.attempts.append(attempt)
        if self.place is not None:
            self.place.tried(self.attempts)
        return bool(attempt["accepted"])


def _check(
    action: str, teacher: bool, check: float, every: int, most: int, structures: bool
) -> None:
    """Refuse arguments that contradict each other."""
    if action not in ACTIONS:
        raise ConfigError(f"on_uncertain must be one of {', '.join(ACTIONS)}, not {action!r}")
    if not 0 <= check <= 1:
        raise ConfigError(f"check is a probability in [0, 1], not {check}")
    if not teacher and (action in ("ask", "learn") or check):
        what = f"on_uncertain={action}" if action in ("ask", "learn") else f"check={check:g}"
        raise ConfigError(
            f"{what} asks a teacher, and there is none; name one, such as --teacher 7net-0, or use "
            "on_uncertain=warn or stop without checks"
        )
    if action != "learn":
        return
    if not 2 <= every <= most:
        raise ConfigError(
            f"learning needs at least 2 structures, and at most as many as are collected ({most}), "
            f"not learn_every={every}"
        )
    if not structures:
        raise ConfigError(
            "learning on the way needs the labelled structures that the network was trained and "
            "calibrated on; give the folder of a run of specialise, or train= and val=, or use "
            "on_uncertain=ask"
        )
