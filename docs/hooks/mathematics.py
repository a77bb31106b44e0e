"""Formulas as MathML, which browsers draw themselves: no script, no fonts from elsewhere."""

from __future__ import annotations

import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^\$\$(.+?)\$\$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\w)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """``$$...$$`` and ``$...$``, outside of code."""
    parts = CODE.split(markdown)
    for i, part in enumerate(parts[::2]):
        part = BLOCK.sub(lambda m: convert(" ".join(m[1].split()), display="block"), part)
        parts[2 * i] = INLINE.sub(lambda m: convert(m[1]), part)
    return "".join(parts)
