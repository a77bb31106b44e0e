"""A setting's declaration refuses what it does not allow, and says so in ``--help``."""

# ruff: noqa: RUF009 - setting() returns a dataclass field, as field() does

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from egnn_prune.configs.declaration import check, content, described, later_setting, setting
from egnn_prune.configs.settings import Settings
from egnn_prune.errors import ConfigError
from egnn_prune.vision.settings import VisionSettings


@dataclass
class Part:
    """A section."""

    share: float = setting(0.5, "a share", low=0, below=1)
    kind: str | None = setting(None, "which kind", choices=("one", "other"))
    speed: int = later_setting(1, "a speed", low=1)


@dataclass
class Whole:
    """Settings with a section."""

    rate: float | None = setting(1.0, "a rate", above=0)
    seeds: list[int] = setting([0], "a seed each", low=0, high=9)
    kinds: list[str] = setting(["one"], "kinds", choices=("one", "other"))
    widths: list[int] = setting([], "widths", low=1)
    anything: float = setting(0.0, "free")
    part: Part = field(default_factory=Part)


def changed(name: str, value: Any) -> Whole:
    settings = Whole()
    section, _, last = name.rpartition(".")
    setattr(getattr(settings, section) if section else settings, last, value)
    return settings


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("part.share", 1.0, "part.share must be at least 0 and below 1, not 1.0"),
        ("part.share", -0.1, "part.share must be at least 0 and below 1, not -0.1"),
        ("part.share", float("nan"), "part.share must be at least 0 and below 1, not nan"),
        ("part.share", None, "part.share must be at least 0 and below 1, not None"),
        ("part.kind", "third", "part.kind must be one of null, one, other, not 'third'"),
        ("rate", 0.0, "rate must be above 0, not 0.0"),
        ("rate", float("inf"), "rate must be above 0, not inf"),
        ("seeds", [0, 10], "seeds must lie between 0 and 9, not [0, 10]"),
        ("seeds", [], "seeds needs one or more different values, not []"),
        ("seeds", [1, 1], "seeds needs one or more different values, not [1, 1]"),
        ("kinds", ["one", "third"], "kinds must be some of one, other, not ['third']"),
        ("widths", [3, 0], "widths must be at least 1, not [3, 0]"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(name, value, complaint):
    with pytest.raises(ConfigError) as caught:
        check(changed(name, value))
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("part.share", 0.0),
        ("part.kind", "other"),
        ("part.kind", None),
        ("rate", None),
        ("rate", 1e-30),
        ("seeds", [0, 9]),
        ("widths", [3, 3]),
        ("anything", float("nan")),
    ],
)
def test_what_is_allowed_passes(name, value):
    check(changed(name, value))


def test_a_setting_that_came_later_counts_where_it_was_changed():
    settings = Whole()
    assert content(settings)["part"] == {"share": 0.5, "kind": None}
    settings.part.speed = 2
    assert content(settings)["part"] == {"share": 0.5, "kind": None, "speed": 2}
    with pytest.raises(ConfigError, match=r"part\.speed must be at least 1, not 0"):
        check(changed("part.speed", 0))


def test_help_says_what_is_allowed():
    found = {name: text for name, _, text in described(Whole())}
    assert found["part.share"] == "a share [at least 0 and below 1]"
    assert found["part.kind"] == "which kind [one, other]"
    assert found["part.speed"] == "a speed [at least 1]"
    assert found["seeds"] == "a seed each [between 0 and 9]"
    assert found["rate"] == "a rate [above 0]"
    assert found["anything"] == "free"


@pytest.mark.parametrize("kind", [Settings, *Settings.__subclasses__(), VisionSettings])
def test_every_default_is_allowed(kind):
    check(kind())
