"""How much is going on at which time of a day."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sin
from typing import Final

Shape = Callable[[float], float]
"""From the part of the day that has passed (0 to 1) to a factor for the rate, above 0 and 1 on average."""


def flat(_part: float) -> float:
    """The same all day."""
    return 1.0


def daily(part: float) -> float:
    """Least at two in the morning, much from nine until eight in the evening.

    Two waves, of a day and of half a day; each is 0 on average, so the rate that was asked for is the day's mean.
    """
    return 1.0 + 0.6 * sin(2 * pi * (part - 8 / 24)) + 0.2 * sin(4 * pi * (part - 17 / 24))


SHAPES: Final[dict[str, Shape]] = {"daily": daily, "flat": flat}
