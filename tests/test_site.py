"""What docs/hooks make of the repository for the site; `make docs` builds all of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from test_public_names import PUBLIC

from egnn_prune.cli.registry import COMMANDS

pytest.importorskip("mkdocs", reason="the site is built with the extra docs")
pytest.importorskip("mkdocstrings", reason="the site is built with the extra docs")
pytest.importorskip("latex2mathml", reason="the site is built with the extra docs")

HOOKS = Path(__file__).parents[1] / "docs" / "hooks"


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HOOKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_room_has_a_page():
    assert set(PUBLIC) <= set(hook("api").ROOMS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_how_it_is_used(command):
    page = hook("commands").page(command)
    assert f"# egnn-prune {command}\n" in page
    assert f"sage: egnn-prune {command} " in page
    assert page.rstrip().endswith("```")
    text = page[: page.find("<table>")] + page[page.find("</table>") :]
    assert max(map(len, text.splitlines())) <= 120  # longer lines wrap in a table only


def test_settings_become_a_table():
    parts = hook("commands").parts
    help_text = (
        "Usage: x\n\nSettings:\n  a=1   one | two <b>\n\n  b=[]  none [x, *y]\n\n--config FILE"
    )
    assert "\n".join(parts(help_text)).count("<tr><td>") == 2
    assert "<tr><td><code>a=<wbr>1</code></td><td>one | two &lt;b&gt;</td></tr>" in parts(help_text)
    assert parts(help_text)[-2:] == ["--config FILE", "```"]
    assert parts("no settings") == ["``` { .text .wrapped }", "no settings", "```"]
    with pytest.raises(ValueError, match="not a setting"):
        parts(help_text.replace("b=[]", "b"))


@pytest.mark.parametrize(
    ("target", "here", "found"),
    [
        ("speed.md#on-a-gpu", "limits.md", "speed.md#on-a-gpu"),
        ("../README.md#two-commands", "own-data.md", "overview.md#two-commands"),
        ("../figures/gallery.png", "uncertainty.md", "figures/gallery.png"),
        ("docs/pruning.md", "overview.md", "pruning.md"),
        ("figures/gallery.png", "overview.md", "figures/gallery.png"),
        ("datasets/README.md", "overview.md", "datasets.md"),
        ("../figures/dataset_xtb.png", "datasets.md", "figures/dataset_xtb.png"),
        ("tutorials/first_potential.ipynb", "index.md", "tutorials/first_potential.md"),
        ("first_potential.ipynb", "tutorials/first_potential.md", "first_potential.ipynb"),
        ("../pruning.md", "tutorials/first_potential.md", "../pruning.md"),
        ("#here", "limits.md", "#here"),
        ("https://example.org/a.md", "limits.md", "https://example.org/a.md"),
    ],
)
def test_links_lead_to_where_the_site_has_the_file(target, here, found):
    assert hook("outside").rewritten(target, here) == found


def test_links_in_code_stay():
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="limits.md"))
    text = "`[a](../README.md)` and [a](../README.md)\n```sh\n[a](../README.md)\n```\n"
    found = hook("outside").on_page_markdown(text, page, None, None)
    assert found.count("](../README.md)") == 2 and found.count("](overview.md)") == 1


def test_sphinx_is_translated():
    roles = hook("sphinx_roles")
    text = "See\n\n    .. math::\n        a_b =\n        c^2\n\n    and more :math:`\\sigma`."
    text = roles.INLINE.sub(lambda m: f"${m[1]}$", roles.BLOCK.sub(roles.block, text))
    assert text.split() == ["See", "$$", "a_b", "=", "c^2", "$$", "and", "more", "$\\sigma$."]
    page = hook("mathematics").on_page_content(
        '<p>A <span class="arithmatex">\\(a &lt; b\\)</span></p>', None, None, None
    )
    assert "<math" in page and "&#x0003C;" in page and "arithmatex" not in page


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        "<script defer src=//cdn.example.org/a.js></script>",
        '<link rel="stylesheet" href="https://fonts.example.org/css">',
        '<img alt="x" src="http://example.org/a.png">',
        '<style>@import url("https://example.org/a.css");</style>',
        "<style>a { background: url(https://example.org/a.png) }</style>",
    ],
)
def test_what_would_be_fetched_is_found(html, tmp_path):
    from mkdocs.exceptions import PluginError

    (tmp_path / "a.html").write_text('<a href="https://example.org">a link</a>')
    config: Any = SimpleNamespace(site_dir=str(tmp_path))
    hook("no_network").on_post_build(config)
    (tmp_path / "b.html").write_text(html)
    with pytest.raises(PluginError, match=r"b\.html"):
        hook("no_network").on_post_build(config)
