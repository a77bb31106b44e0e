"""A pretrained potential becomes a small one for a user's own structures, top to bottom."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from egnn_prune.configs.declaration import check
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.data.cache import sha256
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline import specialise_bars as bars
from egnn_prune.pipeline import specialise_cut as cutting
from egnn_prune.pipeline import specialise_data as structures
from egnn_prune.pipeline import specialise_measure as measuring
from egnn_prune.pipeline.run_context import Outputs, say, stage
from egnn_prune.pipeline.specialise_about import about
from egnn_prune.pipeline.specialise_committee import committee
from egnn_prune.pipeline.specialise_context import (
    BARRED,
    COMPARED,
    CUT,
    DOMAIN,
    FITTED,
    LABELLED,
    LEARNED,
    NEW_LABELS,
    POOLED,
    PRUNED,
    READ,
    SPECIALISED,
    SPLITS,
    STRUCTURES,
    TAUGHT,
    TEACHER,
    SpecialiseContext,
    about_fit,
)
from egnn_prune.pipeline.specialise_curve import curve
from egnn_prune.pipeline.specialise_demo import demo_structures, demonstration
from egnn_prune.pipeline.specialise_pool import learn_from_pool
from egnn_prune.pipeline.specialise_pool_file import check_pool
from egnn_prune.pipeline.specialise_scratch import fresh
from egnn_prune.pipeline.specialise_units import warn_of_foreign_units
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.system import files
from egnn_prune.system.device import choose_device
from egnn_prune.training import LearningCurve, refit_shifts
from egnn_prune.training.distillation import is_crystal
from egnn_prune.uncertainty import AtomErrorBars

#: What has no errors where the teacher made the labels.
TEACHERS = ("teacher", "finetuned")


def run(settings: SpecialiseSettings) -> Path:
    """Read, measure the teacher, cut it to a budget, train, compare, export, report.

    An interrupted run continues from its last finished stage; a finished one is left as it is.

    Args:
        settings: everything that can be chosen.

    Returns:
        The run's folder.

    Raises:
        InputError: a setting, the structures or the teacher cannot be used.
    """
    from egnn_prune.report.specialise import report_table

    check(settings)
    if settings.demo:
        settings = demonstration(settings)
    elif settings.data.path is None:
        raise ConfigError(
            "specialise reads structures of yours; say which with data.path=FILE, or see what it "
            "does with --demo"
        )
    if settings.labels == "teacher" and settings.data.target is not None:
        raise ConfigError("labels=teacher reads no energies; leave data.target away")
    check_pool(settings)
    refuse_learned(settings)
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    folder = RunFolder(
        settings,
        fingerprints(path=settings.data.path, teacher=settings.teacher),
        fingerprints(pool=settings.pool),
    )
    if folder.finished:
        print(f"{folder.path} is finished; nothing is run again.")
    else:
        job = SpecialiseJob(settings, folder, device)
        job.read_structures()
        bars.refuse_few(job.outputs("structures")["val"], settings.uncertainty)
        job.ask_the_teacher()
        job.prune()
        job.specialise()
        job.finetune_the_teacher()
        job.train_scratch()
        job.fit_error_bars()
        if settings.pool:
            job.learn_from_the_pool()
        job.evaluate()
        job.export()
        job.report()
    print(f"\n{report_table(folder.path)}")
    print(f"Report: {folder.path / 'report.html'}")
    print(f"Model: {folder.path / SPECIALISED} (egnn_prune.ase.PrunedCalculator opens it)")
    return folder.path


def fingerprints(**named: str | None) -> dict[str, str]:
    """Of the files that settings name, where they are there."""
    found = {role: Path(name).expanduser() for role, name in named.items() if name}
    return {role: sha256(path) for role, path in found.items() if path.is_file()}


def refuse_learned(settings: SpecialiseSettings) -> None:
    """Refuse to reuse a run that learned from a pool: its small network is another one since.

    Raises:
        ConfigError: it did.
    """
    for folder in settings.reuse:
        if (Path(folder) / LEARNED).exists():
            raise ConfigError(
                f"reuse={folder} is a run that learned from a pool, which changed its network; "
                "reuse one without a pool"
            )


class SpecialiseJob(SpecialiseContext):
    """The stages. Each seeds itself, so that a continued run computes the same numbers."""

    # ------------------------------------------------------------------ the stages

    @stage(1, "structures", "Reading structures", READ, STRUCTURES)
    def read_structures(self) -> Outputs:
        """The structures, checked and split."""
        s = self.settings
        if s.demo:
            dataset = structures.split_structures(demo_structures(s.seed), "demonstration", s.seed)
        elif s.labels == "teacher":
            dataset = structures.read_unlabelled(s.data, s.seed)
        else:
            dataset = structures.read_labelled(s.data, s.seed)
        if s.labels == "data":
            self.say_what_it_is(dataset)
        structures.write_dataset(self.folder.path / STRUCTURES, dataset)
        return {split: len(rows) for split, rows in dataset.splits.items()}

    @stage(2, "teacher", "Asking the teacher", TAUGHT, TEACHER, DOMAIN, LABELLED)
    def ask_the_teacher(self) -> Outputs:
        """The teacher, its copy for the elements of the structures, and everybody's labels."""
        from egnn_prune import adapters

        s = self.settings
        teacher = adapters.load(s.teacher, modal=s.modal).to(self.dtype).eval()
        dataset = structures.read_dataset(self.folder.path / STRUCTURES)
        structures.refuse_unknown_elements(dataset, teacher.elements, s.teacher)
        dataset = dataset.with_cutoff(teacher.network.options.cutoff)
        if s.labels == "teacher":
            dataset = self.labelled_by(teacher, dataset)
            self.say_what_it_is(dataset)
        else:
            warn_of_foreign_units(teacher, dataset.split("train"), dataset.name, self.device)
            refit_shifts(teacher, dataset.split("train"))
        structures.write_dataset(self.folder.path / LABELLED, dataset)
        elements = sorted({z for split in SPLITS for z in dataset.elements_of(split)})
        domain = adapters.drop_species(teacher, elements)
        with suppress(ConfigError):  # there is nothing to join, or something in between
            domain = adapters.collapse_linear_readout(domain)
        self.save(teacher, TEACHER)
        self.save(domain, DOMAIN)
        batch = measuring.timed_batch(dataset.split("test"))
        taken = measuring.latencies({"teacher": teacher}, batch, self.device, s.cut.timings)
        say(
            f"  energies and forces of {len(batch.pos)} atoms take the teacher "
            f"{taken['teacher']:.0f} ms; {s.budget:.0%} of that is the budget"
        )
        return {
            "cutoff": teacher.network.options.cutoff,
            "elements": elements,
            "latency_ms": taken["teacher"],
        }

    @stage(3, "pruned", "Cutting", CUT, PRUNED)
    def prune(self) -> Outputs:
        """The largest network that meets the budget, and those that meet others."""
        s, whole = self.settings, self.load(DOMAIN)
        teacher: Any = self.load(TEACHER)
        train, val = self.dataset.split("train"), self.dataset.split("val")
        some = list(train[: s.cut.structures])
        model, change = cutting.without_odd_paths(whole, val, self.device, s.cut.odd_paths)
        odd = cutting.paths_of(whole) - cutting.paths_of(model)
        if odd:
            say(f"  {odd} paths with odd l1+l2+l3 go (forces change by {change:.1f} meV/Angstrom)")
        scores = cutting.scored(model, some, self.device, s.seed)
        batch = measuring.timed_batch(val)
        how = (s.cut.paths, cutting.share_of_paths(whole, model), s.cut.timings)
        rungs = cutting.ladder(model, scores, teacher, batch, self.device, *how)
        chosen = cutting.refuse_impossible(rungs, s.budget, s.teacher)
        small, compared = cutting.compensated_cut(model, chosen.keep, some, val, self.device)
        self.save(small, PRUNED)
        say(
            f"  {chosen.conv:.0%} of the copies and {chosen.paths:.0%} of the paths' cost go: "
            f"{chosen.latency_ms:.0f} ms, {chosen.share:.0%} of the teacher's time"
        )
        return {
            "curve": curve(self, model, rungs, some),
            "cut": {
                "layers": cutting.what_was_cut(teacher, small),
                "species": [len(whole.elements), len(teacher.elements)],
                "odd_paths": odd,
                "odd_paths_force_change_mev_per_angstrom": change,
                "compensation": compared,
            },
        }

    @stage(4, "specialised", "Training the small network", CUT, FITTED["specialised"])
    def specialise(self) -> Outputs:
        """The cut network, trained."""
        model = self.load(PRUNED)
        found = self.fit("specialised", model)
        self.save(model, FITTED["specialised"])
        return about_fit(found)

    @stage(5, "finetuned", "Training the teacher further", TAUGHT, FITTED["finetuned"])
    def finetune_the_teacher(self) -> Outputs:
        """The teacher after the small network's steps; from its own labels it learns nothing."""
        model = self.load(DOMAIN)
        found: Outputs = {"train_seconds": 0.0, "curve": []}
        if self.settings.labels == "data":
            found = about_fit(self.fit("finetuned", model))
        else:
            say("  it made the labels itself, so it stays as it is")
        self.save(model, FITTED["finetuned"])
        return found

    @stage(6, "scratch", "Training the small shape from fresh weights", CUT, FITTED["scratch"])
    def train_scratch(self) -> Outputs:
        """The same shape without the teacher's weights, at the best of several rates."""
        tried: dict[float, Any] = {}
        for lr in self.settings.training.scratch_lrs:
            model = fresh(self.load(PRUNED), self.dataset, self.settings.seed)
            tried[lr] = self.fit(f"scratch (rate {lr:g})", model, lr=lr)
            best = min(tried, key=lambda rate: tried[rate].force_rmse)
            if best == lr:
                self.save(model, FITTED["scratch"])
        say(f"  a rate of {best:g} did best on the validation structures")
        return {"lr": best, **about_fit(tried[best])}

    @stage(7, "error_bars", "Fitting error bars", BARRED, *(COMPARED[name] for name in FITTED))
    def fit_error_bars(self) -> Outputs:
        """The files that a calculator opens: networks that say how sure they are."""
        s, barred = self.settings, self.models_with_error_bars()
        for name, path in FITTED.items():
            model: nn.Module = self.load(path)
            if name in barred:
                if s.uncertainty.method == "committee":
                    model = committee(self, model)
                model = bars.with_error_bars(
                    model, self.dataset, s.uncertainty, self.device, s.seed
                )
            self.save(model, COMPARED[name])
        if not barred:
            say("  none: uncertainty.method=none")
            return {"models": []}
        fitted = self.load_calibrated(SPECIALISED).atoms
        assert isinstance(fitted, AtomErrorBars)
        return {"models": barred, "source": fitted.source}

    def learn_from_the_pool(self) -> None:
        """Structures are chosen, labelled and learned; the stage is there with a pool alone."""
        say("Learning from the pool")
        artifacts = (LEARNED, NEW_LABELS)
        self.folder.stage("pool", POOLED, artifacts, partial(learn_from_pool, self))

    @stage(8, "evaluation", "Comparing", POOLED, "metrics.json", "predictions.npz")
    def evaluate(self) -> Outputs:
        """All models on the same test structures, times by turns."""
        networks = {name: self.network(name) for name in COMPARED}
        barred = {n: self.load_calibrated(COMPARED[n]) for n in self.models_with_error_bars()}
        graphs = list(self.dataset.split("test"))
        results, arrays, sizes = measuring.compare(
            networks, graphs, self.device, self.settings.seed, barred
        )
        for name, result in results.items():
            result["train_seconds"] = self.outputs(name).get("train_seconds", 0.0)
            result["checkpoint_bytes"] = (self.folder.path / COMPARED[name]).stat().st_size
        files.write_arrays(self.folder.path / "predictions.npz", **arrays)
        content = {**about(self), **sizes, "models": results}
        learned = [n for n in results if self.settings.labels == "data" or n not in TEACHERS]
        types = measuring.by_type(self.dataset.types_of("test"), arrays, learned)
        content |= {"errors_by_type": types} if types else {}
        pruned = {key: self.outputs("pruned")[key] for key in ("curve", "cut")}
        if self.settings.pool:
            pruned["pool"] = self.outputs("pool")["pool"]
        files.write_json(self.folder.path / "metrics.json", content | pruned)
        if barred:
            say(f"  error bars of the small network: {bars.promise(results['specialised'])}")
        return {}

    @stage(9, "export", "Exporting", POOLED)
    def export(self) -> Outputs:
        """A program for torch.export, where the network can be traced."""
        from egnn_prune.deployment.export import export_program

        path = self.folder.path / "specialised.pt2"
        try:
            crystals = all(map(is_crystal, self.dataset.split("train")))
            export_program(self.network("specialised"), path, stress=crystals)
        except Exception as error:  # the tracer raises whatever it raises; the model is there
            reason = " ".join(str(error).split())[:300]
            say(f"  no torch.export program ({type(error).__name__}: {reason[:120]})")
            return {"program": None, "reason": reason}
        return {"program": path.name}

    @stage(10, "report", "Writing the report", POOLED, "report.html")
    def report(self) -> Outputs:
        """Figures and page."""
        from egnn_prune.report.specialise import write_report

        for name in FITTED:  # from the stages, which may be those of another folder
            learning = LearningCurve()
            learning.rows = self.outputs(name)["curve"]
            learning.write(self.folder.path / "curves" / f"{name}.csv")
        write_report(self.folder.path)
        return {}

    # ------------------------------------------------------------------ parts of stages

    def network(self, name: str) -> Any:
        """A network that is compared, without its error bars, as it is in the end."""
        if name == "specialised" and self.settings.pool:
            return self.load(LEARNED)
        return self.load(FITTED.get(name, COMPARED[name]))

    def models_with_error_bars(self) -> list[str]:
        """Which of the trained networks get error bars.

        A teacher that made the labels itself has no errors, and a committee is trained of the
        small network alone.
        """
        if self.settings.uncertainty.method == "none":
            return []
        if self.settings.uncertainty.method == "committee":
            return ["specialised"]
        return [n for n in FITTED if n != "finetuned" or self.settings.labels == "data"]
