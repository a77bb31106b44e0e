"""The commands whose settings come from the command line through Hydra."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from egnn_prune.cli.script import one_sentence
from egnn_prune.configs.force_calibration_study import ForceCalibrationStudySettings
from egnn_prune.configs.over_seeds import (
    AcquisitionSettings,
    CalibrationStudySettings,
    CentroidStudySettings,
    ComparisonSettings,
    SanitySettings,
    SelectionStudySettings,
    SweepSettings,
)
from egnn_prune.configs.questions_study import QuestionsStudySettings
from egnn_prune.configs.settings import Settings, described
from egnn_prune.configs.specialisation_study import SpecialisationStudySettings
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.configs.specialist_error_bars_study import SpecialistErrorBarsStudySettings
from egnn_prune.configs.what_to_label_study import WhatToLabelSettings
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.system.distributed import told
from egnn_prune.system.launch import end_with_the_launcher, launch
from egnn_prune.vision.settings import VisionSettings


@dataclass(frozen=True)
class Job:
    """A command that is called ``NAME [SETTING=VALUE ...]``.

    Attributes:
        schema: dataclass of its settings.
        config: YAML file in ``egnn_prune.configs``.
        work: ``module:function``, imported after ``--help``, because torch takes seconds.
        purpose: one paragraph for ``--help``.
        flags: short ways to say a setting, such as ``--demo`` for ``demo=true``.
        processes: how many of this machine share the job, where no launcher started them.
    """

    schema: type
    config: str
    work: str
    purpose: str
    flags: Mapping[str, str] = field(default_factory=dict)
    processes: Callable[[Any], int] = lambda settings: 1

    def __call__(self) -> None:
        """Run it with the process's arguments; never returns."""
        with one_sentence():  # hydra may be missing
            if (mine := told()) and mine[0]:  # the first process shows its bars
                os.environ["TQDM_DISABLE"] = "1"
            from egnn_prune.cli.hydra_app import command
        sys.argv[1:] = self._spelled_out(sys.argv[1:])
        command(self._run, self.schema, self.config, self.purpose)

    def check(self, arguments: Sequence[str]) -> None:
        """Refuse arguments that the command does not know, without running it."""
        from egnn_prune.cli.hydra_app import check

        check(self.schema, self.config, self._spelled_out(arguments))

    def words(self) -> list[str]:
        """What can stand behind the command, for completion."""
        from egnn_prune.cli.hydra_app import choices

        groups = choices(self.config)
        options = ["--config", "--help", "--multirun", "--cfg", "--quiet", "--verbose"]
        settings = [f"{name}=" for name, _, _ in described(self.schema())]
        options += self.flags
        return options + [f"{g}={n}" for g, names in groups.items() for n in names] + settings

    def _spelled_out(self, arguments: Sequence[str]) -> list[str]:
        return [self.flags.get(word, word) for word in arguments]

    def _run(self, settings: object) -> None:
        if (count := self.processes(settings)) > 1 and told() is None:
            sys.exit(launch(count, sys.orig_argv))
        end_with_the_launcher()
        module, _, function = self.work.partition(":")
        getattr(importlib.import_module(f"egnn_prune.{module}"), function)(settings)


def _shared_by(settings: Settings) -> int:
    """Processes of this machine that the main job asks for, where it asks for sensible settings."""
    validate(settings)
    return settings.trainer.devices if settings.trainer.nodes == 1 else 1


TRAIN = Job(
    Settings,
    "train",
    "pipeline.main_job:run",
    """\
Trains an E(n)-equivariant network, selects the training graphs that it is least sure about, prunes
message-passing channels by their importance on those graphs, fine-tunes, makes the network
physically smaller, and compares it with a dense baseline that got the same number of optimiser
steps (with training.patience, the number that it took) and with the small network trained from
scratch. The output folder receives metrics.json, figures, report.html, and both models as
safetensors (load them with egnn_prune.load).""",
    processes=_shared_by,
)


