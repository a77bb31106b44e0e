"""What somebody probably meant by a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question in brackets, with a blank before; or nothing."""
    known = list(known)
    near = get_close_matches(name, known, n=1, cutoff=0.7)
    if not near:  # a setting without its section
        near = [k for k in known if k.rpartition(".")[2] == name][:1]
    return f" (did you mean {near[0]}?)" if near else ""


def no_setting(name: str, known: Iterable[str]) -> str:
    """That there is no such setting, and which one was probably meant."""
    return f"there is no setting {name!r}; --help lists all settings{did_you_mean(name, known)}"
