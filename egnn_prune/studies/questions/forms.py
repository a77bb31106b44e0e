"""The numbers of the study's two forms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """How large the study is.

    Attributes:
        seeds: where the settings name none.
        system: most questions are asked of it.
        second: where there are hot frames; the same as ``system`` where there is no other.
        train: training structures, for all questions but those that vary them.
        steps: optimiser steps of a fit, likewise.
        val: validation structures.
        test: test structures, the same for all seeds.
        sizes: training structures of question 1.
        lengths: optimiser steps of question 1.
        rates: learning rates of question 1, of which validation chooses.
        full_rate: learning rate of the full network in all other questions.
        small_rate: that of small ones with inherited weights.
        scratch_rate: that of small ones with fresh weights.
        budgets: shares of the teacher's time, of question 2.
        compiled: whether question 2 also times compiled networks, which takes minutes.
        shares: of the copies that go, of question 3.
        few: training structures of question 6.
        dynamics: steps of the simulations of question 4.
        pool: structures to choose from in question 5, and how many of them are chosen.
        chosen: see ``pool``.
        rare: shares of the pool that are hot.
    """

    seeds: tuple[int, ...]
    system: str
    second: str
    train: int
    steps: int
    val: int
    test: int
    sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    rates: tuple[float, ...]
    full_rate: float
    small_rate: float
    scratch_rate: float
    budgets: tuple[float, ...]
    compiled: bool
    shares: tuple[float, ...]
    few: tuple[int, ...]
    dynamics: int
    pool: int
    chosen: int
    rare: tuple[float, ...]


FORMS = {
    "quick": Form(
        seeds=(0, 1),
        system="shaken",
        second="shaken",
        train=20,
        steps=15,
        val=10,
        test=10,
        sizes=(10, 20),
        lengths=(5, 15),
        rates=(3e-3,),
        full_rate=1e-3,
        small_rate=3e-3,
        scratch_rate=3e-3,
        budgets=(0.7, 0.5),
        compiled=False,
        shares=(0.5, 0.75),
        few=(10, 20),
        dynamics=20,
        pool=20,
        chosen=5,
        rare=(0.2,),
    ),
    "full": Form(
        seeds=(0, 1, 2, 3, 4),
        system="ethanol",
        second="3bpa",
        train=200,
        steps=200,
        val=50,
        test=150,
        sizes=(1000, 100, 8000),  # the first one is that for which rates are chosen
        lengths=(200, 600, 2000),
        rates=(3e-3, 1e-2, 3e-2),
        full_rate=1e-2,  # validation chose these for 200 steps
        small_rate=1e-2,
        scratch_rate=3e-2,
        budgets=(0.7, 0.6, 0.5, 0.4, 0.3),
        compiled=True,
        shares=(0.3, 0.5, 0.65, 0.75, 0.85),
        few=(50, 200, 1000),
        dynamics=4000,
        pool=200,
        chosen=50,
        rare=(0.05, 0.2, 0.6),
    ),
}
