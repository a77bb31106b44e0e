"""What the scripts share: Hydra, help, and errors of one sentence."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from textwrap import wrap
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from egnn_prune.configs.settings import described, register
from egnn_prune.errors import InputError, out_of_memory_sentence
from egnn_prune.system.lazy_imports import naming_extras

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

    Exit code 0 when it succeeds, 2 with one sentence on stderr when the input is wrong, 130 when
    it is interrupted. Hydra's own options (``-m`` for sweeps, ``--cfg job``) work as usual.

    Args:
        main: the job.
        schema: dataclass of the settings.
        config_name: YAML file in ``egnn_prune.configs``.
        purpose: one paragraph for ``--help``.
    """
    # torch-geometric uses what torch deprecates: true, but nothing that a user of a script can mend
    # (and lightning likewise)
    for message in (r".torch\.jit\.", r".isinstance\(treespec, LeafSpec\)"):
        warnings.filterwarnings("ignore", message, FutureWarning)
    # threads that spin while they wait make a busy machine a hundred times slower, not faster
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    register()
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        with _refusing():
            print(help_text(schema, purpose, config_name, [a for a in arguments if "=" in a]))
        sys.exit(0)
    overrides, with_options = arguments, any(a.startswith("-") for a in arguments)
    if with_options:  # Hydra's options, and their values, have no "="
        overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    with _refusing():
        many = bool({"-m", "--multirun"} & set(arguments))
        if many and any(a.startswith("out=") for a in overrides):
            fail("the jobs of a sweep cannot share one out; leave out away")
        # beside Hydra's options a value with commas is a sweep, which only Hydra itself can compose
        single = [a for a in overrides if not (with_options and "," in a)]
        config = _composed(config_name, single)
        if with_options:
            _through_hydra(main, config_name, arguments, overrides)
        else:
            main(OmegaConf.to_object(config))
    sys.exit(0)


@contextmanager
def _refusing() -> Iterator[None]:
    """Exit with code 2 and one sentence where the input is wrong, with 130 at an interruption."""
    try:
        with naming_extras():
            yield
    except (HydraException, OmegaConfBaseException) as error:
        GlobalHydra.instance().clear()
        fail(_one_sentence(error))
    except InputError as error:
        fail(str(error))
    except RuntimeError as error:
        sentence = out_of_memory_sentence(error)
        if sentence is None:
            raise
        fail(f"{sentence}; the same command continues from the last finished stage")
    except KeyboardInterrupt:
        print(
            "Interrupted; the same command continues from the last finished stage.", file=sys.stderr
        )
        sys.exit(130)


def fail(message: str) -> None:
    """Print one sentence and exit with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _composed(config_name: str, overrides: list[str]) -> DictConfig:
    with initialize_config_module("egnn_prune.configs", version_base="1.3"):
        return compose(config_name, overrides)


def help_text(schema: type, purpose: str, config_name: str, overrides: Sequence[str] = ()) -> str:
    """Every setting with its value and meaning: the default, or what the overrides make of it.

    Args:
        schema: dataclass of the settings.
        purpose: one paragraph.
        config_name: YAML file in ``egnn_prune.configs``.
        overrides: such as ``data=rmd17``, which brings settings of its own.
    """
    script = os.path.basename(sys.argv[0])
    settings = OmegaConf.to_object(_composed(config_name, [*overrides]))
    usual = {name: _shown(value) for name, value, _ in described(schema())}
    rows = [(name, _shown(value), text) for name, value, text in described(settings)]
    rows = [
        (name, value, text if value == usual[name] else f"{text} (default: {usual[name]})")
        for name, value, text in rows
    ]
    width = max(len(f"{name}={value}") for name, value, _ in rows) + 2
    lines = [f"Usage: python scripts/{script} [SETTING=VALUE ...]", "", purpose, ""]
    for group, names in _choices(config_name).items():
        text = (
            f"Choices: {group}=NAME, one of {', '.join(names)}; each brings settings of its own, "
        )
        lines += [*wrap(f"{text}which --help {group}=NAME shows.", 100), ""]
    lines.append(f"Settings{' with ' + ' '.join(overrides) if overrides else ''}:")
    group = ""
    for name, value, text in rows:
        head = name.rpartition(".")[0]
        if head != group:
            lines.append("")
            group = head
        lines.append(f"  {f'{name}={value}':<{width}}{text}")
    lines += [
        "",
        "Hydra's options work too: -m with comma-separated values for sweeps, --cfg job to see",
        "the composed configuration without running it.",
    ]
    return "\n".join(lines)


def _choices(config_name: str) -> dict[str, list[str]]:
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
    main: Callable[[Any], object], config_name: str, arguments: list[str], overrides: list[str]
) -> None:
    def task(config: DictConfig) -> None:
        try:
            main(OmegaConf.to_object(config))
        except InputError as error:
            fail(str(error))

    flags = [a for a in arguments if a not in overrides]
    sys.argv[1:] = [*flags, *overrides, *QUIET]  # Hydra wants all overrides in one place
    hydra.main(version_base="1.3", config_path="pkg://egnn_prune.configs", config_name=config_name)(
        task
    )()


def _one_sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's messages without their hints on Hydra's syntax."""
    text = str(error.__cause__ or error)
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", text)
    if unknown:
        full = re.search(r"full_key: (\S+)", text)
        name = full.group(1) if full else unknown.group(1)
        return f"there is no setting {name!r}; --help lists all settings"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    options = re.search(r"Available options in '(\w+)':\n((?:\t.+\n?)+)", text)
    if options:
        names = ", ".join(options.group(2).split())
        wrong = re.search(r"'\w+/(.+?)'", lines[0])
        return (
            f"{options.group(1)} must be one of {names}, not {wrong.group(1) if wrong else '?'!r}"
        )
    key = re.search(r"full_key: (\S+)", text)
    return lines[0] + (f" (setting {key.group(1)})" if key else "")
