"""Docstrings name things and set formulas as Sphinx does; the site's links and formulas of that."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe

ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`([~.!]*)([\w.]+)`")
INLINE = re.compile(r":math:`([^`]+)`")
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +.*|\s*$))*)", re.MULTILINE)


class SphinxRoles(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            text = BLOCK.sub(block, obj.docstring.value)
            text = INLINE.sub(lambda m: f"${' '.join(m[1].split())}$", text)
            text = EXAMPLE.sub(r"\1Examples:", text)  # the only name that griffe knows
            obj.docstring.value = ROLE.sub(lambda m: link(m, obj), text)


def block(match: re.Match[str]) -> str:
    """A displayed formula, with the indentation of the directive."""
    indent, formula = match[1], " ".join(dedent(match[2]).split())
    return f"\n{indent}$$\n{indent}{formula}\n{indent}$$\n\n"


def link(match: re.Match[str], scope: griffe.Object) -> str:
    """A link where the site has that name on some page, else the name alone."""
    short, name = match.groups()
    shown = name.rsplit(".", 1)[-1] if "~" in short else name
    try:
        path = scope.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'
