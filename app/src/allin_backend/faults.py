"""Faults on purpose, for demonstrations and tests: what breaks, and until when, stands in a file.

The file (``ALLIN_FAULTS_FILE``, refused in production) is a JSON object of faults, each with its end in Unix seconds::

    {"slow-db": {"seconds": 0.5, "until": 1793462400}, "errors": {"ratio": 0.3, "until": 1793462400}}

A fault that is not known, or not complete, or that would last longer than an hour is logged and left out; the others
count. Without the setting nothing of this module is used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta
from sqlalchemy.engine import Engine
from sqlalchemy.util import await_only
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from allin_backend.metrics.instruments import Gauge

_log: Final = logging.getLogger(__name__)

_API: Final = "/api/"
_LONGEST_SECONDS: Final = 3600
_LARGEST_FILE_BYTES: Final = 65_536
_LOOK_EVERY_SECONDS: Final = 1.0
_LEAK_EVERY_SECONDS: Final = 0.1
_GIBIBYTE: Final = 1024**3


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all faults have: ``until`` (Unix seconds), when it ends by itself."""

    until: float


class SlowDatabase(Fault, frozen=True, forbid_unknown_fields=True):
    """Every database statement takes ``seconds`` longer."""

    seconds: Annotated[float, Meta(gt=0, le=30)]


class Errors(Fault, frozen=True, forbid_unknown_fields=True):
    """This share of the API's requests ends in an unhandled exception."""

    ratio: Annotated[float, Meta(gt=0, le=1)]


class CacheOff(Fault, frozen=True, forbid_unknown_fields=True):
    """Every look-up in the cache is a miss."""


class Leak(Fault, frozen=True, forbid_unknown_fields=True):
    """Memory is taken and not given back before the end."""

    bytes_per_second: Annotated[float, Meta(ge=1, le=_GIBIBYTE)]
    limit_bytes: Annotated[float, Meta(ge=1, le=8 * _GIBIBYTE)]


class LoopBlock(Fault, frozen=True, forbid_unknown_fields=True):
    """Every ``every_seconds`` the event loop stands still for ``seconds``."""

    seconds: Annotated[float, Meta(gt=0, le=10)]
    every_seconds: Annotated[float, Meta(gt=0, le=600)]

    def __post_init__(self) -> None:
        # Else nothing could end it: not the file, and no signal either.
        if self.every_seconds < self.seconds + 0.01:
            raise ValueError("every_seconds must leave the event loop 0.01 s between two blocks")


KINDS: Final[Mapping[str, type[Fault]]] = {
    "slow-db": SlowDatabase,
    "errors": Errors,
    "cache-off": CacheOff,
    "leak": Leak,
    "loop-block": LoopBlock,
}
_NAMES: Final = {kind: name for name, kind in KINDS.items()}

F = TypeVar("F", bound=Fault)


class InjectedError(Exception):
    """Raised in place of an answer by the fault ``errors``."""


class Switchable(Protocol):
    """What can be switched off: the cache."""

    disabled: bool


def parse(text: bytes, now: float) -> tuple[dict[str, Fault], list[str]]:
    """The faults of a file that have not ended, by name, and a sentence on each that cannot be used.

    ``now`` is in Unix seconds.
    """
    try:
        content = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:  # no JSON, or not UTF-8
        return {}, [f"the file is not valid JSON: {error}"]
    if not isinstance(content, dict):
        return {}, ["the file must hold one JSON object"]
    faults: dict[str, Fault] = {}
    problems: list[str] = []
    for name, value in content.items():
        kind = KINDS.get(name)
        if kind is None:
            problems.append(f"{name}: no such fault; there are {', '.join(KINDS)}")
            continue
        try:
            fault = msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            problems.append(f"{name}: {error}")
            continue
        # Written so that a NaN does not pass.
        if not fault.until <= now + _LONGEST_SECONDS:
            problems.append(f"{name}: until must be within {_LONGEST_SECONDS} seconds from now ({now:.0f})")
        elif fault.until > now:
            faults[name] = fault
    return faults, problems


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


