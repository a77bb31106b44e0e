r"""Are the error bars of a specialised potential true, and does it know what it does not know?

**Questions.** (1) Error bars of energies and forces are calibrated on the full network. Do they
hold after the network was cut, and after it was fine-tuned, or does every step need a calibration
of its own? (2) Which structures does the flag "in distribution" let pass that it should not: by
the epistemic deviation of the energy and ranges of bonding (the old flag), by the distance of
atoms' features (the new one), by both? (3) What does an error bar cost?

**Analysis, as it was decided before any result.** Systems: 3BPA and ethanol with labels of density
functional theory, silicon (shaken crystals of 16 atoms) and water with the teacher's. Each seed
draws training structures anew, cuts the teacher (75 % of the copies, half of the paths' cost,
compensated where validation says so) and fine-tunes. All choices are made on validation
structures; test structures are looked at once and are the same for all seeds.

*Calibration*, at four points: ``dense``: the full network, fine-tuned, laws fitted on validation.
``cut``: right after the cut; distances from the training atoms and the last layer's covariance are
those of the cut network, but factor, laws and quantiles are the dense one's. ``fine-tuned``: the
same old laws after fine-tuning. ``recalibrated``: laws fitted again. Where the teacher made the
labels, it has no errors to be fitted to: the chain begins with the cut network, and ``cut`` stands
for laws of its own. Methods: last layer (one pass: the last layer's covariance for energies, the
distance of features for forces), and a committee of specialists trained on bootstraps (only
recalibrated, since there is no dense committee). Primary: coverage of the 90 % intervals of force
components, at ``fine-tuned`` against ``recalibrated``, paired by seed. Secondary: coverages of 50
and 80 %, expected normalised calibration error (ENCE), negative log-likelihood (NLL), rank
correlation of error bar and error, AUROC against hotter structures (of ethanol and water: against
stretched bonds), coverage of hotter structures where they have labels.

*Flag*, of the recalibrated specialist: of each kind of structures the share that passes as in
distribution, and the AUROC of each ingredient against the test structures. Kinds: test (about 1 %
should be stopped), hotter, one bond stretched by 15 to 40 %, one hydrogen 2 Angstrom away, isomers
and other molecules of the same elements, two molecules instead of one, a missing atom or molecule
(silicon, water); a new element has to be refused. A structure passes the old flag where its
epistemic deviation is below the one of 99 % of validation structures and nothing is said by
:class:`~egnn_prune.deployment.training_domain.TrainingDomain`; the new one where every atom's
distance and force deviation are within their limits, also of 99 % of validation structures. Where
atoms were changed: how often the atom farthest away is one of them or a neighbour, and how often
chance would be right. Hotter structures need not be stopped where errors are still small; their
AUROC is what counts.

*Cost*: energies, forces and error bars of 27 and 135 atoms, by turns with energies and forces
alone, on a quiet machine.

Seeds are the unit: means, deviations and 95 % t-intervals over them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.configs.specialist_error_bars_study import SpecialistErrorBarsStudySettings
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import InputError
from egnn_prune.evaluation.atom_error_bars import force_scores
from egnn_prune.evaluation.potential_errors import batch_of_atoms
from egnn_prune.evaluation.uncertainty_scores import coverages
from egnn_prune.models import energy_and_forces
from egnn_prune.report.studies.specialist_error_bars import error_bars_plot, error_bars_table
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.studies.frame import Results, Study, study_folder
from egnn_prune.studies.out_of_distribution_structures import Changed, of_a_new_species
from egnn_prune.studies.specialist_methods import SOURCES, Laws, Seen, estimators, look, look_at
from egnn_prune.studies.specialist_networks import LABELLED, Specialists
from egnn_prune.system.timing import alternating_medians
from egnn_prune.uncertainty import Estimator, out_of_distribution_scores, regression_scores

#: The network of each point.
POINTS = {"dense": "full", "cut": "cut", "fine-tuned": "small", "recalibrated": "small"}
#: What a table holds of energies and of forces, all after calibration.
SCORES = ("coverage_50", "coverage_80", "coverage_90", "ence", "nll", "sharpness")
#: Atoms of a structure that is timed, passes, and networks of the committee that is.
ATOMS, REPEATS, WARMUP, COMMITTEE = (27, 135), 15, 3, 4


def run_seed(settings: SpecialistErrorBarsStudySettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again."""
    rows: list[Row] = []
    for name in settings.systems:
        shared = ("teacher", "train", "labelled", "steps", "members", "structures")
        asked = {key: getattr(settings, key) for key in shared}
        saved = Rows(study_folder(settings) / f"{name}-seed{seed}.json", asked)
        saved.shared = {"system": name, "seed": seed}
        examined = Examined(settings, name, seed)
        if "calibration" in settings.parts:
            for method in methods(settings, name):
                cells = [{"method": method, "point": point} for point in chain(name, method)]
                saved.fill(
                    [{"part": "calibration", **cell} for cell in cells], examined.calibration
                )
        if "flag" in settings.parts:
            if saved.find(part="new species") is None:
                saved.add({"part": "new species", **examined.new_species()})
            for method in methods(settings, name):
                if saved.find(part="flag", method=method) is None:
                    for row in examined.flags(method):
                        saved.add({"part": "flag", "method": method, **row})
        # times depend on neither system nor seed
        if "cost" in settings.parts and (name, seed) == (settings.systems[0], settings.seeds[0]):
            if saved.find(part="cost") is None:
                for row in examined.costs():
                    saved.add({"part": "cost", **row})
        rows += saved.rows
    return rows


