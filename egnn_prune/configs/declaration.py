"""How a setting is declared: its default, its meaning, and what it may be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import reduce
from operator import getitem
from typing import Any

from egnn_prune.errors import ConfigError


@dataclass(frozen=True)
class Allowed:
    """What a setting may be: one of some names, or a number in a range.

    Attributes:
        choices: the names.
        low: the smallest number.
        above: instead, a number that it has to exceed.
        high: the largest number.
        below: instead, a number that it has to stay below.
    """

    choices: Sequence[str] = ()
    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None

    def holds(self, value: Any) -> bool:
        """Whether a single value is allowed; NaN and infinity never are."""
        if self.choices:
            return value in self.choices
        return self == Allowed() or (
            value is not None
            and math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            return f"between {_plain(self.low)} and {_plain(self.high)}"
        limits = (
            ("at least", self.low),
            ("above", self.above),
            ("at most", self.high),
            ("below", self.below),
        )
        return " and ".join(
            f"{word} {_plain(limit)}" for word, limit in limits if limit is not None
        )


def _plain(limit: float) -> str:
    """The number as one would write it, without an exponent."""
    return f"{limit:,.10g}"


def setting(default: Any, meaning: str, **allowed: Any) -> Any:
    """A dataclass field with its meaning attached, and with what it may be.

    Args:
        default: its value where nothing else is said; a list that is not empty cannot become empty.
        meaning: for ``--help``, which adds what is allowed.
        allowed: as for :class:`Allowed`; every value of a list has to be that.
    """
    metadata = {"help": meaning, "allowed": Allowed(**allowed)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def later_setting(default: Any, meaning: str, **allowed: Any) -> Any:
    """A :func:`setting` that came when there were runs already, which all had its default.

    So :func:`content` leaves it out where it has that, which must stay the default.
    """
    made = setting(default, meaning, **allowed)
    return field(default=default, metadata={**made.metadata, "later": True})


def content(node: Any) -> dict[str, Any]:
    """The settings as nested dictionaries, by which runs are told apart.

    Runs of versions that did not have a :func:`later_setting` yet are still recognised.
    """
    found = asdict(node)
    for name, value, item in _settings(node):
        if item.metadata.get("later") and value == item.default:
            *sections, last = name.split(".")
            reduce(getitem, sections, found).pop(last)
    return found


def described(node: Any) -> Iterator[tuple[str, Any, str]]:
    """``(name, value, meaning [what is allowed])`` of every setting, depth first."""
    for name, value, item in _settings(node):
        allowed = str(item.metadata["allowed"])
        yield name, value, item.metadata["help"] + (f" [{allowed}]" if allowed else "")


def check(node: Any) -> None:
    """Refuse settings that are not what their declaration allows.

    Args:
        node: a dataclass of settings, or one of its sections.

    Raises:
        ConfigError: one sentence about the first wrong setting.
    """
    for name, value, item in _settings(node):
        allowed: Allowed = item.metadata["allowed"]
        several, nullable = isinstance(value, list), "None" in str(item.type)
        if value is None and nullable:
            continue
        wrong = [x for x in (value if several else [value]) if not allowed.holds(x)]
        if wrong and allowed.choices:
            how, given = ("some", wrong) if several else ("one", repr(value))
            null = "null, " if nullable else ""
            raise ConfigError(f"{name} must be {how} of {null}{allowed}, not {given}")
        if wrong:
            verb = "lie" if str(allowed).startswith("between") else "be"
            raise ConfigError(f"{name} must {verb} {allowed}, not {value}")
        if several and item.default_factory() and len(set(value)) < max(1, len(value)):
            raise ConfigError(f"{name} needs one or more different values, not {value}")


def _settings(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for item in fields(node):
        value = getattr(node, item.name)
        if is_dataclass(value):
            yield from _settings(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value, item


def leaves(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``(dotted name, value)`` of everything in nested mappings, as YAML files hold settings."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
