"""The folder of a run that was told none."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from glob import escape
from itertools import count
from pathlib import Path

from egnn_prune.errors import InputError
from egnn_prune.runs.folder_lock import refuse_strange
from egnn_prune.system.files import read_json


def default_folder(runs: Path, name: str, config_hash: str) -> Path:
    """The latest unfinished run of these settings, or a new folder named by the time.

    Folders of other runs are looked at, and nothing that is damaged there matters.

    Args:
        runs: the folder of all such runs; one process at a time may look for a folder there.
        name: of the run, which its folder's name ends with.
        config_hash: of the run's settings.

    Raises:
        InputError: a folder cannot be made.
    """
    for record in sorted(runs.glob(f"*-{escape(name)}/stages/run.json"), reverse=True):
        if os.path.exists(record.parent / "report.json"):
            continue
        with suppress(InputError):
            if read_json(record).get("config_hash") == config_hash:
                return record.parents[1]
    date = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        mark = f"_{number}" if number > 1 else ""
        path = runs / f"{date}{mark}-{name}"
        refuse_strange(path)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(
                f"cannot make {path}: {error.strerror}; choose another name or out"
            ) from None
        return path
    raise AssertionError("count never ends")