class Faults:
    """Watches the file and keeps the faults going. ``gauge`` shows which are in force.

    The hooks (``slow_down``, ``middleware``) are set once, before ``start``, and do nothing as long as their fault is
    not in force.
    """

    def __init__(
        self,
        path: Path,
        gauge: Gauge,
        cache: Switchable,
        *,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._path = path
        self._gauge = gauge
        self._cache = cache
        self._now = now
        self._chance = chance
        self._faults: dict[str, Fault] = {}
        self._seen: object = ()
        self._watcher: asyncio.Task[None] | None = None
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._leaked: list[bytearray] = []

    def start(self) -> None:
        """Read the file, and go on watching it in the running event loop."""
        _log.warning("faults can be injected", extra={"fields": {"file": str(self._path)}})
        self.look()
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End every fault and the watching."""
        tasks = [*self._workers.values(), *([self._watcher] if self._watcher else [])]
        self._put_in_force({})
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watcher = None

    def active(self, kind: type[F]) -> F | None:
        """The fault of a kind, if it is in force at this moment."""
        fault = self._faults.get(_NAMES[kind])
        return fault if isinstance(fault, kind) and fault.until > self._now() else None

    @property
    def leaked_bytes(self) -> int:
        """How much memory the fault ``leak`` holds."""
        return sum(len(block) for block in self._leaked)

    # --- hooks ---

    def slow_down(self, engine: Engine) -> None:
        """Let the statements of an engine (of an async engine: its ``sync_engine``) wait as ``slow-db`` says.

        Below the events with which statements are measured, so that the metrics show the wait; the event loop runs on.
        """

        def slow(execute: Callable[..., None]) -> Callable[..., None]:
            def run(*arguments: Any) -> None:
                fault = self.active(SlowDatabase)
                if fault is not None:
                    await_only(asyncio.sleep(fault.seconds))
                execute(*arguments)

            return run

        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(engine.dialect, name, slow(getattr(engine.dialect, name)))

    @property
    def middleware(self) -> Middleware:
        """For each route: lets requests to the API fail as ``errors`` says."""
        return Middleware(_ErrorInjection, faults=self)

    def raise_sometimes(self) -> None:
        """Fail for the share of calls that ``errors`` asks for.

        Raises:
            InjectedError: as often as that.
        """
        fault = self.active(Errors)
        if fault is not None and self._chance() < fault.ratio:
            raise InjectedError("a fault was injected: errors")

    # --- the file ---

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            try:
                self.look()
            except Exception:
                _log.exception("the faults end, because their file could not be looked at")
                self._put_in_force({})

    def look(self) -> None:
        """Read the file if it has changed, and end what is over."""
        try:
            status = self._path.stat()
            seen: object = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            seen = None
        faults = self._faults
        if seen != self._seen:
            self._seen = seen
            faults, problems = self._read()
            for problem in problems:
                _log.error("fault left out", extra={"fields": {"file": str(self._path), "reason": problem}})
        now = self._now()
        self._put_in_force({name: fault for name, fault in faults.items() if fault.until > now})

    def _read(self) -> tuple[dict[str, Fault], list[str]]:
        try:
            # Anything else might keep the event loop waiting.
            if self._path.exists() and not self._path.is_file():
                return {}, ["not a plain file"]
            with self._path.open("rb") as file:
                text = file.read(_LARGEST_FILE_BYTES + 1)
        except FileNotFoundError:
            return {}, []
        except OSError as error:
            return {}, [f"the file cannot be read: {error.strerror}"]
        if len(text) > _LARGEST_FILE_BYTES:
            return {}, [f"the file is larger than {_LARGEST_FILE_BYTES} bytes"]
        return parse(text, self._now())

    # --- what is in force ---

    def _put_in_force(self, faults: dict[str, Fault]) -> None:
        before, self._faults = self._faults, faults
        for name in KINDS:
            if before.get(name) != faults.get(name):
                if name in before:
                    self._end(name)
                if name in faults:
                    self._begin(name, faults[name])

    def _begin(self, name: str, fault: Fault) -> None:
        _log.warning("fault begins", extra={"fields": {"fault": name} | msgspec.to_builtins(fault)})
        self._gauge.set(1, name)
        if isinstance(fault, CacheOff):
            self._cache.disabled = True
        elif isinstance(fault, Leak):
            self._workers[name] = asyncio.create_task(self._leak(fault))
        elif isinstance(fault, LoopBlock):
            self._workers[name] = asyncio.create_task(self._block(fault))

    def _end(self, name: str) -> None:
        _log.warning("fault ends", extra={"fields": {"fault": name}})
        self._gauge.set(0, name)
        if name == _NAMES[CacheOff]:
            self._cache.disabled = False
        elif name == _NAMES[Leak]:
            self._leaked.clear()
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.cancel()

    async def _leak(self, fault: Leak) -> None:
        size = max(1, int(fault.bytes_per_second * _LEAK_EVERY_SECONDS))
        left = int(fault.limit_bytes)
        while self.active(Leak) is fault and left > 0:
            size = min(size, left)
            self._leaked.append(bytearray(size))  # writes its zeros: the memory is taken, not only promised
            left -= size
            await asyncio.sleep(_LEAK_EVERY_SECONDS)

    async def _block(self, fault: LoopBlock) -> None:
        while self.active(LoopBlock) is fault:
            time.sleep(fault.seconds)  # blocks the event loop: this is the fault
            await asyncio.sleep(fault.every_seconds - fault.seconds)


class _ErrorInjection:
    """Inside each route, so that a failure takes the way of every unhandled exception and is measured under its route.

    Probes and scrapes go on: they are how the fault is to be seen.
    """

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self.app = app
        self.faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(_API):
            self.faults.raise_sometimes()
        await self.app(scope, receive, send)
