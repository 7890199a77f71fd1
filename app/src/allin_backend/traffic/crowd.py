"""When somebody does something: pace, bounds, and patience while the backend is down."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Final

import httpx2

from allin_backend.traffic.people import Person
from allin_backend.traffic.shape import Shape, flat

MOST_IN_FLIGHT: Final = 20
REPORT_INTERVAL: Final = 60.0
_LONGEST_PAUSE: Final = 15.0
DAY: Final = 86_400.0
# One of so many people is here at a time, for so many steps on average.
_SHARE_PRESENT: Final = 8
_STEPS_OF_A_VISIT: Final = 12


@dataclass(slots=True)
class Tally:
    """What has happened since the last report."""

    answers: Counter[str] = field(default_factory=Counter)
    """Answers by status class, as in ``2xx``."""
    unanswered: int = 0
    skipped: int = 0
    """Steps that were due but not taken, because too many were still under way."""

    def line(self) -> str:
        """The tally in one line for people."""
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.answers.items())) or "no answers"
        extras = [f"{self.unanswered} without answer"] * bool(self.unanswered)
        extras += [f"{self.skipped} not sent, too many in flight"] * bool(self.skipped)
        return "; ".join([counts, *extras])


@dataclass(frozen=True, slots=True)
class Pace:
    """How often somebody does something.

    ``rate`` steps a second on average over a day of ``day`` seconds (shorter than a real one shows its shape sooner),
    of which ``error_share`` (0 to 1) are mistakes.
    """

    rate: float
    error_share: float = 0.0
    shape: Shape = flat
    day: float = DAY

    def now(self, clock: float) -> float:
        """Steps a second at a point in time, in Unix seconds; days begin at midnight UTC."""
        return self.rate * self.shape(clock % self.day / self.day)


class Crowd:
    """``size`` people on one backend. Counts every answer it gets."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        pace: Pace,
        *,
        size: int,
        seed: int | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self.tally = Tally()
        self.pause = 0.0
        """Seconds to wait between two steps, because the backend does not answer."""
        self._pace = pace
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311  # chooses steps, not secrets
        client.event_hooks = {"response": [self._count]}
        self.people = [Person(client, number, self._random) for number in range(1, size + 1)]
        # Few come often, many seldom: the n-th person comes one n-th as often as the first.
        self._weights = [1 / number for number in range(1, size + 1)]
        self._present: list[Person] = []

    async def run(self, duration: float | None = None) -> None:
        """Take steps for ``duration`` seconds, or until cancelled."""
        end = None if duration is None else monotonic() + duration
        due = monotonic()
        async with asyncio.TaskGroup() as tasks:
            under_way: set[asyncio.Task[None]] = set()
            while end is None or due < end:
                await asyncio.sleep(max(0.0, due - monotonic()))
                if len(under_way) < MOST_IN_FLIGHT:
                    task = tasks.create_task(self.step())
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                else:
                    self.tally.skipped += 1
                # People come independently of each other: exponential gaps. After a stall, no catching up.
                due = max(due, monotonic()) + self._random.expovariate(self._pace.now(self._clock())) + self.pause

    async def report(self) -> None:
        """Print a line a minute until cancelled."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            print(f"allin-traffic: last minute: {self.tally.line()}", flush=True)
            self.tally = Tally()

    async def step(self) -> None:
        """Have somebody who is here and not busy do one thing."""
        person = self._somebody()
        if person is None:
            self.tally.skipped += 1
            return
        mistaken = self._random.random() < self._pace.error_share
        pause = self.pause
        person.busy = True
        try:
            await (person.mistake() if mistaken else person.act())
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            self.tally.unanswered += 1
            if not self.pause:
                print(f"allin-traffic: no answer ({type(error).__name__}); trying again", flush=True)
            # From the pause before this step: those that fail together lengthen it once.
            self.pause = max(self.pause, min(max(1.0, pause * 2), _LONGEST_PAUSE))
            return
        finally:
            person.busy = False
        if self.pause:
            print("allin-traffic: the backend answers again", flush=True)
            self.pause = 0.0

    def _somebody(self) -> Person | None:
        """One of those who are here, now and then somebody else instead; whoever is not busy if all of them are."""
        places = max(1, len(self.people) // _SHARE_PRESENT)
        if len(self._present) >= places and self._random.random() < 1 / _STEPS_OF_A_VISIT:
            self._present.pop(self._random.randrange(len(self._present)))
        while len(self._present) < places:
            self._present.append(self._random.choices(self.people, self._weights)[0])
        idle = [one for one in self._present if not one.busy] or [one for one in self.people if not one.busy]
        return self._random.choice(idle) if idle else None

    async def _count(self, response: httpx2.Response) -> None:
        self.tally.answers[f"{response.status_code // 100}xx"] += 1
