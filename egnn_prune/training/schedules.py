"""How the learning rate goes along a fit, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

#: ``schedule(optimiser, highest rate, steps, share of them in which it rises)``, stepped after
#: every step.
Schedule = Callable[[Optimizer, float, int, float], LRScheduler]


def one_cycle(optimiser: Optimizer, lr: float, steps: int, warmup: float) -> LRScheduler:
    """Up and down again, with a momentum that goes down and up (Smith and Topin 2018)."""
    # OneCycleLR divides by zero where the rise lasts exactly one step
    rise = warmup if warmup * steps > 1 else 0.9 * warmup
    return OneCycleLR(optimiser, lr, total_steps=steps, pct_start=rise)


def cosine(optimiser: Optimizer, lr: float, steps: int, warmup: float) -> LRScheduler:
    """From the highest rate to zero along half a cosine (Loshchilov and Hutter 2017)."""
    return CosineAnnealingLR(optimiser, steps)


def constant(optimiser: Optimizer, lr: float, steps: int, warmup: float) -> LRScheduler:
    """The same rate in every step."""
    return ConstantLR(optimiser, factor=1.0)


SCHEDULES: dict[str, Schedule] = {"onecycle": one_cycle, "cosine": cosine, "constant": constant}
