"""Publishing end to end: real database, simulated platforms, several processes, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from allin_backend.database.accounts import Account
from allin_backend.database.posts import PostStore
from allin_backend.database.publications import FAILED, PUBLISHED, SCHEDULED, Publication, PublicationStore
from allin_backend.metrics import contract
from allin_backend.publishing.publisher import Publisher
from platform_support import sample
from world import Process, World, world

POSTS = 8


class Publishers:
    """The publishers of several processes, on the world's clock."""

    def __init__(self, here: World, count: int) -> None:
        self.here = here
        self.processes = [here.first, *(here.process() for _ in range(count - 1))]
        self.publications = PublicationStore(here.database)
        self.posts = PostStore(here.database)
        self.publishers = [self._publisher(process, f"process-{n}") for n, process in enumerate(self.processes)]

    def _publisher(self, process: Process, owner: str) -> Publisher:
        async def changed(_user_id: int) -> None:
            return

        return Publisher(
            self.publications,
            self.here.accounts,
            process.service,
            process.metrics,
            owner=owner,
            deadline=1_000_000,
            budget=20,
            changed=changed,
            now=self.now,
        )

    def now(self) -> datetime:
        return self.here.time.clock.now()

    async def schedule(self, accounts: list[Account], count: int) -> list[int]:
        """Posts for all accounts, due now."""
        ids = []
        for number in range(count):
            post = await self.posts.create(self.here.user, f"post number {number}")
            account_ids = [account.id for account in accounts]
            await self.publications.schedule(post.id, account_ids, self.now(), self.here.user)
            ids.append(post.id)
        return ids

    async def states(self, post_ids: list[int]) -> list[Publication]:
        found = await self.publications.of_posts(post_ids)
        return [publication for of_post in found.values() for publication in of_post]

    async def run_until_done(self, post_ids: list[int]) -> None:
        for _ in range(100):
            self.here.time.advance(301)  # past every pause and every lease
            while await self.publishers[0].run():
                pass
            if not any(publication.state == SCHEDULED for publication in await self.states(post_ids)):
                return
        raise AssertionError(f"still waiting: {await self.states(post_ids)}")

    def counted(self, metric: contract.Metric) -> float:
        return sum(
            sample(process.metrics, metric, platform=platform) or 0.0
            for process in self.processes
            for platform in contract.PLATFORMS
        )


async def die_while_publishing(publisher: Publisher, chance: random.Random) -> None:
    """A run that ends somewhere in the middle, as if the process had been killed there."""
    run = asyncio.create_task(publisher.run())
    for _ in range(chance.randrange(60)):
        await asyncio.sleep(0)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


async def trouble(here: World, chance: random.Random) -> None:
    """Turn every platform's knobs anew."""
    for platform in contract.PLATFORMS:
        kinds: list[dict[str, object]] = [
            {"down": True},
            {"down": False, "accept_then_fail_ratio": 0.6, "error_ratio": 0.2, "timeout_ratio": 0.0},
            {"down": False, "accept_then_fail_ratio": 0.0, "error_ratio": 0.3, "timeout_ratio": 0.5},
            {"down": False, "accept_then_fail_ratio": 0.0, "error_ratio": 0.0, "timeout_ratio": 0.0},
        ]
        await here.knobs(platform, **chance.choice(kinds))


@pytest.mark.parametrize("seed", range(4))
def test_posts_wait_for_their_platform_and_are_published_once(tmp_path: Path, seed: int) -> None:
    """Outages, errors, lost answers, work that was done before the error, and processes that die at any point."""

    async def test() -> None:
        chance = random.Random(seed)  # noqa: S311
        async with world(tmp_path, token_seconds=10_000_000) as here:
            accounts = [await here.connect("twitter"), await here.connect(chance.choice(["linkedin", "tiktok"]))]
            all_of_them = Publishers(here, 3)
            post_ids = await all_of_them.schedule(accounts, POSTS)
            for _ in range(12):
                await trouble(here, chance)
                here.time.advance(chance.uniform(1, 200))
                publishers = chance.sample(all_of_them.publishers, 2)
                await asyncio.gather(
                    die_while_publishing(publishers[0], chance), publishers[1].run(), return_exceptions=True
                )
            for platform in contract.PLATFORMS:
                healthy: dict[str, object] = {
                    "down": False,
                    "accept_then_fail_ratio": 0.0,
                    "error_ratio": 0.0,
                    "timeout_ratio": 0.0,
                }
                await here.knobs(platform, **healthy)
            await all_of_them.run_until_done(post_ids)

            publications = await all_of_them.states(post_ids)
            assert Counter(one.state for one in publications) == {PUBLISHED: 2 * POSTS}
            on_platforms = Counter((post["platform"], post["text"]) for post in await here.posts())
            assert len(on_platforms) == 2 * POSTS
            assert set(on_platforms.values()) == {1}
            assert all_of_them.counted(contract.POSTS_PUBLISHED) == 2 * POSTS

    asyncio.run(test())


def test_what_waited_too_long_is_given_up_and_others_go_out(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, token_seconds=10_000_000) as here:
            account = await here.connect("linkedin")
            one = Publishers(here, 1)
            one.publishers[0]._deadline = timedelta(hours=1)
            old = await one.schedule([account], 1)
            await here.knobs("linkedin", down=True)
            await one.publishers[0].run()
            here.time.advance(3601)
            new = await one.schedule([account], 1)
            await here.knobs("linkedin", down=False)
            await one.run_until_done(old + new)

            (given_up,) = await one.states(old)
            (published,) = await one.states(new)
            assert (given_up.state, given_up.failure_reason) == (FAILED, "too_late")
            assert published.state == PUBLISHED
            assert len(await here.posts()) == 1

    asyncio.run(test())


def test_a_refused_token_costs_the_post_and_marks_the_account(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect("twitter")
            one = Publishers(here, 1)
            post_ids = await one.schedule([account], 1)
            await here.knobs("twitter", deny_tokens=True)
            await one.run_until_done(post_ids)

            (publication,) = await one.states(post_ids)
            assert (publication.state, publication.failure_reason) == (FAILED, "unauthorized")
            assert (await here.secrets(account)).state == "needs_reconnect"
            labels = {"platform": "twitter", "reason": "unauthorized"}
            assert sample(here.first.metrics, contract.POSTS_FAILED, **labels) == 1

    asyncio.run(test())
