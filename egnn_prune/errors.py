"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""

from __future__ import annotations


class InputError(ValueError):
    """Something that the user handed us cannot be used; the message says what and what to do.

    Scripts print the message alone, without a stack trace, and exit with code 2.
    """


class DataError(InputError):
    """A graph, a data set or a file holds something that cannot be used."""


class ConfigError(InputError):
    """A setting is outside its range, or two settings contradict each other."""


class SuspiciousDataWarning(UserWarning):
    """Legal for the network, but probably not what the user meant."""
