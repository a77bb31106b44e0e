"""What the scripts share: Hydra, help, and errors of one sentence."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from textwrap import wrap
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from egnn_prune.cli.config_file import overrides_of, split_config
from egnn_prune.cli.script import fail, one_sentence
from egnn_prune.cli.streams import FLAGS_HELP, streams, verbosity
from egnn_prune.cli.suggest import no_setting
from egnn_prune.configs.settings import described
from egnn_prune.errors import ConfigError, InputError

# Hydra would make folders of its own and write a log; our runs have their own folder
QUIET = [
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.sweep.dir=runs/multirun",
    "hydra.sweep.subdir=.",
]


def command(main: Callable[[Any], object], schema: type, config_name: str, purpose: str) -> None:
    """Run ``main(settings)`` with settings from the command line; never returns.

    Exit codes are those of :func:`run_script`. Hydra's own options (``-m`` for sweeps,
    ``--cfg job``) work as usual; ``--config FILE`` reads settings, which the others override.

    Args:
        main: the job.
        schema: dataclass of the settings.
        config_name: YAML file in ``egnn_prune.configs``.
        purpose: one paragraph for ``--help``.
    """
    level, arguments = verbosity(sys.argv[1:])
    ConfigStore.instance().store(name=f"base_{config_name}", node=schema)
    with one_sentence(level, resumable=True):
        file, given = split_config(arguments)
        # Hydra's options, and their values, have no "="
        options = [a for a in given if a.startswith("-") or "=" not in a]
        if not any(a.startswith("-") for a in options):
            options = []
        stated = [a for a in given if a not in options]
        _refuse_what_is_no_setting(stated)
        with _refusing(schema, stated):
            read = overrides_of(file, schema, choices(config_name), stated) if file else []
            overrides = [*read, *stated]
            if {"-h", "--help"} & set(options):
                said = [*([f"--config {file}"] if file else []), *stated]
                print(help_text(schema, purpose, config_name, overrides, " ".join(said)))
                sys.exit(0)
            many = bool({"-m", "--multirun"} & set(options))
            if many and any(a.startswith("out=") for a in overrides):
                raise ConfigError("the jobs of a sweep cannot share one out; leave out away")
            # beside options a value with commas may be a sweep, which only Hydra can compose
            single = [a for a in overrides if not (options and "," in a)]
            config = _composed(config_name, single)
            with streams(level):
                if options:
                    _through_hydra(main, config_name, options, overrides)
                else:
                    main(OmegaConf.to_object(config))
    sys.exit(0)


def check(schema: type, config_name: str, arguments: Sequence[str]) -> None:
    """Compose the settings without running anything; every value must have its setting's type.

    Raises:
        ConfigError: says what is wrong.
    """
    ConfigStore.instance().store(name=f"base_{config_name}", node=schema)
    _, given = split_config(arguments)
    stated = [a for a in given if not a.startswith("-")]
    _refuse_what_is_no_setting([a for a in stated if "=" in a])
    with _refusing(schema, stated):
        OmegaConf.to_object(_composed(config_name, stated))


def _refuse_what_is_no_setting(stated: Sequence[str]) -> None:
    for argument in stated:
        name, sign, _ = argument.partition("=")
        if not sign or not name:
            raise ConfigError(f"{argument!r} sets nothing; settings are written NAME=VALUE")
        if name[0] in "+~":
            raise ConfigError(f"settings cannot be added or deleted, as by {argument!r}")


@contextmanager
def _refusing(schema: type, given: Sequence[str]) -> Iterator[None]:
    """Hydra's and OmegaConf's refusals, as one sentence of ours."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        GlobalHydra.instance().clear()
        raise ConfigError(_one_sentence(error, schema, given)) from error


def _composed(config_name: str, overrides: list[str]) -> DictConfig:
    groups = choices(config_name)
    for name, _, value in (override.partition("=") for override in overrides):
        # Hydra would look for a file of any name, and break off at numbers and lists
        if name in groups and value.strip("'\"") not in (*groups[name], "null"):
            shown = value if len(value) <= 40 else f"{value[:40]}..."
            raise ConfigError(f"{name} must be one of {', '.join(groups[name])}, not {shown!r}")
    with initialize_config_module("egnn_prune.configs", version_base="1.3"):
        return compose(config_name, overrides)