class _ComparisonOrStudy(Job):
    """``study=quick`` is the study of docs/study.md in that form, by its own command."""

    def __call__(self) -> None:
        if words := self._of_the_study(sys.argv[1:]):
            sys.argv[1:] = words
            QUESTIONS()
        super().__call__()

    def check(self, arguments: Sequence[str]) -> None:
        words = self._of_the_study(arguments)
        QUESTIONS.check(words) if words else super().check(arguments)

    @staticmethod
    def _of_the_study(words: Sequence[str]) -> list[str]:
        """The words of ``study questions``, where ``study=`` is among them."""
        if not any(word.startswith("study=") for word in words):
            return []
        return [word.replace("study=", "form=", 1) for word in words]


COMPARE = _ComparisonOrStudy(
    ComparisonSettings,
    "compare",
    "studies.comparison:compare",
    """\
Runs the main job for every seed and arm (finished runs are re-used, the dense model is trained once
per seed) and writes comparison.csv, comparison.png and a table: test error against the work that a
prediction takes, with 95 % intervals over the seeds. Settings that are not listed first are those
of the main job and hold for every arm. With study=quick or study=full it is "study questions".""",
)

SPECIALISE = Job(
    SpecialiseSettings,
    "specialise",
    "pipeline.specialise:run",
    """\
Makes a pretrained potential small and fast for structures of your own: removes the elements, the
convolution copies and the tensor-product paths that they need least, until energy and forces take a
share of the teacher's time (budget), lets what stays stand in for what went, and trains it on your
labels or on the teacher's (labels=teacher needs none). Compares it on held-out structures with the
teacher, the teacher trained for as many steps, and the small shape from fresh weights. The output
folder receives specialised.safetensors, metrics.json, figures and report.html. --demo (demo=true)
needs no data: water and ethanol, labelled by the teacher, in under 10 minutes on two cores.""",
    {"--demo": "demo=true"},
)

VISION = Job(
    VisionSettings,
    "vision",
    "vision.experiments.run:run_experiment",
    """\
Prunes image networks and asks what happens to accuracy, calibration and images of unknown classes.
Choose with experiment=NAME: digits (under a minute, needs no data), lottery_moons, lottery (LeNet,
CIFAR-10), lottery_cnn, lottery_mnist, incremental_mnist, incremental_cifar10, resnet101_magnitude,
resnet_structured, selection. Writes metrics.json, rows.csv, figures and report.html into a folder;
interrupted, the same command goes on where it stopped. With images of your own: data.name=folder
data.path=DIR.""",
)

CRITERIA = Job(
    SweepSettings,
    "sweep",
    "studies.criteria:run_sweep",
    """\
Trains the dense model of the main job once per seed, prunes it in one shot to every sparsity by
every criterion, fine-tunes each and writes sweep.csv, sweep.png and tables of mean, spread and
paired differences. Interrupted, the same command goes on where it stopped. Settings that are not
listed first are those of the main job.""",
)

SANITY = Job(
    SanitySettings,
    "sanity",
    "studies.sanity_checks:run_checks",
    """\
Trains the dense model of the main job once per seed, prunes it in one shot and trains six networks
of the same size: the pruned one (keep); one whose masks are shuffled within every group, with the
trained weights of the channels that they hit (shuffled); the chosen channels rewound to their
initial weights (rewound), and shuffled and rewound (both); the chosen channels with new random
weights (reinitialised), and the compact shape built afresh (scratch). The first two are fine-tuned;
the others start over and get the dense model's steps as well. Prints and writes a table.""",
)

CALIBRATION = Job(
    CalibrationStudySettings,
    "calibration",
    "studies.calibration:run_calibration_study",
    """\
Does pruning harm calibration more than accuracy, and does calibration mend it? Trains networks
once per seed and recipe, prunes them to every sparsity, fine-tunes each, gives them every
uncertainty method, calibrates on the validation split, and judges the error bars on the test and
out-of-distribution splits. Writes calibration.csv, calibration.txt and calibration.png.
Interrupted, the same command goes on where it stopped. Settings that are not listed first are
those of the main job, except training.max_epochs=14 and training.lr=4e-3. About 90 minutes on two
slow cores with workers=2.""",
)

