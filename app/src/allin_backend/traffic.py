"""The ``allin-traffic`` command: light traffic as people would cause it, so that graphs have something to show.

Bounded in every direction: requests in flight, records kept in the database, and attempts while the backend is down.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import random
import signal
import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from secrets import token_urlsafe
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2

from allin_backend import paths

_MOST_IN_FLIGHT: Final = 20
_MOST_RECORDS: Final = 50
_REPORT_INTERVAL: Final = 60.0
_LONGEST_PAUSE: Final = 15.0


@dataclass(slots=True)
class Tally:
    """What has happened since the last report."""

    answers: Counter[str] = field(default_factory=Counter)
    """Answers by status class, as in ``2xx``."""
    unanswered: int = 0
    skipped: int = 0
    """Requests that were due but not sent, because too many were still in flight."""

    def line(self) -> str:
        """The tally in one line for people."""
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.answers.items())) or "no answers"
        extras = [f"{self.unanswered} without answer"] * bool(self.unanswered)
        extras += [f"{self.skipped} not sent, too many in flight"] * bool(self.skipped)
        return "; ".join([counts, *extras])


@dataclass(frozen=True, slots=True)
class _User:
    """Somebody who is signed in."""

    email: str
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class _Post:
    number: int
    user: _User


class Traffic:
    """Sends ``rate`` requests a second to one backend, of which ``error_share`` (0 to 1) are meant to be refused."""

    def __init__(self, client: httpx2.AsyncClient, *, rate: float, error_share: float, seed: int | None = None) -> None:
        self.tally = Tally()
        self._client = client
        self._rate = rate
        self._error_share = error_share
        self._random = random.Random(seed)  # noqa: S311  # chooses requests, not secrets
        self._users: deque[_User] = deque()
        self._posts: deque[_Post] = deque()
        self._first_user = asyncio.Lock()
        self._down_for = 0.0
        self._actions: list[tuple[int, Callable[[], Awaitable[httpx2.Response]]]] = [
            (35, self._list_posts),
            (25, self._read_post),
            (12, self._read_user),
            (12, self._create_post),
            (3, self._create_user),
            (3, self._index),
            (10, self._health),
        ]

    async def run(self, duration: float | None = None) -> None:
        """Send requests for ``duration`` seconds, or until cancelled."""
        end = None if duration is None else monotonic() + duration
        due = monotonic()
        async with asyncio.TaskGroup() as tasks:
            in_flight: set[asyncio.Task[None]] = set()
            while end is None or due < end:
                await asyncio.sleep(max(0.0, due - monotonic()))
                if len(in_flight) < _MOST_IN_FLIGHT:
                    task = tasks.create_task(self._send())
                    in_flight.add(task)
                    task.add_done_callback(in_flight.discard)
                else:
                    self.tally.skipped += 1
                # People arrive independently of each other: exponential gaps. After a stall, no catching up.
                due = max(due, monotonic()) + self._random.expovariate(self._rate)
                if self._down_for:
                    due += self._down_for

    async def report(self) -> None:
        """Print a line a minute until cancelled."""
        while True:
            await asyncio.sleep(_REPORT_INTERVAL)
            print(f"allin-traffic: last minute: {self.tally.line()}", flush=True)
            self.tally = Tally()

    async def _send(self) -> None:
        if self._random.random() < self._error_share:
            action: Callable[[], Awaitable[httpx2.Response]] = self._mistake
        else:
            weights = [weight for weight, _ in self._actions]
            action = self._random.choices([action for _, action in self._actions], weights)[0]
        pause = self._down_for
        try:
            response = await action()
            self.tally.answers[f"{response.status_code // 100}xx"] += 1
            await self._tidy()
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            self.tally.unanswered += 1
            if not self._down_for:
                print(f"allin-traffic: no answer ({type(error).__name__}); trying again", flush=True)
            # From the pause before this request: those that fail together lengthen it once.
            self._down_for = max(self._down_for, min(max(1.0, pause * 2), _LONGEST_PAUSE))
            return
        if self._down_for:
            print("allin-traffic: the backend answers again", flush=True)
            self._down_for = 0.0

    async def _tidy(self) -> None:
        """Delete the oldest of our own records, so that a long run does not fill the disk."""
        if len(self._posts) > _MOST_RECORDS:
            post = self._posts.popleft()
            await self._client.delete(paths.POST.format(post_id=post.number), headers=post.user.headers)
        if len(self._users) > _MOST_RECORDS:
            user = self._users.popleft()
            self._forget(user)
            await self._client.delete(paths.ME, headers=user.headers)

    async def _index(self) -> httpx2.Response:
        return await self._client.get(paths.INDEX)

    async def _health(self) -> httpx2.Response:
        return await self._client.get(paths.HEALTH)

    async def _list_posts(self) -> httpx2.Response:
        user = await self._somebody()
        if isinstance(user, httpx2.Response):
            return user
        response = await self._as_user(user, "GET", paths.POSTS, params={"limit": "20"})
        if response.status_code == HTTPStatus.OK and self._random.random() < 0.3:
            cursor = response.json()["next_cursor"]
            if cursor:
                response = await self._as_user(user, "GET", paths.POSTS, params={"limit": "20", "cursor": cursor})
        return response

    async def _read_post(self) -> httpx2.Response:
        if not self._posts:
            return await self._create_post()
        post = self._random.choice(self._posts)
        response = await self._as_user(post.user, "GET", paths.POST.format(post_id=post.number))
        if response.status_code == HTTPStatus.NOT_FOUND and post in self._posts:
            self._posts.remove(post)
        return response

    async def _read_user(self) -> httpx2.Response:
        user = await self._somebody()
        if isinstance(user, httpx2.Response):
            return user
        return await self._as_user(user, "GET", paths.ME)

    async def _create_post(self) -> httpx2.Response:
        user = await self._somebody()
        if isinstance(user, httpx2.Response):
            return user
        text = " ".join(self._random.choices(("a", "post", "about", "nothing", "much"), k=self._random.randint(3, 40)))
        response = await self._as_user(user, "POST", paths.POSTS, json={"text": text})
        if response.status_code == HTTPStatus.CREATED:
            self._posts.append(_Post(response.json()["id"], user))
        return response

    async def _create_user(self) -> httpx2.Response:
        """Sign up and sign in. Returns the last answer."""
        name = f"visitor-{uuid4().hex[:12]}"
        email, password = f"{name}@traffic.example.com", token_urlsafe()
        body = {"email": email, "name": name, "password": password}
        response = await self._client.post(paths.USERS, json=body)
        if response.status_code == HTTPStatus.CREATED:
            response = await self._client.post(paths.SESSIONS, json={"email": email, "password": password})
        if response.status_code == HTTPStatus.CREATED:
            self._users.append(_User(email, response.json()["token"]))
        return response

    async def _somebody(self) -> _User | httpx2.Response:
        """A user; where there is none, the answer to the attempt to become one."""
        async with self._first_user:  # those that wait need not sign up as well
            if not self._users:
                response = await self._create_user()
                if not self._users:
                    return response
        return self._random.choice(self._users)

    async def _as_user(self, user: _User, method: str, path: str, **arguments: Any) -> httpx2.Response:
        response = await self._client.request(method, path, headers=user.headers, **arguments)
        # As after the database was made anew.
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            self._forget(user)
        return response

    def _forget(self, user: _User) -> None:
        if user in self._users:
            self._users.remove(user)
        self._posts = deque(post for post in self._posts if post.user != user)

    async def _mistake(self) -> httpx2.Response:
        kind = self._random.randrange(3)
        if kind == 0:
            return await self._client.get(f"/no-such-page/{uuid4().hex[:8]}")
        if kind == 1:
            return await self._client.get(paths.ME, headers={"Authorization": "Bearer not-a-token"})
        return await self._client.post(paths.USERS, json={"email": "not-an-address", "name": "x"})


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return number

    return read


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _run(url: str, rate: float, duration: float | None, error_share: float) -> None:
    loop = asyncio.get_running_loop()
    main_task = asyncio.current_task()
    assert main_task is not None  # noqa: S101  # a coroutine that runs has a task
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main_task.cancel)
    # No proxy from the environment: loopback is not reached through one.
    limits = httpx2.Limits(max_connections=_MOST_IN_FLIGHT)
    async with httpx2.AsyncClient(base_url=url, timeout=10.0, trust_env=False, limits=limits) as client:
        traffic = Traffic(client, rate=rate, error_share=error_share)
        report = asyncio.create_task(traffic.report())
        try:
            await traffic.run(duration)
        except asyncio.CancelledError:
            pass  # asked to stop: not an error
        finally:
            report.cancel()
            print(f"allin-traffic: stopped: {traffic.tally.line()}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code: 0 when the time is up or it was told to stop."""
    parser = argparse.ArgumentParser(prog="allin-traffic", description="Light traffic for the AllIN backend.")
    parser.add_argument("--url", default="http://127.0.0.1:7000", help="the backend (default: %(default)s)")
    parser.add_argument("--rate", type=_number(0.01, 200), default=5.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--duration", type=_number(0.1, 1e9), metavar="SECONDS", help="stop after this time")
    parser.add_argument(
        "--error-share", type=_number(0, 1), default=0.01, help="share of wrong requests (default: %(default)s)"
    )
    parser.add_argument("--allow-remote", action="store_true", help="allow a URL that is not on this machine")
    options = parser.parse_args(arguments)
    try:
        address = urlsplit(options.url)
        host = address.hostname or ""
        usable = address.scheme in ("http", "https") and host and (address.port or True)
    except ValueError:
        usable = False
    if not usable:
        parser.error(f"--url {options.url!r} is not a web address; write for example http://127.0.0.1:7000")
    if not options.allow_remote and not is_loopback(host):
        parser.error(f"{host} is not this machine; add --allow-remote if the traffic is meant to go there")
    asyncio.run(_run(options.url, options.rate, options.duration, options.error_share))
    return 0


if __name__ == "__main__":
    sys.exit(main())
