"""A page for every command of `egnn-prune`, made of its `--help`, so that none can get stale."""

from __future__ import annotations

import contextlib
import html
import io
import re
import sys
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from egnn_prune.cli.main import main
from egnn_prune.cli.registry import COMMANDS, NAME

WRAPPED = "``` { .text .wrapped }"  # see docs/assets/site.css
SETTING = re.compile(r"  (\S+=\S*) +(\S.*)")  # as ``--help`` lists it


def file_name(command: str) -> str:
    """Of a command's page."""
    return f"commands/{command.replace(' ', '-')}.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The pages' places in the navigation."""
    pages: list[object] = [{"All commands": "commands/index.md"}]
    pages += [{command: file_name(command)} for command in COMMANDS]
    for entry in config.nav or []:
        if entry.get("Commands") == "COMMANDS":
            entry["Commands"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages themselves."""
    pages = {"commands/index.md": index()}
    pages |= {file_name(command): page(command) for command in COMMANDS}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def index() -> str:
    """A table of all commands."""
    rows = [
        f"| [`{command}`]({command.replace(' ', '-')}.md) | {entry.summary} |"
        for command, entry in COMMANDS.items()
    ]
    table = ["| command | what it does |", "|---|---|", *rows]
    return "\n".join(["# Commands", "", *table, "", "```text", said([]), "```", ""])


def page(command: str) -> str:
    """What ``egnn-prune COMMAND --help`` says."""
    wide = ["---", "hide: [toc]", "---", ""]
    head = [*wide, f"# {NAME} {command}", "", f"{COMMANDS[command].summary}.".capitalize(), ""]
    return "\n".join([*head, *parts(said(command.split())), ""])


def parts(text: str) -> list[str]:
    """The text as it stands, its settings as a table, because their long lines wrap there.

    The table is HTML: in a Markdown one, the bars and stars of a meaning would count.
    """
    above, settings, rest = text.partition("\n\nSettings:\n")
    if not settings:
        return [WRAPPED, text, "```"]
    listed, _, below = rest.partition("\n\n--")
    rows = []
    for line in filter(None, listed.splitlines()):
        found = SETTING.fullmatch(line)
        if found is None:
            raise ValueError(f"not a setting of --help: {line!r}")
        name, meaning = (html.escape(part) for part in found.groups())
        name = re.sub(r"\.(?=[a-z])|=(?=.)", r"\g<0><wbr>", name)  # may break there
        rows.append(f"<tr><td><code>{name}</code></td><td>{meaning}</td></tr>")
    head = "<thead><tr><th>setting and default</th><th>meaning [values]</th></tr></thead>"
    body = ["<table>", head, "<tbody>", *rows, "</tbody>", "</table>"]
    table = ['<div class="settings">', *body, "</div>"]
    return [WRAPPED, above, "```", "", *table, "", WRAPPED, f"--{below}", "```"]


def said(words: list[str]) -> str:
    """What ``egnn-prune ... --help`` prints in this process, in lines of usual length."""
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [NAME, *words, "--help"]),
        mock.patch.dict("os.environ", {"COLUMNS": "100"}),  # argparse asks the terminal
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        main()
    return out.getvalue().strip()
