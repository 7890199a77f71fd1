"""The records, on SQLite and on PostgreSQL: both must do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.engine import URL

from allin_backend.database.accounts import Account, AccountStore
from allin_backend.database.engine import Database
from allin_backend.database.oauth_states import OAuthState, OAuthStateStore
from allin_backend.database.posts import Post, PostStore
from allin_backend.database.publications import (
    Claim,
    Publication,
    PublicationStore,
    UnknownAccountError,
    UnknownPostError,
)
from allin_backend.database.sessions import Session, SessionStore
from allin_backend.database.survey import WINDOWS, Survey, survey
from allin_backend.database.tables import metadata
from allin_backend.database.users import Credentials, EmailTakenError, UnknownUserError, UserStore
from allin_backend.metrics import contract
from support import with_database

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
LEASE = 30.0
LARGEST_ID = 2**63 - 1


class Stores:
    """All stores of one database, and short ways to fill them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.users = UserStore(database)
        self.sessions = SessionStore(database)
        self.states = OAuthStateStore(database)
        self.accounts = AccountStore(database)
        self.posts = PostStore(database)
        self.publications = PublicationStore(database)

    async def user(self, name: str = "ann") -> int:
        return (await self.users.create(f"{name}@example.com", name)).id

    async def account(
        self, user_id: int, platform: str = "twitter", who: str = "1", expires: datetime | None = None, **tokens: str
    ) -> Account:
        return await self.accounts.connect(
            user_id,
            platform,
            who,
            handle=tokens.get("handle", "@ann"),
            scopes="read write",
            access_token=tokens.get("access", "access"),
            refresh_token=tokens.get("refresh"),
            token_expires_at=expires,
        )

    async def scheduled(self, due_at: datetime, *platforms: str) -> list[Publication]:
        """A post of a user of its own that is due on these platforms, twitter if none is named."""
        user_id = await self.user(f"user{await self.count('users')}")
        accounts = [(await self.account(user_id, platform)).id for platform in platforms or ("twitter",)]
        post = await self.posts.create(user_id, "hello")
        return await self.publications.schedule(post.id, accounts, due_at, user_id)

    async def claim(self, now: datetime = NOW, owner: str = "me") -> list[Claim]:
        return await self.publications.claim(owner, now, LEASE, 100)

    async def one(self, publication: Publication) -> Publication:
        """The publication as it is now."""
        found = (await self.publications.of_posts([publication.post_id]))[publication.post_id]
        return next(one for one in found if one.id == publication.id)

    async def count(self, table: str) -> int:
        async with self.database.read() as connection:
            return int(
                (await connection.execute(select(func.count()).select_from(metadata.tables[table]))).scalar_one()
            )


def run(url: URL, scenario: Callable[[Stores], Awaitable[None]]) -> None:
    with_database(url, lambda database: scenario(Stores(database)))


