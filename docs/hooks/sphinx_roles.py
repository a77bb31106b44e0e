"""Docstrings name things as Sphinx does (``:func:`~a.b```); the site's links are made of that."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`([~.!]*)([\w.]+)`")


class SphinxRoles(griffe.Extension):
    """Rewrites the roles in every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(lambda m: link(m, obj), obj.docstring.value)


def link(match: re.Match[str], scope: griffe.Object) -> str:
    """A link where the site has that name on some page, else the name alone."""
    short, name = match.groups()
    shown = name.rsplit(".", 1)[-1] if "~" in short else name.removeprefix(".")
    try:
        path = scope.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'
