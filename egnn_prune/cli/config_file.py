"""``--config FILE``: settings from a YAML file, as what they would be on the command line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import resources
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from egnn_prune.cli.suggest import no_setting
from egnn_prune.configs.declaration import leaves
from egnn_prune.configs.settings import described
from egnn_prune.errors import ConfigError

OPTION = "--config"
#: Bytes of a file of settings, and brackets within each other.
LARGEST, DEEPEST = 1_000_000, 64
#: Settings that files of earlier runs hold under another name.
RENAMED = {f"{part}.best_by": f"{part}.monitor" for part in ("training", "finetuning")}


def split_config(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file, and the other arguments.

    Raises:
        ConfigError: the option is there twice, or without a file.
    """
    files, rest, words = [], [], iter(arguments)
    for word in words:
        if word == OPTION or word.startswith(f"{OPTION}="):
            files.append(word.partition("=")[2] or next(words, ""))
        else:
            rest.append(word)
    if len(files) > 1 or "" in files:
        raise ConfigError(f"{OPTION} is given once, with a file: {OPTION} run.yaml")
    return (Path(files[0]).expanduser() if files else None), rest


def overrides_of(
    path: Path, schema: type, groups: Collection[str], stated: Sequence[str]
) -> list[str]:
    """The settings in a file, written for Hydra.

    Nothing in the file is executed: it holds numbers, text and lists.

    Args:
        path: YAML, nested or with dotted names.
        schema: dataclass of the settings.
        groups: what the command chooses from, such as ``data`` in ``data: rmd17``.
        stated: on the command line. What a choice there (``data=qm9``) sets is not taken from the
            file.

    Raises:
        ConfigError: the file cannot be read, or holds what is no setting.
    """
    known = {name for name, _, _ in described(schema())}
    chosen = dict(a.split("=", 1) for a in stated if a.partition("=")[0] in groups)
    taken = {name for group, choice in chosen.items() for name in set_by(group, choice)}
    found = []
    for name, value in leaves(_read(path)):
        name = RENAMED.get(name, name)
        if name not in known and not (name in groups and isinstance(value, str)):
            raise ConfigError(f"{path}: {no_setting(name, [*known, *groups])}")
        if name in taken or {name, name.partition(".")[0]} & chosen.keys():
            continue
        found.append(f"{name}={value if name in groups else _written(value, name, path)}")
    return found


def set_by(group: str, choice: str) -> set[str]:
    """Names of the settings that a choice such as ``data=rmd17`` brings."""
    file = resources.files("egnn_prune.configs").joinpath(group, f"{choice}.yaml")
    if not file.is_file():
        return set()  # Hydra says so
    text = file.read_text()
    content: Any = OmegaConf.to_container(OmegaConf.create(text))
    prefix = "" if "@package _global_" in text else f"{group}."
    return {name for name, _ in leaves(content, prefix)}


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode("utf-8-sig")
        if len(text) > LARGEST or _nesting(text) > DEEPEST:  # YAML takes minutes for such files
            raise ConfigError(
                f"{path} is too long or nested too deeply for a file of settings (at most "
                f"{LARGEST:,} bytes and {DEEPEST} brackets within each other)"
            )
        content = OmegaConf.to_container(OmegaConf.load(StringIO(text)), resolve=False)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except RecursionError:  # an anchor that holds itself, or brackets by the thousand
        raise ConfigError(f"{path} is nested too deeply for a file of settings") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        why = (
            f"line {mark.line + 1}: {getattr(error, 'problem', '')}"
            if mark
            else str(error).splitlines()[0]
        )
        raise ConfigError(f"{path} is no YAML file of settings: {why}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings; they are written SETTING: VALUE")
    return content


def _nesting(text: str) -> int:
    """How many brackets are open at once at most; those in words count, too."""
    steps = (1 if c in "[{" else -1 for c in text if c in "[]{}")
    return max(accumulate(steps, initial=0))


def _written(value: Any, name: str, path: Path) -> str:
    if isinstance(value, list):
        return f"[{','.join(_written(v, name, path) for v in value)}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if not isinstance(value, str) or "${" in value:
        raise ConfigError(f"{name} in {path} must be a number, text or a list, not {value!r}")
    return QuotedString(value, Quote.single).with_quotes()