def methods(settings: SpecialistErrorBarsStudySettings, name: str) -> list[str]:
    """Those that a system has: committees are trained only where labels are data."""
    return [m for m in settings.methods if name not in LABELLED or m != "committee"]


def chain(name: str, method: str) -> list[str]:
    """Where a method's error bars are judged; laws are fitted at the first and the last point."""
    if method == "committee":  # there is no dense one
        return ["recalibrated"]
    return [point for point in POINTS if name not in LABELLED or point != "dense"]


class Examined:
    """A system of a seed, what methods say of its structures, and whether that is true."""

    def __init__(self, settings: SpecialistErrorBarsStudySettings, name: str, seed: int) -> None:
        self.settings, self.name = settings, name
        self.specialists = Specialists(settings, name, seed)
        self._estimators: dict[tuple[str, str], list[Estimator]] = {}
        self._seen: dict[tuple[str, str, str], Seen] = {}

    def estimators(self, method: str, which: str) -> list[Estimator]:
        """A method of a network, fitted on the training structures."""
        key = (method, which)
        if key not in self._estimators:
            self._estimators[key] = estimators(method, self.specialists, which)
        return self._estimators[key]

    def graphs(self, part: str) -> list[Data]:
        """Structures of a split, or of a kind."""
        if part in ("train", "val"):
            found: list[Data] = getattr(self.specialists.found, part)
            return found
        return [made.graph for made in self.specialists.kinds[part]]

    def seen(self, method: str, which: str, part: str) -> Seen:
        """What a method of a network says of a split or kind, looked at once."""
        key = (method, which, part)
        if key not in self._seen:
            asked, text = self.estimators(method, which), f"{self.name} {which} {part}"
            self._seen[key] = look_at(asked, self.graphs(part), text)
        return self._seen[key]

    def laws(self, method: str, point: str) -> Laws:
        """Those of a point: fitted there at the first and last, else the first ones carried on."""
        first, *_, last = 2 * chain(self.name, method)
        fitted_at = point if point in (first, last) else first
        which = POINTS[fitted_at]
        train, val = (self.seen(method, which, part) for part in ("train", "val"))
        y = labels(self.graphs("val"))
        own = Laws.fitted(SOURCES[method], train, val, y)
        return (
            own if fitted_at == point else own.moved_to(self.seen(method, POINTS[point], "train"))
        )

    def calibration(self, part: str, method: str, point: str) -> Row:
        """Scores of the error bars of test structures."""
        laws, which = self.laws(method, point), POINTS[point]
        test = self.seen(method, which, "test")
        beyond = "hotter" if "hotter" in self.specialists.kinds else "stretched bond"
        far = self.seen(method, which, beyond)
        y = labels(self.graphs("test"))
        calibrated = laws.energies(test.energies)
        energy = regression_scores(calibrated.mean, calibrated.variance, y)
        energy |= coverages(laws.energies, test.energies, y)
        std = laws.energy_std(test)
        force = force_scores(laws.atoms, test.atoms, far.atoms)
        row: Row = {"beyond": beyond} | {f"energy_{name}": energy[name] for name in SCORES}
        row |= {f"force_{name}": force[f"force_{name}_calibrated"] for name in SCORES}
        for name in ("spearman_atoms", "spearman_structures", "auroc_wrong", "ood_auroc"):
            row[f"force_{name}"] = force[f"force_{name}_calibrated"]
        row["energy_spearman"] = energy["spearman_error_uncertainty"]
        row["energy_ood_auroc"] = auroc(std, laws.energy_std(far))
        row["energy_rmse_mev"] = 1000 * rms(test.energies.mean.double() - y)
        row["force_rmse_mev_per_angstrom"] = 1000 * rms(test.atoms.wrong)
        if bool(far.atoms.wrong.isfinite().all()):
            half = laws.atoms.half_width(laws.forces_std(far), far.atoms.z, 0.9)
            inside = far.atoms.wrong.abs() <= half[:, None]
            row["force_hotter_coverage_90"] = float(inside.double().mean())
            row["force_hotter_rmse"] = 1000 * rms(far.atoms.wrong)
        return row

    def flags(self, method: str) -> list[Row]:
        """Of each kind, how much passes as in distribution, and by what it is told."""
        laws = self.laws(method, "recalibrated")
        domain = TrainingDomain.of(self.specialists.found.train)
        assert domain is not None
        found, test = [], None
        for kind, made in self.specialists.kinds.items():
            seen = self.seen(method, "small", kind)
            odd = torch.tensor([bool(domain.unlike(one.graph).reason) for one in made])
            scores = {
                "energy": laws.energies(seen.energies).ood_variance.double().sqrt()
                / laws.energy_limit,
                "domain": 2 * odd.double(),  # in units of a limit, too
                "distance": largest(laws.distance(seen), seen),
                "force": largest(laws.forces_std(seen) / laws.atoms.std_limit, seen),
            }
            test = test or scores
            found.append(flag_row(kind, scores, test) | named(made, laws.distance(seen)))
        return found

    def new_species(self) -> Row:
        """Whether an element that the specialist does not know is refused."""
        model = self.specialists.network("small")
        strange = of_a_new_species(self.graphs("test")[0], model.elements)
        try:
            look_at(self.estimators("last_layer", "small"), [strange], "a new element")
        except InputError as error:
            return {"refused": True, "reason": str(error)}
        return {"refused": False, "reason": ""}

    def costs(self) -> list[Row]:
        """Median times of a pass with error bars and without, by turns."""
        found = []
        model = self.specialists.network("small")
        laws = {
            method: self.laws(method, "recalibrated")
            for method in methods(self.settings, self.name)
        }
        for atoms in ATOMS:
            batch: Any = model.prepared(batch_of_atoms(self.specialists.found.test, atoms))
            runs: dict[str, Any] = {"energies and forces": partial(energy_and_forces, model, batch)}
            for method, law in laws.items():
                asked = self.estimators(method, "small")
                if SOURCES[method] == "members":
                    asked = (asked * COMMITTEE)[:COMMITTEE]  # whose weights do not matter
                runs[method] = partial(with_error_bars, asked, law, batch)
            for name, latency in alternating_medians(runs, REPEATS, WARMUP, "cpu").items():
                row = {"method": name, "atoms": len(batch.pos), "latency_ms": latency}
                found.append(row)
        return found