SELECTION = Job(
    SelectionStudySettings,
    "selection_study",
    "studies.selection:run_selection_study",
    """\
From the dense network of every seed: each strategy selects training graphs, the network is pruned
in one shot on them and fine-tuned on them, with every share of replay. Writes selection.csv, a
table of errors and of their differences to random selection, paired by seed, and a forest plot.
Interrupted, the same command goes on where it stopped. Settings that are not listed first are those
of the main job.""",
)

ACQUISITION = Job(
    AcquisitionSettings,
    "acquisition",
    "studies.acquisition:run_acquisition",
    """\
Trains on a few random graphs, labels those graphs of the pool that a strategy chooses, trains
further on all labels so far, and so on. Writes acquisition.csv, tables of errors and of their
differences to random choice, paired by seed, and the learning curves. Interrupted, the same command
goes on where it stopped. Settings that are not listed first are those of the main job.""",
)

CENTROID = Job(
    CentroidStudySettings,
    "centroid_study",
    "studies.centroid:run_centroid_study",
    """\
A small EGNN learns where masses move to. The first half of its training sees ordinary graphs. The
second half sees ordinary ones (baseline), those of which the network is least sure, or equally many
random ones, with a share of the channels pruned when it begins. Writes centroid.csv, a table of
errors and of their differences to the baseline, paired by seed, and a figure. Interrupted, the same
command goes on where it stopped.""",
)

FORCES = Job(
    ForceCalibrationStudySettings,
    "force_calibration_study",
    "studies.force_calibration:run_force_calibration_study",
    """\
Does training on energies alone miscalibrate forces, and do a few steps on forces mend it? Trains an
EGNN and an IrrepsNet on energies, on energies and at last on forces, or on both from the start, for
equally many steps, prunes each, and judges error bars of its forces from distances of features and
from the members' spread, before and after calibration. Writes force_calibration.csv, tables and a
figure. Interrupted, the same command goes on where it stopped.""",
)

SPECIALISATION = Job(
    SpecialisationStudySettings,
    "specialisation_study",
    "studies.specialisation:run_specialisation_study",
    """\
Makes a pretrained potential small for ethanol, 3BPA and a box of water: the full one, cut ones and
the same shape from scratch are trained for equally many steps, each at the learning rate that
validation chooses. Cuts by several scores are compared without training, and times are measured.
Writes specialisation.csv, tables and a figure. Interrupted, the same command goes on where it
stopped.""",
)

WHAT_TO_LABEL = Job(
    WhatToLabelSettings,
    "what_to_label_study",
    "studies.what_to_label:run_what_to_label",
    """\
Specialists of 3BPA at 300 K choose structures to be labelled of a pool that has a rare part, hot
frames or frames with a stretched bond: the most uncertain, diverse ones, in proportion to the
squared error bar, or at random. Each is trained further on the same number of labels, most of the
time on structures that it knew. Writes what_to_label.csv, a table of force errors and of their
differences to random choice, paired by seed, and a figure. Interrupted, the same command goes on
where it stopped. About two hours on one core.""",
)

ERROR_BARS = Job(
    SpecialistErrorBarsStudySettings,
    "specialist_error_bars_study",
    "studies.specialist_error_bars:run_specialist_error_bars_study",
    """\
Do error bars of energies and forces outlive pruning and fine-tuning, and which structures does the
flag "in distribution" let pass? Makes a pretrained potential small for 3BPA, ethanol, silicon and
water, or reads networks from models=, judges calibration before the cut, after it, after
fine-tuning and after recalibration, and asks about hotter, stretched, broken and other molecules,
clusters and vacancies. Times error bars (parts=[cost]; on a quiet machine). Writes error_bars.csv,
tables and a figure. Interrupted, the same command goes on where it stopped.""",
)

QUESTIONS = Job(
    QuestionsStudySettings,
    "questions_study",
    "studies.questions.study:run_questions",
    """\
The study: what pruning a pretrained potential costs, and when uncertainty pays. Six questions with
arms, analysis and margins that were written down before the runs (docs/study.md), each answered
yes, no or not decided. form=quick takes minutes and needs no data; form=full about twenty hours of
one core and the data of ethanol and 3BPA; asked=[freezing] asks some only. Writes questions.csv,
answers and tables, and a figure. Interrupted, the same command goes on where it stopped.""",
)
