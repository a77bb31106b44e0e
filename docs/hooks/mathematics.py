"""Formulas as MathML, which browsers draw themselves: no script, no fonts from elsewhere."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

#: What pymdownx.arithmatex makes of $...$ and $$...$$, in pages and in docstrings.
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.+?)\\\]</div>', re.DOTALL)
INLINE = re.compile(r'<span class="arithmatex">\\\((.+?)\\\)</span>', re.DOTALL)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Both kinds, in the finished page."""
    content = BLOCK.sub(lambda m: formula(m[1], "block"), content)
    return INLINE.sub(lambda m: formula(m[1], "inline"), content)


def formula(latex: str, display: str) -> str:
    """MathML of what stands in the page as escaped LaTeX."""
    return convert(" ".join(html.unescape(latex).split()), display=display)
