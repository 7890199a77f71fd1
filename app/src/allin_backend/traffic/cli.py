"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx2

from allin_backend.traffic.crowd import DAY, MOST_IN_FLIGHT, Crowd, Pace
from allin_backend.traffic.people import is_loopback
from allin_backend.traffic.shape import SHAPES


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


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


async def _run(url: str, pace: Pace, *, people: int, duration: float | None, seed: int | None) -> None:
    loop = asyncio.get_running_loop()
    main_task = asyncio.current_task()
    assert main_task is not None  # noqa: S101  # a coroutine that runs has a task
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main_task.cancel)
    # No proxy from the environment: loopback is not reached through one.
    limits = httpx2.Limits(max_connections=MOST_IN_FLIGHT)
    async with httpx2.AsyncClient(base_url=url, timeout=15.0, trust_env=False, limits=limits) as client:
        crowd = Crowd(client, pace, size=people, seed=seed)
        report = asyncio.create_task(crowd.report())
        try:
            await crowd.run(duration)
        except asyncio.CancelledError:
            pass  # asked to stop: not an error
        finally:
            report.cancel()
            print(f"allin-traffic: stopped: {crowd.tally.line()}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code: 0 when the time is up or it was told to stop."""
    parser = argparse.ArgumentParser(
        prog="allin-traffic",
        description="Traffic for the AllIN backend as people would cause it: they sign up, connect accounts, write,"
        " schedule and read, more by day than by night. Not for a database that has other users.",
    )
    parser.add_argument("--url", default="http://127.0.0.1:7000", help="the backend (default: %(default)s)")
    parser.add_argument(
        "--rate", type=_number(0.01, 200), default=5.0, help="steps a second, the mean of a day (default: %(default)s)"
    )
    parser.add_argument("--people", type=_whole(1, 5000), default=25, help="how many people (default: %(default)s)")
    parser.add_argument(
        "--shape",
        choices=sorted(SHAPES),
        default="daily",
        help="how the rate changes over a day (default: %(default)s)",
    )
    parser.add_argument(
        "--day",
        type=_number(10, DAY),
        default=DAY,
        metavar="SECONDS",
        help="length of a day; a short one shows its shape sooner (default: %(default)g)",
    )
    parser.add_argument("--duration", type=_number(0.1, 1e9), metavar="SECONDS", help="stop after this time")
    parser.add_argument(
        "--error-share", type=_number(0, 1), default=0.02, help="share of mistakes (default: %(default)s)"
    )
    parser.add_argument("--seed", type=_whole(0, 2**31), help="choose the same steps again")
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
    pace = Pace(options.rate, options.error_share, SHAPES[options.shape], options.day)
    asyncio.run(_run(options.url, pace, people=options.people, duration=options.duration, seed=options.seed))
    return 0
