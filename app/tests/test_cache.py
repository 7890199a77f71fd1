"""The cache, with its store in memory and with one that fails on demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allin_backend.cache import make_cache
from allin_backend.cache.facade import FAILURES_ALLOWED, Cache
from allin_backend.cache.memory import MemoryStore
from allin_backend.cache.store import StoreError
from allin_backend.metrics.contract import CACHE_OPERATIONS, CACHE_TYPES
from allin_backend.metrics.work import WorkMetrics
from allin_backend.settings import load
from support import DEADLINE

PAUSE: Final = 0.001


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class FragileStore(MemoryStore):
    """Fails while ``broken``, and holds a set up until ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__(100)
        self.broken = False
        self.calls: list[str] = []
        self.deleted: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def _call(self, operation: str) -> None:
        self.calls.append(operation)
        if self.broken:
            raise StoreError("broken on purpose")

    async def get(self, name: str) -> bytes | None:
        self._call("get")
        return await super().get(name)

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        self._call("set")
        await self.gate.wait()
        await super().set(name, value, ttl_seconds)

    async def delete(self, names: Sequence[str]) -> None:
        self._call("delete")
        self.deleted += names
        await super().delete(names)


class Fixture:
    """A cache with its store and its metrics."""

    def __init__(self) -> None:
        self.metrics = WorkMetrics()
        self.store = FragileStore()
        self.cache = Cache(self.store, self.metrics, first_pause=PAUSE, longest_pause=PAUSE)

    @property
    def look_ups(self) -> tuple[int, int]:
        hits, misses = (
            sum(int(sample.value) for sample in counter.family().samples)
            for counter in (self.metrics.cache_hits, self.metrics.cache_misses)
        )
        return hits, misses

    @property
    def errors(self) -> dict[str, int]:
        samples = self.metrics.cache_errors.family().samples
        return {sample.labels["operation"]: int(sample.value) for sample in samples}

    @property
    def available(self) -> float | None:
        return self.metrics.cache_available.get()


