"""Pages and figures that lie outside of docs/, and the links between them and the pages in it.

On GitHub every link is relative to the file that it stands in. The site has another layout, so a
link is looked up in the repository and written anew.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
#: Pages of the site by the file in the repository that they are.
PAGES = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "datasets/README.md": "datasets.md",
}
HOME = {page: file for file, page in PAGES.items()}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and all figures."""
    outside = {**PAGES, **{f"figures/{p.name}": f"figures/{p.name}" for p in figures()}}
    for name, page in outside.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    return files


def figures() -> list[Path]:
    """Images in the repository's ``figures/``."""
    return sorted((ROOT / "figures").glob("*.png"))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links, rewritten outside of code."""
    here = page.file.src_uri
    parts = CODE.split(markdown)
    parts[::2] = [
        LINK.sub(lambda m: m[1] + rewritten(m[2], here) + m[3], part) for part in parts[::2]
    ]
    return "".join(parts)


def rewritten(target: str, here: str) -> str:
    """A link in the page ``here``, whose file says where in the repository it leads."""
    if re.match(r"[a-z]+:|#", target):
        return target
    name, sign, anchor = target.partition("#")
    home = HOME.get(here, f"docs/{here}")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(home), name))
    page = PAGES.get(file, file.removeprefix("docs/"))
    if page.endswith(".ipynb") and page.removesuffix(".ipynb") != here.removesuffix(".md"):
        page = page.removesuffix(".ipynb") + ".md"  # on its own page it is there to be downloaded
    return posixpath.relpath(page, posixpath.dirname(here) or ".") + sign + anchor