def test_user(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        user = await stores.users.create("ann@example.com", "Ann ü 👋", "hash")
        assert (user.email, user.name) == ("ann@example.com", "Ann ü 👋")
        assert abs(datetime.now(UTC) - user.created_at) < HOUR
        assert await stores.users.get(user.id) == user
        assert await stores.users.by_email("ann@example.com") == Credentials(user.id, "hash")
        assert await stores.users.by_email("bob@example.com") is None
        with pytest.raises(EmailTakenError):
            await stores.users.create("ann@example.com", "Other")
        assert (await stores.users.create("bob@example.com", "Bob")).id > user.id
        assert (await stores.users.by_email("bob@example.com")).password_hash is None  # type: ignore[union-attr]

    run(url, scenario)


def test_user_goes_with_everything(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        publication, *_ = await stores.scheduled(NOW)
        user_id = (await stores.posts.get(publication.post_id)).user_id  # type: ignore[union-attr]
        await stores.sessions.create("t", user_id, NOW)
        await stores.states.create("s", user_id, "twitter", "verifier", NOW)
        tables = ("users", "sessions", "oauth_states", "accounts", "posts", "publications")
        assert [await stores.count(table) for table in tables] == [1] * 6

        assert await stores.users.delete(user_id)
        assert [await stores.count(table) for table in tables] == [0] * 6
        assert not await stores.users.delete(user_id)
        assert await stores.users.get(user_id) is None
        assert await stores.user("ann") > user_id  # an id is not used again

    run(url, scenario)


def test_any_id_that_the_api_accepts_can_be_looked_up(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        assert await stores.users.get(LARGEST_ID) is None
        assert await stores.posts.get(LARGEST_ID, LARGEST_ID) is None
        assert await stores.posts.newest(LARGEST_ID, 5, LARGEST_ID) == []
        assert await stores.accounts.get(LARGEST_ID, LARGEST_ID) is None
        assert await stores.publications.of_posts([LARGEST_ID]) == {}
        with pytest.raises(UnknownUserError):
            await stores.posts.create(LARGEST_ID, "x")

    run(url, scenario)


def test_session(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        user_id = await stores.user()
        await stores.sessions.create("a", user_id, NOW + SECOND)
        await stores.sessions.create("b", user_id, NOW + HOUR)
        assert await stores.sessions.get("a", NOW) == Session(user_id, NOW + SECOND)
        assert await stores.sessions.get("a", NOW + SECOND) is None
        assert await stores.sessions.get("c", NOW) is None
        assert await stores.sessions.delete_expired(NOW + SECOND) == 1
        assert await stores.sessions.get("a", NOW) is None
        assert await stores.sessions.delete("b")
        assert not await stores.sessions.delete("b")
        with pytest.raises(UnknownUserError):
            await stores.sessions.create("d", user_id + 1, NOW)

    run(url, scenario)


def test_oauth_state_is_used_once(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        ann, bob = await stores.user("ann"), await stores.user("bob")
        for name in ("a", "b", "c"):
            await stores.states.create(name, ann, "twitter", "verifier", NOW + SECOND)
        assert await stores.states.take("a", bob, NOW) is None  # and it is still there for its owner
        taken = await asyncio.gather(*(stores.states.take("a", ann, NOW) for _ in range(3)))
        found = [state for state in taken if state is not None]
        assert [(state.platform, state.code_verifier) for state in found] == [("twitter", "verifier")]
        assert isinstance(found[0], OAuthState)
        assert await stores.states.take("b", ann, NOW + SECOND) is None
        assert await stores.states.delete_expired(NOW) == 0
        assert await stores.states.delete_expired(NOW + SECOND) == 1
        with pytest.raises(UnknownUserError):
            await stores.states.create("d", bob + 1, "twitter", "verifier", NOW)

    run(url, scenario)


def test_account_is_connected_once(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        ann, bob = await stores.user("ann"), await stores.user("bob")
        first = await stores.account(ann, access="1", refresh="1", handle="@old")
        await stores.accounts.mark_needs_reconnect(first.id)
        again = await stores.account(ann, access="2", handle="@new", expires=NOW)
        assert (again.id, again.handle, again.state, again.created_at) == (first.id, "@new", "active", first.created_at)
        secrets = await stores.accounts.secrets(first.id)
        assert secrets is not None
        assert (secrets.access_token, secrets.refresh_token, secrets.token_expires_at) == ("2", None, NOW)
        other = await stores.account(ann, who="2")
        theirs = await stores.account(bob)
        assert len({first.id, other.id, theirs.id}) == 3
        assert [account.id for account in await stores.accounts.list(ann)] == [first.id, other.id]
        assert await stores.accounts.get(first.id, ann) == again
        assert await stores.accounts.get(first.id, bob) is None
        assert not await stores.accounts.delete(first.id, bob)
        assert await stores.accounts.delete(first.id, ann)
        assert await stores.accounts.secrets(first.id) is None
        with pytest.raises(UnknownUserError):
            await stores.account(bob + 1)

    run(url, scenario)


def test_new_tokens(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        account = await stores.account(await stores.user(), access="1", refresh="r1")

        async def state() -> tuple[str, str | None, str]:
            secrets = await stores.accounts.secrets(account.id)
            assert secrets is not None
            return secrets.access_token, secrets.refresh_token, secrets.state

        update = stores.accounts.update_tokens
        assert await update(account.id, access_token="2", refresh_token=None, token_expires_at=NOW)
        assert await state() == ("2", "r1", "active")
        assert await update(account.id, access_token="3", refresh_token="r3", token_expires_at=NOW, replaces="2")
        # Two processes refreshed at once: the later one is refused, and its failure says nothing about the new token.
        assert not await update(account.id, access_token="4", refresh_token="r4", token_expires_at=NOW, replaces="2")
        assert not await stores.accounts.mark_needs_reconnect(account.id, access_token="2")
        assert await state() == ("3", "r3", "active")
        assert await stores.accounts.mark_needs_reconnect(account.id, access_token="3")
        assert await state() == ("3", "r3", "needs_reconnect")
        assert await update(account.id, access_token="5", refresh_token=None, token_expires_at=None)
        assert await state() == ("5", "r3", "active")

    run(url, scenario)


def test_tokens_that_end_soon(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        user_id = await stores.user()

        async def connect(who: str, expires: datetime | None, **tokens: str) -> int:
            return (await stores.account(user_id, who=who, expires=expires, **tokens)).id

        later = await connect("later", NOW + 2 * SECOND, refresh="r")
        soon = await connect("soon", NOW + SECOND, refresh="r")
        await connect("in time", NOW + HOUR, refresh="r")
        await connect("never", None, refresh="r")
        await connect("cannot be refreshed", NOW)
        await stores.accounts.mark_needs_reconnect(await connect("refused", NOW, refresh="r"))

        found = await stores.accounts.expiring(NOW + HOUR, 10)
        assert [secrets.account_id for secrets in found] == [soon, later]
        assert [secrets.account_id for secrets in await stores.accounts.expiring(NOW + HOUR, 1)] == [soon]

    run(url, scenario)


def test_posts_belong_to_their_user(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        ann, bob = await stores.user("ann"), await stores.user("bob")
        posts = [await stores.posts.create(user_id, "grüße 👋") for user_id in (ann, bob, ann, ann)]
        assert isinstance(posts[0], Post)
        assert await stores.posts.get(posts[0].id, ann) == posts[0]
        assert await stores.posts.get(posts[0].id, bob) is None
        assert await stores.posts.newest(ann, 2) == [posts[3], posts[2]]
        assert await stores.posts.newest(ann, 2, posts[2].id) == [posts[0]]
        assert not await stores.posts.delete(posts[0].id, bob)
        assert await stores.posts.delete(posts[0].id, ann)
        assert not await stores.posts.delete(posts[0].id, ann)

    run(url, scenario)


def test_schedule(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        user_id = await stores.user()
        twitter, facebook = await stores.account(user_id), await stores.account(user_id, "facebook")
        post = await stores.posts.create(user_id, "hello")
        both = [twitter.id, facebook.id]

        first, second = await stores.publications.schedule(post.id, both, NOW, user_id)
        assert (first.platform, first.state, first.due_at, first.attempts) == ("twitter", "scheduled", NOW, 0)
        assert (second.platform, second.account_id) == ("facebook", facebook.id)
        (moved,) = await stores.publications.schedule(post.id, [twitter.id], NOW + HOUR, user_id)
        assert (moved.id, moved.due_at) == (first.id, NOW + HOUR)
        assert await stores.claim() == []
        assert await stores.publications.schedule(post.id, [], NOW, user_id) == []

        for unknown in (facebook.id + 1, (await stores.account(await stores.user("bob"))).id):
            with pytest.raises(UnknownAccountError):
                await stores.publications.schedule(post.id, [twitter.id, unknown], NOW, user_id)
        assert await stores.publications.of_posts([post.id]) == {}
        for stranger, post_id in ((user_id + 1, post.id), (user_id, post.id + 1)):
            with pytest.raises(UnknownPostError):
                await stores.publications.schedule(post_id, [twitter.id], NOW, stranger)

    run(url, scenario)


def test_schedule_anew_leaves_what_has_been_published_or_is_under_way(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        future = datetime.now(UTC) + HOUR  # so that the leases hold just now
        one, two, three = await stores.scheduled(NOW, "twitter", "facebook", "linkedin")
        user_id = (await stores.posts.get(one.post_id)).user_id  # type: ignore[union-attr]
        claims = await stores.claim(future)
        assert await stores.publications.published(claims[0], "p1", None, NOW)
        assert await stores.publications.failed(claims[1], "rejected", "too long")

        everywhere = [publication.account_id for publication in (one, two, three)]
        anew = await stores.publications.schedule(one.post_id, everywhere, future, user_id)
        assert [(found.state, found.due_at) for found in anew] == [
            ("published", NOW),
            ("scheduled", future),
            ("scheduled", NOW),
        ]
        assert (anew[1].failure_reason, anew[1].last_error, anew[1].attempts) == (None, None, 0)
        # The platform may have taken the post although the attempt failed, so the key stays.
        assert {claim.idempotency_key for claim in await stores.claim(future + HOUR, "other")} == {
            claim.idempotency_key for claim in claims[1:]
        }
        assert await stores.publications.schedule(one.post_id, [], future, user_id) == await _all(stores, one)

    async def _all(stores: Stores, one: Publication) -> list[Publication]:
        return (await stores.publications.of_posts([one.post_id]))[one.post_id]

    run(url, scenario)


def test_cancel(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        one, two, three = await stores.scheduled(NOW, "twitter", "facebook", "linkedin")
        user_id = (await stores.posts.get(one.post_id)).user_id  # type: ignore[union-attr]
        claims = await stores.publications.claim("me", datetime.now(UTC), LEASE, 2)
        assert await stores.publications.published(claims[0], "p1", None, NOW)

        assert await stores.publications.cancel(one.post_id, user_id + 1) == 0
        assert await stores.publications.cancel(one.post_id, user_id) == 1
        left = (await stores.publications.of_posts([one.post_id]))[one.post_id]
        assert {publication.id for publication in left} == {claim.id for claim in claims}
        assert {one.id, two.id, three.id} > {claim.id for claim in claims}

    run(url, scenario)


def test_claim_takes_what_is_due_the_oldest_first(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        (later,) = await stores.scheduled(NOW)
        (earlier,) = await stores.scheduled(NOW - HOUR)
        await stores.scheduled(NOW + SECOND)

        (first,) = await stores.publications.claim("me", NOW, LEASE, 1)
        assert (first.id, first.post_id, first.text, first.platform) == (
            earlier.id,
            earlier.post_id,
            "hello",
            "twitter",
        )
        assert (first.owner, first.leased_until, first.attempts) == ("me", NOW + timedelta(seconds=LEASE), 1)
        assert (first.due_at, len(first.idempotency_key)) == (NOW - HOUR, 32)
        assert [claim.id for claim in await stores.claim()] == [later.id]
        assert await stores.claim() == []

    run(url, scenario)


def test_claim_is_given_anew_when_its_lease_has_ended(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        (publication,) = await stores.scheduled(NOW)
        (lost,) = await stores.claim(owner="crashed")
        end = NOW + timedelta(seconds=LEASE)
        assert await stores.claim(end - SECOND) == []
        (claim,) = await stores.claim(end)
        assert (claim.id, claim.attempts, claim.idempotency_key) == (lost.id, 2, lost.idempotency_key)

        # The one that was thought dead comes back: what it says does not count any more.
        assert not await stores.publications.published(lost, "p0", None, end)
        assert not await stores.publications.postpone(lost, end, "late")
        assert not await stores.publications.failed(lost, "rejected", "late")
        assert await stores.publications.published(claim, "p1", "https://example.com/p1", end)
        assert not await stores.publications.published(claim, "p2", None, end)
        found = await stores.one(publication)
        assert (found.state, found.platform_post_id, found.platform_url, found.published_at) == (
            "published",
            "p1",
            "https://example.com/p1",
            end,
        )
        assert await stores.claim(end + HOUR) == []

    run(url, scenario)


def test_lease_that_ended_counts_until_somebody_else_has_it(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        await stores.scheduled(NOW)
        (claim,) = await stores.claim()
        # Also against an earlier claim of the same owner.
        (again,) = await stores.claim(NOW + HOUR)
        assert not await stores.publications.published(claim, "p0", None, NOW)
        assert await stores.publications.published(again, "p1", None, NOW + 2 * HOUR)

    run(url, scenario)


def test_postponed_and_failed(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        (publication,) = await stores.scheduled(NOW)
        (claim,) = await stores.claim()
        assert await stores.publications.postpone(claim, NOW + HOUR, "\0" + "x" * 10_000)
        found = await stores.one(publication)
        assert (found.state, found.due_at, found.attempts) == ("scheduled", NOW, 1)
        assert found.last_error == "x" * 500
        assert await stores.claim(NOW + HOUR - SECOND, "other") == []

        (claim,) = await stores.claim(NOW + HOUR, "other")
        assert claim.attempts == 2
        assert await stores.publications.failed(claim, "rejected", "too long")
        found = await stores.one(publication)
        assert (found.state, found.failure_reason, found.last_error) == ("failed", "rejected", "too long")
        assert await stores.claim(NOW + 2 * HOUR) == []

    run(url, scenario)


def test_release(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        for _ in range(3):
            await stores.scheduled(NOW)
        mine = await stores.publications.claim("me", NOW, LEASE, 2)
        (theirs,) = await stores.claim(owner="other")
        await stores.publications.published(mine[0], "p1", None, NOW)
        assert await stores.publications.release("me") == 1
        assert [claim.id for claim in await stores.claim()] == [mine[1].id]
        assert not await stores.publications.published(mine[1], "p2", None, NOW)
        assert await stores.publications.published(theirs, "p3", None, NOW)

    run(url, scenario)


def test_publication_that_is_deleted_under_way(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        await stores.scheduled(NOW)
        (claim,) = await stores.claim()
        assert await stores.posts.delete(claim.post_id)
        assert not await stores.publications.published(claim, "p1", None, NOW)

    run(url, scenario)


@pytest.mark.parametrize("batch", [1, 7])
def test_nothing_is_handed_out_twice(url: URL, batch: int) -> None:
    owners, posts = 4, 60

    async def scenario(stores: Stores) -> None:
        user_id = await stores.user()
        account = await stores.account(user_id)
        for _ in range(posts):
            post = await stores.posts.create(user_id, "hello")
            await stores.publications.schedule(post.id, [account.id], NOW, user_id)
        claimed: list[int] = []

        async def work(owner: str) -> None:
            database = Database(url, pool_size=1, timeout=30, instrument=lambda _engine: None)
            store = PublicationStore(database)
            while len(claimed) < posts:
                claims = await store.claim(owner, NOW, LEASE, batch)
                assert len(claims) <= batch
                claimed.extend(claim.id for claim in claims)
            await database.stop()

        await asyncio.gather(*(work(f"owner {number}") for number in range(owners)))
        assert len(set(claimed)) == posts
        assert len(claimed) == posts

    run(url, scenario)


def test_survey_of_nothing(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        nobody = dict.fromkeys(contract.ACTIVITY_WINDOWS, 0)
        assert await survey(stores.database, NOW) == Survey({}, {}, {}, {}, nobody, 0)

    run(url, scenario)


def test_survey(url: URL) -> None:
    async def scenario(stores: Stores) -> None:
        ages = [timedelta(0), timedelta(minutes=30), timedelta(hours=2), timedelta(days=3), timedelta(days=31)]
        users = [await stores.user(str(number)) for number in range(len(ages) + 1)]
        for user_id, age in zip(users, ages, strict=False):
            await stores.users.touch(user_id, NOW - age)
        await stores.account(users[0], expires=NOW + HOUR, refresh="r")
        await stores.account(users[1], expires=NOW + SECOND)
        refused = await stores.account(users[2], expires=NOW - HOUR)
        await stores.accounts.mark_needs_reconnect(refused.id)
        await stores.account(users[0], "facebook")

        await stores.scheduled(NOW - HOUR, "linkedin")
        (done,) = await stores.claim()
        await stores.publications.published(done, "p1", None, NOW)
        await stores.scheduled(NOW - SECOND, "tiktok")
        await stores.scheduled(NOW, "tiktok", "linkedin")
        await stores.scheduled(NOW + SECOND, "tiktok", "instagram")
        (tried, *_rest) = await stores.publications.claim("me", NOW, LEASE, 1)
        await stores.publications.postpone(tried, NOW + HOUR, "later")  # still due

        found = await survey(stores.database, NOW)
        assert found.queue == {
            ("tiktok", "due"): 2,
            ("tiktok", "waiting"): 1,
            ("linkedin", "due"): 1,
            ("linkedin", "waiting"): 0,
            ("instagram", "due"): 0,
            ("instagram", "waiting"): 1,
        }
        assert found.oldest_due == {"tiktok": NOW - SECOND, "linkedin": NOW}
        assert found.accounts == {
            ("twitter", "active"): 2,
            ("twitter", "needs_reconnect"): 1,
            ("facebook", "active"): 1,
            ("linkedin", "active"): 2,
            ("tiktok", "active"): 3,
            ("instagram", "active"): 1,
        }
        assert found.token_expiry == {"twitter": NOW + SECOND}
        assert found.active_users == {"5m": 1, "1h": 2, "24h": 3, "7d": 4, "30d": 4}
        assert found.registered_users == await stores.count("users")

    run(url, scenario)


def test_survey_has_the_windows_of_the_contract() -> None:
    assert tuple(WINDOWS) == contract.ACTIVITY_WINDOWS