def run(scenario: Callable[[Fixture], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        fixture = Fixture()
        async with asyncio.timeout(DEADLINE):
            await fixture.cache.start()
            await scenario(fixture)
            await fixture.cache.stop()

    asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(PAUSE)


async def nothing() -> bytes | None:
    return None


def test_set_get_delete() -> None:
    async def scenario(fixture: Fixture) -> None:
        cache = fixture.cache
        await cache.set("user", "1", b"a", 60)
        await cache.set("posts", "1", b"b", 60)
        assert (await cache.get("user", "1"), await cache.get("posts", "1")) == (b"a", b"b")
        await cache.delete("user", "1", "2")
        await cache.delete("user")
        assert (await cache.get("user", "1"), await cache.get("posts", "1")) == (None, b"b")
        await cache.set("posts", "1", b"c", 0)
        assert await cache.get("posts", "1") is None
        assert fixture.look_ups == (3, 2)

    run(scenario)


def test_type_outside_the_contract_is_a_mistake() -> None:
    async def scenario(fixture: Fixture) -> None:
        with pytest.raises(KeyError):
            await fixture.cache.get("pets", "1")

    run(scenario)


def test_disabled_cache_answers_nothing_but_keeps_up() -> None:
    async def scenario(fixture: Fixture) -> None:
        cache = fixture.cache
        await cache.set("user", "1", b"a", 60)
        await cache.set("user", "2", b"a", 60)
        cache.disabled = True
        assert await cache.get("user", "1") is None
        assert await cache.get_or_load("user", "1", 60, nothing) is None
        await cache.delete("user", "1")
        cache.disabled = False
        assert (await cache.get("user", "1"), await cache.get("user", "2")) == (None, b"a")
        assert fixture.look_ups == (1, 3)

    run(scenario)


def test_one_load_for_all_who_ask_at_once() -> None:
    async def scenario(fixture: Fixture) -> None:
        begun = 0
        gate = asyncio.Event()

        async def load() -> bytes:
            nonlocal begun
            begun += 1
            await gate.wait()
            return b"a"

        callers = [asyncio.create_task(fixture.cache.get_or_load("user", "1", 60, load)) for _ in range(10)]
        await until(lambda: begun == 1)
        other = asyncio.create_task(fixture.cache.get_or_load("user", "2", 60, load))
        await until(lambda: begun == 2)
        gate.set()
        assert await asyncio.gather(*callers, other) == [b"a"] * 11
        assert await fixture.cache.get_or_load("user", "1", 60, nothing) == b"a"
        assert begun == 2
        assert fixture.look_ups == (1, 11)

    run(scenario)


def test_first_caller_s_cancellation_does_not_touch_the_others() -> None:
    async def scenario(fixture: Fixture) -> None:
        begun, gate = asyncio.Event(), asyncio.Event()

        async def load() -> bytes:
            begun.set()
            await gate.wait()
            return b"a"

        first = asyncio.create_task(fixture.cache.get_or_load("user", "1", 60, load))
        await begun.wait()
        second = asyncio.create_task(fixture.cache.get_or_load("user", "1", 60, nothing))
        await until(lambda: fixture.look_ups == (0, 2))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        assert await second == b"a"
        assert await fixture.cache.get("user", "1") == b"a"

    run(scenario)


def test_failed_load_is_everybody_s_and_is_not_kept() -> None:
    async def scenario(fixture: Fixture) -> None:
        gate = asyncio.Event()

        async def load() -> bytes:
            await gate.wait()
            raise LookupError("the database is gone")

        callers = [asyncio.create_task(fixture.cache.get_or_load("user", "1", 60, load)) for _ in range(3)]
        await until(lambda: fixture.look_ups == (0, 3))
        gate.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(result) for result in results] == [LookupError] * 3

        async def mended() -> bytes:
            return b"a"

        assert await fixture.cache.get_or_load("user", "1", 60, mended) == b"a"

    run(scenario)


def test_nothing_is_not_kept() -> None:
    async def scenario(fixture: Fixture) -> None:
        assert await fixture.cache.get_or_load("user", "1", 60, nothing) is None
        assert len(fixture.store) == 0

    run(scenario)


@pytest.mark.parametrize("while_stored", [False, True])
def test_what_was_deleted_during_its_load_does_not_stay(while_stored: bool) -> None:
    async def scenario(fixture: Fixture) -> None:
        cache, store = fixture.cache, fixture.store
        gate = asyncio.Event()

        async def old() -> bytes:
            await gate.wait()
            return b"old"

        async def new() -> bytes:
            return b"new"

        reader = asyncio.create_task(cache.get_or_load("user", "1", 60, old))
        await until(lambda: fixture.look_ups == (0, 1))
        if while_stored:
            store.gate.clear()
            gate.set()
            await until(lambda: "set" in store.calls)
        await cache.delete("user", "1")
        store.gate.set()
        gate.set()
        assert await reader == b"old"
        assert await cache.get("user", "1") is None
        assert await cache.get_or_load("user", "1", 60, new) == b"new"

    run(scenario)


def test_who_asks_after_a_deletion_does_not_join_an_older_load() -> None:
    async def scenario(fixture: Fixture) -> None:
        gate = asyncio.Event()

        async def old() -> bytes:
            await gate.wait()
            return b"old"

        async def new() -> bytes:
            return b"new"

        reader = asyncio.create_task(fixture.cache.get_or_load("user", "1", 60, old))
        await until(lambda: fixture.look_ups == (0, 1))
        await fixture.cache.delete("user", "1")
        assert await fixture.cache.get_or_load("user", "1", 60, new) == b"new"
        gate.set()
        await reader
        assert await fixture.cache.get("user", "1") == b"new"

    run(scenario)


def test_stop_ends_a_load_that_nobody_waits_for() -> None:
    async def scenario(fixture: Fixture) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def load() -> bytes:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return b""

        caller = asyncio.create_task(fixture.cache.get_or_load("user", "1", 60, load))
        await begun.wait()
        caller.cancel()
        await fixture.cache.stop()
        assert ended.is_set()

    run(scenario)


def test_failing_store_is_left_alone_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(fixture: Fixture) -> None:
        cache, store = fixture.cache, fixture.store
        await cache.set("user", "1", b"a", 60)
        store.broken = True
        for attempt in range(FAILURES_ALLOWED):
            assert fixture.available == 1
            assert await cache.get("user", "1") is None
            assert fixture.errors["get"] == attempt + 1
        assert fixture.available == 0

        tried = store.calls.count("set")
        await cache.set("user", "2", b"a", 60)
        assert store.calls.count("set") == tried
        assert await cache.get("user", "1") is None
        assert fixture.errors == {"get": FAILURES_ALLOWED, "set": 0, "delete": 0}

        store.broken = False
        await until(lambda: fixture.available == 1)
        store.broken = True
        assert await cache.get("user", "1") is None
        assert fixture.available == 1  # it has all its chances again
        store.broken = False
        assert await cache.get("user", "1") == b"a"
        assert fixture.look_ups == (1, FAILURES_ALLOWED + 2)

    with caplog.at_level(logging.INFO):
        run(scenario)
    assert [record.message for record in caplog.records] == [
        "the cache is left alone for now",
        "the cache is used again",
    ]


@pytest.mark.parametrize("success", ["get", "set", "delete"])
def test_failures_between_successes_do_not_end_its_use(success: str) -> None:
    async def scenario(fixture: Fixture) -> None:
        for _ in range(FAILURES_ALLOWED):
            fixture.store.broken = True
            await fixture.cache.set("user", "1", b"a", 60)
            fixture.store.broken = False
            match success:
                case "get":
                    await fixture.cache.get("user", "1")
                case "set":
                    await fixture.cache.set("user", "1", b"a", 60)
                case _:
                    await fixture.cache.delete("user", "1")
        assert fixture.available == 1
        assert fixture.errors["set"] == FAILURES_ALLOWED

    run(scenario)


def test_lost_deletion_is_made_good_before_the_store_is_used_again() -> None:
    async def scenario(fixture: Fixture) -> None:
        cache, store = fixture.cache, fixture.store
        for key in ("1", "2", "3"):
            await cache.set("session", key, b"a", 60)
        store.broken = True
        await cache.delete("session", "1")  # tried, and failed
        assert (fixture.available, fixture.errors["delete"]) == (0, 1)
        await cache.delete("session", "2")  # not even tried
        store.broken = False
        assert await cache.get("session", "1") is None

        await until(lambda: fixture.available == 1)
        assert [await cache.get("session", key) for key in ("1", "2", "3")] == [None, None, b"a"]

    run(scenario)


def test_oldest_lost_deletions_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allin_backend.cache.facade.LOST_DELETIONS_KEPT", 3)
    monkeypatch.setattr("allin_backend.cache.facade.DELETIONS_AT_ONCE", 2)

    async def scenario(fixture: Fixture) -> None:
        fixture.store.broken = True
        await fixture.cache.delete("user", "1", "2", "3", "4")
        await fixture.cache.delete("user", "5")
        fixture.store.broken = False
        await until(lambda: fixture.available == 1)
        assert fixture.store.deleted == ["allin:user:3", "allin:user:4", "allin:user:5"]

    run(scenario)


def test_store_that_cannot_be_used_is_known_from_the_start() -> None:
    async def scenario() -> None:
        fixture = Fixture()
        fixture.store.broken = True
        await fixture.cache.start()
        assert fixture.available == 0
        await fixture.cache.stop()

    asyncio.run(scenario())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["get", "set", "delete", "get_or_load", "break", "mend", "disable", "enable"]),
            st.sampled_from(CACHE_TYPES),
            st.sampled_from(["1", "2"]),
        ),
        max_size=50,
    )
)
def test_every_look_up_is_a_hit_or_a_miss(steps: list[tuple[str, str, str]]) -> None:
    async def load() -> bytes:
        return b"a"

    async def scenario(fixture: Fixture) -> None:
        cache = fixture.cache
        expected = 0
        for step, cache_type, key in steps:
            match step:
                case "get":
                    await cache.get(cache_type, key)
                    expected += 1
                case "get_or_load":
                    assert await cache.get_or_load(cache_type, key, 60, load) == b"a"
                    expected += 1
                case "set":
                    await cache.set(cache_type, key, b"a", 60)
                case "delete":
                    await cache.delete(cache_type, key)
                    assert await cache.get(cache_type, key) is None
                    expected += 1
                case "break" | "mend":
                    fixture.store.broken = step == "break"
                case _:
                    cache.disabled = step == "disable"
        assert sum(fixture.look_ups) == expected
        assert set(fixture.errors) == set(CACHE_OPERATIONS)

    run(scenario)


