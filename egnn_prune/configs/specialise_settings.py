"""Every setting of ``egnn-prune specialise``; its ``--help`` prints them."""

from __future__ import annotations

from dataclasses import dataclass, field

from egnn_prune.configs.settings import COUNT, POSITIVE, SEED, THREADS, TrainerSettings, setting

#: A share of the teacher's time, or of its forces.
PART: dict[str, float] = {"above": 0, "below": 1}


@dataclass
class StructureSettings:
    """The user's structures."""

    path: str | None = setting(None, "file of structures in any format that ASE reads")
    target: str | None = setting(
        None, "labels=data: name of the energy; null: the only one of a usual name"
    )
    limit: int | None = setting(None, "use at most this many training structures; null: all", low=2)
    held_out: int = setting(
        200, "use at most this many structures to validate, and as many to test on", low=1
    )


@dataclass
class CutSettings:
    """What is cut, and on what evidence."""

    paths: float = setting(
        0.67, "share of the paths' cost that goes, for each copy that goes", low=0, high=1
    )
    odd_paths: float = setting(
        0.02,
        "drop paths with odd l1+l2+l3 if validation forces change by less, share of their rms",
        low=0,
        high=1,
    )
    structures: int = setting(
        48, "training structures that scores and compensation look at, at most", **COUNT
    )
    steps: int = setting(
        30, "optimiser steps of the short fit at each point of error against speed", **COUNT
    )
    timings: int = setting(5, "timed passes of every shape, by turns with the teacher", **COUNT)


@dataclass
class SpecialiseTrainingSettings:
    """Fits of the small network, of the teacher and of the controls; all get the same steps."""

    # Errors go on falling: 0.7 times those after 200 steps by 600, 0.4 by 2,000 (study, question 1)
    steps: int = setting(1000, "optimiser steps of every fit", **COUNT)
    batch_size: int = setting(5, "structures per step", **COUNT)
    lr: float = setting(1e-2, "highest learning rate", **POSITIVE)
    scratch_lrs: list[float] = setting(
        [3e-3, 1e-2, 3e-2], "of the control from fresh weights; validation chooses", **POSITIVE
    )
    energy_weight: float = setting(0.1, "weight of the energies beside the forces", low=0)
    stress_weight: float = setting(
        0.1, "labels=teacher: weight of the stresses of periodic structures", low=0
    )
    augmented: int = setting(
        1, "labels=teacher: copies of each training structure, by each rattle and strain", low=0
    )
    dynamics: int = setting(
        40, "labels=teacher: frames of its dynamics at 300 and 600 K to train on as well", low=0
    )


@dataclass
class PotentialUncertaintySettings:
    """Where the error bars of energies and forces come from."""

    method: str = setting(
        "last_layer",
        "last_layer: no training more; shallow: several read-outs; committee: several networks",
        choices=("last_layer", "shallow", "committee", "none"),
    )
    members: int = setting(4, "read-outs of shallow, networks of committee", low=2)
    calibration: str = setting(
        "variance",
        "of energies, fitted on validation; variance, robust: one factor, monotone, power: a map",
        choices=("variance", "robust", "monotone", "power", "isotonic", "conformal", "none"),
    )


@dataclass
class SpecialiseSettings:
    """The whole job."""

    name: str = setting("specialise", "goes into the default name of the output folder")
    out: str | None = setting(None, "output folder; null: runs/<date>-<name>")
    reuse: list[str] = setting([], "other output folders whose equal stages may be copied")
    seed: int = setting(0, "seeds everything", **SEED)
    device: str = setting("auto", "auto (CUDA when present), cpu, cuda or cuda:N")
    precision: str = setting("float32", "of weights", choices=("float32", "float64"))
    threads: int | None = setting(None, "CPU threads; null: torch's default", **THREADS)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    teacher: str = setting("7net-0", "pretrained potential: a name (7net-0, 7net-l3i5) or a file")
    modal: str | None = setting(
        None, "level of theory of a teacher that has several, such as PBE of 7net-mf-0"
    )
    labels: str = setting(
        "data",
        "energies and forces to learn: those of the file, or the teacher's own",
        choices=("data", "teacher"),
    )
    budget: float = setting(0.25, "share of the teacher's time that a prediction may take", **PART)
    budgets: list[float] = setting(
        [0.6, 0.4, 0.25, 0.15, 0.1], "points of the curve of error against speed", **PART
    )
    demo: bool = setting(
        False, "a demonstration that needs no data: water and ethanol, labelled by the teacher"
    )
    pool: str | None = setting(
        None, "file of more structures, of which some are chosen, labelled and learned as well"
    )
    label: int = setting(20, "structures of the pool that are chosen and labelled", low=2)
    selection: str = setting(
        "uncertain",
        "how they are chosen: by the largest error bars of forces, by these and unlike each other, "
        "drawn in proportion to their square, or blindly",
        choices=("uncertain", "diverse", "proportional", "random"),
    )
    rounds: int = setting(
        1, "choose, label and learn in so many rounds, each with the error bars of the last", low=1
    )
    data: StructureSettings = field(default_factory=StructureSettings)
    cut: CutSettings = field(default_factory=CutSettings)
    training: SpecialiseTrainingSettings = field(default_factory=SpecialiseTrainingSettings)
    uncertainty: PotentialUncertaintySettings = field(default_factory=PotentialUncertaintySettings)
