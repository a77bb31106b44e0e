"""Numbers as text: three significant digits, SI prefixes and comparisons in words."""

from __future__ import annotations

import math

MISSING = "n/a"
NO_INTERVAL = "(no interval: cannot be told)"


def significant(value: float, digits: int = 3) -> str:
    """Formats with `digits` significant digits and keeps trailing zeros (``0.500``)."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude < 1e-4:
        return f"{value:.{max(digits - 2, 0)}e}"
    if magnitude >= 10**digits - 0.5:
        return f"{value:.0f}"  # '#.3g' would switch to an exponent here
    return f"{value:#.{digits}g}".rstrip(".")


def si(value: float, unit: str = "") -> str:
    """Formats a count with an SI prefix: 312456 becomes ``312 k``."""
    if not math.isfinite(value):
        return MISSING
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:  # 999.6 k is shown as 1.00 M
            return f"{significant(value / scale)} {prefix}{unit}"
    text = f"{value:.0f}" if float(value).is_integer() else significant(value)
    return f"{text} {unit}".rstrip()


def percent_change(new: float, old: float) -> str:
    """Relative change in percent with its sign, e.g. ``+3.1 %``."""
    if not (math.isfinite(new) and math.isfinite(old)) or old == 0:
        return MISSING
    return f"{100 * (new / old - 1):+.1f} %"


def percent_ends(low: float, high: float) -> str:
    """Interval of a relative change such as ``[+0.5, +3.7]``; says so where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NO_INTERVAL
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def lower_or_higher(new: float, old: float) -> str:
    """Says a relative change in words, e.g. ``9.6 % lower than`` or ``equal to``."""
    change = percent_change(new, old)
    if change == MISSING or not change.strip("+-0. %"):
        return "equal to" if change != MISSING else "not comparable with"
    return f"{change[1:]} {'lower' if change[0] == '-' else 'higher'} than"


def factor(value: float) -> str:
    """A factor of at least one: two decimals near one, else two significant digits."""
    if value < 1.095:
        return f"{value:.2f}x"
    return f"{significant(value, 2)}x"


def factor_ends(low: float, high: float) -> str:
    """Interval of a change of time as factors, see :func:`times`, such as ``[2.10, 2.43]``.

    Args:
        low: Lower end of ``new / old - 1``.
        high: Upper end.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return NO_INTERVAL
    ends = (1 + low, 1 + high)
    if low + high < 0:  # mostly faster: how many times less, as the number beside it says
        ends = (1 / ends[1], 1 / ends[0])
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"


def times(new: float, old: float, less: str, more: str) -> str:
    """Says a ratio in words, e.g. ``2.9x fewer`` or ``1.2x slower``.

    Args:
        new: The value to describe, positive.
        old: What it is compared with, positive and in the same unit.
        less: Word for ``new < old``.
        more: Word for ``new > old``.
    """
    if not (math.isfinite(new) and math.isfinite(old)) or new <= 0 or old <= 0:
        return MISSING
    ratio = new / old
    if abs(ratio - 1) < 0.005:
        return "same"
    return f"{factor(1 / ratio)} {less}" if ratio < 1 else f"{factor(ratio)} {more}"


def text_table(header: list[str], body: list[list[str]], left: int = 1) -> str:
    """Lays out a plain text table.

    Args:
        header: Column titles.
        body: Rows with one cell per column.
        left: How many leading columns are aligned to the left; the others to the right.

    Returns:
        Lines joined with newlines, without a trailing newline.
    """
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        parts = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) for row in body)])


def with_error(value: float, error: float) -> str:
    """A number and its standard error, to the error's second significant digit."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return MISSING
    digits = 1 - math.floor(math.log10(error)) if error > 0 else 6
    digits = min(max(digits, 0), 12)
    return f"{value:.{digits}f} ± {error:.{digits}f}"
