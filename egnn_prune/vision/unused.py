"""Settings that an experiment on images never reads, by its kind: refused where they were changed.

See :mod:`egnn_prune.configs.unused`, which does the same for jobs on graphs.
"""

from __future__ import annotations

from egnn_prune.configs.unused import Reasons
from egnn_prune.pruning.criteria import DATA_FREE
from egnn_prune.vision.settings import VisionSettings

#: Settings of the section ``pruning`` that each kind reads, but for those that depend on others.
PRUNING = {
    "lottery": ("structures", "strategies", "sparsities"),
    "magnitude": ("sparsities", "weight_scope"),
    "incremental": ("criterion", "weight_criterion", "scope", "weight_scope", "every", "rate"),
    "structured": ("scope", "factors", "criteria"),
    "selection": ("sparsities", "criterion", "scope"),
}
ALWAYS = ("ignored",)


def unused_by(settings: VisionSettings) -> Reasons:
    """What an experiment has no use for, and why."""
    s, found = settings, Reasons()
    read = _pruning(s)
    for name in vars(s.pruning):
        if name not in read:
            found[f"pruning.{name}"] = f"kind={s.kind} as it is set up here does not read it"
    if s.kind != "selection":
        found["selection.*"] = "it belongs to kind=selection"
    elif set(s.selection.strategies) == {"all"}:
        for name in ("fraction", "replay"):
            found[f"selection.{name}"] = "the arm all selects nothing"
    for part, fit in (("training", s.training), ("finetuning", s.finetuning)):
        if fit.optimizer != "sgd":
            found[f"{part}.momentum"] = f"it belongs to {part}.optimizer=sgd"
    if s.kind == "incremental":
        found["finetuning.*"] = "kind=incremental prunes while it trains"
    if not s.network.dropout:
        found["uncertainty.samples"] = "the network has no dropout (network.dropout=0)"
    if s.data.ood is None:
        found["data.ood_path"] = "there is no data.ood"
    return found


def _pruning(s: VisionSettings) -> set[str]:
    p, read = s.pruning, {*ALWAYS, *PRUNING[s.kind]}
    if s.kind == "lottery":
        if "structured" in p.structures:
            read |= {"criterion", "scope"}
        if "unstructured" in p.structures:
            read |= {"weight_criterion", "weight_scope"}
        if "iterative" in p.strategies:
            read |= {"rounds"}
    used = {getattr(p, name) for name in ("criterion", "weight_criterion") if name in read}
    if s.kind == "structured":
        used |= set(p.criteria) - {"shuffled", "scratch"}
    if used - DATA_FREE:
        read |= {"batches"}
    return read
