"""What goes wrong, and how a request that gets no answer ends."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

import httpx2

from allin_simulator.settings import Knobs


class ConnectionDroppedError(httpx2.RemoteProtocolError):
    """The connection ends without an answer.

    The server aborts the connection when the application raises this. A test that has the application in its own
    process gets the exception itself, which is what its client would have made of the aborted connection.
    """

    def __init__(self) -> None:
        super().__init__("Server disconnected without sending a response.")


class NeverAnsweredError(httpx2.ReadTimeout):
    """The time to wait for a client that does not leave is over. The server aborts the connection here too."""

    def __init__(self) -> None:
        super().__init__("The simulator does not answer.")


class Fate(Enum):
    ANSWERED = "answered"
    ERROR = "error"
    TIMEOUT = "timeout"
    ACCEPT_THEN_FAIL = "accept_then_fail"


@dataclass(frozen=True, slots=True)
class Turn:
    """What happens to one request."""

    fate: Fate
    latency: float


class Dice:
    """Draws what happens to each request, in the same order for the same seed.

    Every request takes the same number of draws, whatever the knobs are: turning one knob does not change who suffers
    from another.
    """

    def __init__(self, platform: str, seed: int) -> None:
        self._random = random.Random(f"{platform} {seed}")  # noqa: S311  # nothing secret

    def turn(self, knobs: Knobs) -> Turn:
        latency = knobs.latency_seconds + self._random.random() * knobs.latency_jitter_seconds
        draw = self._random.random()
        for fate, ratio in (
            (Fate.TIMEOUT, knobs.timeout_ratio),
            (Fate.ERROR, knobs.error_ratio),
            (Fate.ACCEPT_THEN_FAIL, knobs.accept_then_fail_ratio),
        ):
            if draw < ratio:
                return Turn(fate, latency)
            draw -= ratio
        return Turn(Fate.ANSWERED, latency)
