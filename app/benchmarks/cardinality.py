"""How many series an attacker, or a crawler, can make: requests with paths, methods and hosts that nobody planned."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Final

from starlette.types import ASGIApp, Message, Scope

from allin_backend import paths
from allin_backend.metrics.contract import METHODS
from benchmarks import http, variants
from benchmarks.report import Row, not_measured
from benchmarks.variants import HAND_WRITTEN, INSTRUMENTATOR, OURS, Variant

REQUESTS: Final = 10_000
_SEED: Final = 7
_SUBJECT: Final = f"series from {REQUESTS:,} random requests"


@dataclass(frozen=True, slots=True)
class Growth:
    """Series that one request of each kind added, and those that 10,000 random ones added to them."""

    planned: int
    random: int


def planned_scopes() -> Iterator[Scope]:
    """One request of each kind: every route of the contract and an unknown one, every method and a made-up one."""
    for template, method in product((*paths.MEASURED, "/nowhere"), (*METHODS, "BREW")):
        yield http.scope(variants.filled_in(template, "17"), method)


def random_scopes(number: int, seed: int) -> Iterator[Scope]:
    """Requests of which hardly two are alike: made-up paths, ids of known routes, real and made-up methods, hosts."""
    source = random.Random(seed)  # noqa: S311 - test data

    def word() -> str:
        return "".join(source.choices(string.ascii_letters, k=10))

    for _ in range(number):
        known = variants.filled_in(source.choice(paths.MEASURED), word())
        path = source.choice((f"/{word()}", f"/{word()}/{word()}", known))
        method = source.choice((source.choice(METHODS), word().upper()))
        yield http.scope(path, method, f"{word()}.example.com")


async def send_all(app: ASGIApp, scopes: Iterator[Scope]) -> None:
    """Send the requests one after the other; what becomes of them is of no interest."""

    async def send(_message: Message) -> None:
        return

    for scope in scopes:
        with suppress(Exception):  # an unhandled error is counted as well
            await app(scope, http.receive, send)


def measure(variant: Variant) -> Growth:
    """Send random requests to an application with this variant.

    Raises:
        ValueError: the variant has no series.
    """
    framework = variant.frameworks[0]
    target = variant.build(lambda **options: variants.application(framework, 5, **options))
    if target.series is None:
        raise ValueError(f"{variant.name} has no series")
    at_start = target.series()
    asyncio.run(send_all(target.app, planned_scopes()))
    after_planned = target.series()
    asyncio.run(send_all(target.app, random_scopes(REQUESTS, _SEED)))
    return Growth(after_planned - at_start, target.series() - after_planned)


def rows(*, quick: bool) -> list[Row]:
    """The table's part for cardinality."""
    found = []
    for variant in variants.ALL:
        if variant.name in variants.UNCOUNTED or (quick and variant.name not in (OURS, HAND_WRITTEN, INSTRUMENTATOR)):
            continue
        bar = "0 series" if variant.name == OURS else ""
        try:
            growth = measure(variant)
        except Exception as error:  # a peer's failure, whatever it is, belongs in the table
            found.append(not_measured(_SUBJECT, variant.name, error, bar))
            continue
        measured = f"{growth.random:,} series (one request of each kind before them: {growth.planned:,})"
        values = {"random_series": growth.random, "planned_series": growth.planned}
        found.append(Row(_SUBJECT, f"{variant.name} add", measured, bar, growth.random == 0 if bar else None, values))
    return found