def test_what_was_used_last_stays() -> None:
    async def scenario() -> None:
        store = MemoryStore(2)
        await store.set("a", b"1", 60)
        await store.set("b", b"2", 60)
        await store.get("a")
        await store.set("c", b"3", 60)
        assert [await store.get(name) for name in "abc"] == [b"1", None, b"3"]
        await store.set("a", b"4", 60)
        await store.set("d", b"5", 60)
        assert [await store.get(name) for name in "acd"] == [b"4", None, b"5"]

    asyncio.run(scenario())


STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(["get", "get", "set", "set", "delete", "wait"]), st.sampled_from("abc"), st.integers(1, 5)
    ),
    min_size=20,
    max_size=100,
)


@given(size=st.integers(1, 3), steps=STEPS)
def test_store_in_memory_is_like_its_model(size: int, steps: list[tuple[str, str, int]]) -> None:
    """The model is a list, the one used last at its end."""

    async def scenario() -> None:
        clock = Clock()
        store = MemoryStore(size, clock)
        model: list[tuple[str, bytes, float]] = []
        for number, (step, key, seconds) in enumerate(steps):
            kept = [entry for entry in model if entry[0] == key]
            others = [entry for entry in model if entry[0] != key]
            if step == "wait":
                clock.now += seconds
            elif step == "set":
                value = str(number).encode()
                await store.set(key, value, seconds)
                model = [*others, (key, value, clock.now + seconds)][-size:]
            elif step == "delete":
                await store.delete([key])
                model = others
            else:
                alive = [entry for entry in kept if entry[2] > clock.now]
                assert await store.get(key) == (alive[0][1] if alive else None)
                model = [*others, *alive]
            assert len(store) == len(model) <= size

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("variables", "coherent"),
    [
        ({}, True),
        ({"ALLIN_METRICS_PORT": "7001"}, False),
        ({"ALLIN_DATABASE_URL": "postgresql+asyncpg://user@host/name"}, False),
        ({"ALLIN_DATABASE_URL": "postgresql+asyncpg://user@host/name", "ALLIN_CACHE_URL": "redis://host"}, True),
    ],
)
def test_entries_live_long_only_where_every_change_reaches_them(variables: dict[str, str], coherent: bool) -> None:
    cache = make_cache(load(variables), WorkMetrics())

    assert cache.coherent is coherent
    assert cache.lifetime(10.0) == (300.0 if coherent else 10.0)
