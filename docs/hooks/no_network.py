"""The site must open without a network: nothing on a page may be fetched from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|data)=[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?(?:https?:)?//"
    r"|@import\s+(?:url\()?[\"']?(?:https?:)?//"
    r"|url\([\"']?(?:https?:)?//",
    re.IGNORECASE,
)


def on_post_build(config: MkDocsConfig) -> None:
    """Look at every page and style sheet that was written."""
    site = Path(config.site_dir)
    found = [f"{path.relative_to(site)}: {fetched(path)}" for path in pages(site) if fetched(path)]
    if found:
        raise PluginError("fetched from elsewhere:\n" + "\n".join(found))


def pages(site: Path) -> list[Path]:
    """HTML and style sheets."""
    return sorted(p for p in site.rglob("*") if p.suffix in (".html", ".css"))


def fetched(path: Path) -> str:
    """The first thing that a browser would fetch, or nothing."""
    match = FETCHED.search(path.read_text())
    return match[0] if match else ""