def help_text(
    schema: type, purpose: str, config_name: str, overrides: Sequence[str] = (), said: str = ""
) -> str:
    """Every setting with its value and meaning: the default, or what the overrides make of it.

    Args:
        schema: dataclass of the settings.
        purpose: one paragraph.
        config_name: YAML file in ``egnn_prune.configs``.
        overrides: such as ``data=rmd17``, which brings settings of its own.
        said: how they were given.
    """
    name = os.path.basename(sys.argv[0])
    called = f"python scripts/{name}" if name.endswith(".py") else name
    settings = OmegaConf.to_object(_composed(config_name, [*overrides]))
    usual = {name: _shown(value) for name, value, _ in described(schema())}
    rows = [(name, _shown(value), text) for name, value, text in described(settings)]
    rows = [
        (name, value, text if value == usual[name] else f"{text} (default: {usual[name]})")
        for name, value, text in rows
    ]
    width = max(len(f"{name}={value}") for name, value, _ in rows) + 2
    lines = [f"Usage: {called} [--config FILE] [SETTING=VALUE ...]", "", purpose, ""]
    for group, names in choices(config_name).items():
        text = (
            f"Choices: {group}=NAME, one of {', '.join(names)}; each brings settings of its own, "
        )
        lines += [*wrap(f"{text}which --help {group}=NAME shows.", 100), ""]
    lines.append(f"Settings{f' with {said}' if said else ''}:")
    group = ""
    for name, value, text in rows:
        head = name.rpartition(".")[0]
        if head != group:
            lines.append("")
            group = head
        lines.append(f"  {f'{name}={value}':<{width}}{text}")
    lines += [
        "",
        "--config FILE reads settings from a YAML file, such as the config.yaml of a finished run;",
        "settings on the command line come before those of the file.",
        FLAGS_HELP,
        "Hydra's options work too: -m with comma-separated values for sweeps, --cfg job to see",
        "the composed configuration without running it.",
    ]
    return "\n".join(lines)


def choices(config_name: str) -> dict[str, list[str]]:
    """Groups of settings that a script chooses from, and the names in each."""
    folder = resources.files("egnn_prune.configs")
    content: Any = OmegaConf.create(folder.joinpath(f"{config_name}.yaml").read_text())
    entries = [entry for entry in content.defaults if isinstance(entry, DictConfig)]
    groups = [str(group) for entry in entries for group in entry]
    return {
        group: sorted(
            file.name.removesuffix(".yaml")
            for file in folder.joinpath(group).iterdir()
            if file.name.endswith(".yaml")
        )
        for group in groups
    }


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(str(v) for v in value) + "]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _through_hydra(
    main: Callable[[Any], object], config_name: str, options: list[str], overrides: list[str]
) -> None:
    def task(config: DictConfig) -> None:
        try:
            main(OmegaConf.to_object(config))
        except InputError as error:
            fail(str(error))

    sys.argv[1:] = [*options, *overrides, *QUIET]  # Hydra wants all overrides in one place
    hydra.main(version_base="1.3", config_path="pkg://egnn_prune.configs", config_name=config_name)(
        task
    )()


KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
"""What OmegaConf's names of types mean."""


def _one_sentence(error: Exception, schema: type, stated: Sequence[str]) -> str:
    """Hydra's and OmegaConf's messages without their hints on Hydra's syntax."""
    text = str(error.__cause__ or error)
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", text)
    if unknown:
        full = re.search(r"full_key: (\S+)", text)
        name = full.group(1) if full else unknown.group(1)
        given = (a.partition("=")[0] for a in stated)  # Hydra knows only where it went wrong
        name = next((n for n in given if n.startswith(f"{name}.")), name)
        return no_setting(name, [n for n, _, _ in described(schema())])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    options = re.search(r"Available options in '(\w+)':\n((?:\t.+\n?)+)", text)
    if options:
        names = ", ".join(options.group(2).split())
        wrong = re.search(r"'\w+/(.+?)'", lines[0])
        return (
            f"{options.group(1)} must be one of {names}, not {wrong.group(1) if wrong else '?'!r}"
        )
    key = re.search(r"full_key: (\S+)", text)
    wrong = re.match(r"Value '(.*)' (?:of type .* converted to|is not a valid) (\w+)", lines[0])
    if key and wrong and wrong.group(2) in KINDS:
        return f"{key.group(1)} must be {KINDS[wrong.group(2)]}, not {wrong.group(1)!r}"
    return lines[0] + (f" (setting {key.group(1)})" if key else "")