def with_error_bars(methods: list[Estimator], laws: Laws, batch: Any) -> None:
    """All that a calculator says: energies, forces, their error bars, distances."""
    seen = look(methods, batch)
    laws.energy_std(seen), laws.forces_std(seen), laws.distance(seen)


def flag_row(kind: str, scores: dict[str, Tensor], test: dict[str, Tensor]) -> Row:
    """Shares that pass, and AUROC; scores are in units of their limits."""
    row: Row = {"kind": kind, "structures": len(scores["energy"])}
    within = {name: score <= 1 for name, score in scores.items()}
    within["old"] = within["energy"] & within["domain"]
    within["new"] = within["distance"] & within["force"]
    within["both"] = within["old"] & within["new"]
    row |= {f"passed_{name}": float(passes.double().mean()) for name, passes in within.items()}
    if kind != "test":
        row |= {f"auroc_{name}": auroc(test[name], score) for name, score in scores.items()}
    return row


def named(made: list[Changed], distance: Tensor) -> Row:
    """How often the atom farthest away is a changed one, and how often chance would be right."""
    masks = [one.atoms for one in made if one.atoms is not None]
    if not masks:
        return {}
    parts = distance.split([len(mask) for mask in masks])
    right = [bool(mask[int(part.argmax())]) for mask, part in zip(masks, parts, strict=True)]
    chance = [float(mask.double().mean()) for mask in masks]
    return {"named": sum(right) / len(right), "named_by_chance": sum(chance) / len(chance)}


def largest(values: Tensor, seen: Seen) -> Tensor:
    """The largest of each structure's atoms, ``[B]``."""
    found = values.new_zeros(len(seen.energies.mean))
    return found.scatter_reduce(0, seen.atoms.structure, values, "amax")


def labels(graphs: list[Data]) -> Tensor:
    """Their energies ``[B]``, in eV."""
    return torch.cat([graph.y.double().flatten() for graph in graphs])


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Chance that a score from outside is the larger."""
    return out_of_distribution_scores(inside, outside)["auroc"]


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())


def results(settings: SpecialistErrorBarsStudySettings, rows: list[Row]) -> Results:
    """Tables and a figure."""
    return Results(rows, error_bars_table(rows), error_bars_plot(rows))


run_specialist_error_bars_study = Study("error_bars", run_seed, results)
