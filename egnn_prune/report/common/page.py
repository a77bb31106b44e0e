"""One self-contained HTML page from sections of data: opens offline, in light and in dark mode."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.tables import Table

Pair = tuple[str, str]
MOST_ITEMS = 12
"""Items of a list that a compact text shows."""


@dataclass(frozen=True)
class Text:
    """A paragraph, in a `soft` colour where it only explains."""

    kind: ClassVar[str] = "text"
    text: str
    soft: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure: its PNG, and lines of caption, each with a heading or an empty one."""

    kind: ClassVar[str] = "picture"
    png: bytes
    alt: str
    caption: Sequence[Pair]

    @property
    def source(self) -> str:
        """The image itself as an address, so that the page needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Pairs:
    """Names with their values, in as many columns as fit or in a `single` one."""

    kind: ClassVar[str] = "pairs"
    items: Sequence[Pair]
    single: bool = False


@dataclass(frozen=True)
class Bars:
    """Shares of a total: mappings with ``name``, ``kind``, ``kept``, ``total``, ``percent``."""

    kind: ClassVar[str] = "bars"
    bars: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Printed:
    """Text in columns, as a terminal shows it."""

    kind: ClassVar[str] = "printed"
    text: str


@dataclass(frozen=True)
class StructureView:
    """Structures to turn, drawn by ``structure_view.js``; hidden where no script runs.

    Attributes:
        data: Numbers and texts without NaN, as the script wants them; on the page as JSON.
        colours: What atoms can be coloured by: the key in `data` with the label of its button.
        note: What the view shows.
    """

    kind: ClassVar[str] = "structures"
    data: Mapping[str, Any]
    colours: Sequence[Pair]
    note: str


Block = Text | Picture | Pairs | Bars | Printed | Table | StructureView


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it; left out of the page where that is nothing."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What an address ends with to lead here, such as ``error-bars-of-forces``."""
        return re.sub("[^a-z0-9]+", "-", self.title.lower()).strip("-")


def render(
    title: str,
    headline: str,
    sections: Iterable[Section],
    *,
    config: str,
    terms: Sequence[Pair],
    above: str = "",
    below: Sequence[Block] = (),
) -> str:
    """The HTML document.

    Args:
        title: Of the window.
        headline: The one sentence to remember.
        sections: What the page shows, in order.
        config: Resolved configuration, shown as it is; none if empty.
        terms: The words to explain with their meanings.
        above: A line above the headline.
        below: What stands between the headline and the first section.
    """
    environment = Environment(
        loader=PackageLoader("egnn_prune.report.common", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # markup in texts becomes \u003c and the like, so that no text can end the data
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    shown = [section for section in sections if section.blocks]
    last = [Section("What the words mean", ())] if terms else []
    last += [Section("Configuration", ())] if config else []
    blocks = [*below, *(block for section in shown for block in section.blocks)]
    names = ["sort_tables.js"]
    names += ["structure_view.js"] if any(b.kind == StructureView.kind for b in blocks) else []
    scripts = [Path(__file__).with_name(n).read_text(encoding="utf-8") for n in names]
    return environment.get_template("page.html.j2").render(
        title=title,
        headline=headline,
        sections=shown,
        contents=[*shown, *last],
        scripts=scripts,
        # browsers run these scripts alone, whatever else should ever get into a page
        hashes=[base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts],
        config=config,
        terms=terms,
        above=above,
        below=below,
    )


def glossary(page: str, **words: str) -> list[Pair]:
    """The terms of one kind of page with their meanings.

    Args:
        page: Such as ``molecules``, ``positions`` or a kind of experiment on images.
        words: For the places in the text that are written ``{name}``.
    """
    entries = json.loads(Path(__file__).with_name("glossary.json").read_text(encoding="utf-8"))
    found = [entry for entry in entries if page in entry["pages"].split()]
    return [(entry["term"], entry["meaning"].format(**words)) for entry in found]


def as_text(value: object, compact: bool = False) -> str:
    """Any JSON value as readable text; `compact`: thousands marked and long lists cut."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and compact:
        return f"{value:,}"
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {as_text(item, compact)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        shown = value[:MOST_ITEMS] if compact else value
        more = f" and {len(value) - MOST_ITEMS} more" if len(shown) < len(value) else ""
        return ", ".join(as_text(item, compact) for item in shown) + more
    return str(value)


def pairs(mapping: Mapping[str, Any] | None, compact: bool = False) -> list[Pair]:
    """A mapping as names and texts; a compact one leaves out what is not known."""
    return [
        (str(key).replace("_", " "), as_text(value, compact))
        for key, value in (mapping or {}).items()
        if not (compact and value is None)
    ]
