"""Publications: one for each post and account that it goes to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
from sqlalchemy import ColumnElement, Row, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from allin_backend.database.engine import Database
from allin_backend.database.tables import accounts, now, posts, publications
from allin_backend.database.upsert import insert_or_update

SCHEDULED = "scheduled"
PUBLISHED = "published"
FAILED = "failed"

_LONGEST_ERROR = 500


class Publication(msgspec.Struct, frozen=True):
    """A post on its way to an account, or there. ``due_at`` is when it was meant to be published."""

    id: int
    post_id: int
    account_id: int
    platform: str
    state: str
    due_at: datetime
    attempts: int
    platform_post_id: str | None
    platform_url: str | None
    published_at: datetime | None
    failure_reason: str | None
    last_error: str | None


class Claim(msgspec.Struct, frozen=True):
    """A due publication that ``owner`` may publish until ``leased_until``. ``attempts`` counts this attempt too.

    The idempotency key is the same in every attempt, whoever makes it.
    """

    id: int
    post_id: int
    account_id: int
    platform: str
    user_id: int
    text: str
    due_at: datetime
    attempts: int
    idempotency_key: str
    owner: str
    leased_until: datetime


class UnknownPostError(Exception):
    """The user has no such post."""


class UnknownAccountError(Exception):
    """The user has no such account."""


_COLUMNS = tuple(publications.c[name] for name in Publication.__struct_fields__)


class PublicationStore:
    """Reads and writes publications, and hands the due ones out, each to one process at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def schedule(
        self, post_id: int, account_ids: Collection[int], due_at: datetime, user_id: int
    ) -> list[Publication]:
        """Have the user's post published to these accounts, and no others, at ``due_at``.

        What is scheduled already gets the new time, and what had failed is tried again. What has been published, or is
        being published just now, stays as it is.

        Returns:
            All publications of the post.

        Raises:
            UnknownPostError: the user has no such post.
            UnknownAccountError: one of the accounts is not the user's.
        """
        moment = now()
        try:
            async with self._database.begin() as connection:
                platforms = await self._platforms(connection, post_id, account_ids, user_id)
                if platforms:
                    rows = [_new(post_id, account_id, platform, due_at) for account_id, platform in platforms.items()]
                    changed = ["state", "due_at", "next_attempt_at", "attempts", "failure_reason", "last_error"]
                    await connection.execute(
                        insert_or_update(
                            self._database.dialect,
                            publications,
                            rows,
                            ["post_id", "account_id"],
                            changed,
                            where=(publications.c.state != PUBLISHED) & _unleased(moment),
                        )
                    )
                await connection.execute(_cancel(post_id, moment).where(publications.c.account_id.not_in(platforms)))
                return [_publication(row) for row in await connection.execute(_of_posts([post_id]))]
        except IntegrityError:
            # The post or an account went between the look and the insert.
            raise UnknownPostError(post_id) from None

    async def of_posts(self, post_ids: Collection[int]) -> dict[int, list[Publication]]:
        """The publications of these posts, by post."""
        found: dict[int, list[Publication]] = defaultdict(list)
        async with self._database.read() as connection:
            for row in await connection.execute(_of_posts(post_ids)):
                found[row.post_id].append(_publication(row))
        return dict(found)

    async def cancel(self, post_id: int, user_id: int) -> int:
        """Remove what is scheduled of the user's post and is not being published just now. Returns how many."""
        mine = select(posts.c.id).where(posts.c.id == post_id, posts.c.user_id == user_id)
        statement = _cancel(post_id, now()).where(publications.c.post_id.in_(mine))
        async with self._database.begin() as connection:
            return (await connection.execute(statement)).rowcount

    async def claim(self, owner: str, now: datetime, lease_seconds: float, limit: int) -> list[Claim]:
        """At most ``limit`` publications whose time has come at ``now``, for ``owner`` alone while the lease lasts.

        Several processes may call this at once: none is handed out twice. One whose lease ended without an outcome is
        handed out again.
        """
        # Locks what it finds and passes over what others have locked. PostgreSQL may run a subquery in WHERE anew for
        # each row, and it then finds others; a CTE that locks runs once.
        due = (
            select(publications.c.id)
            .where(publications.c.state == SCHEDULED, publications.c.next_attempt_at <= now, _unleased(now))
            .order_by(publications.c.next_attempt_at, publications.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        lease = (
            update(publications)
            .where(publications.c.id.in_(select(due.c.id)))
            .values(
                lease_owner=owner,
                leased_until=now + timedelta(seconds=lease_seconds),
                attempts=publications.c.attempts + 1,
            )
            .returning(publications.c.id)
        )
        async with self._database.begin() as connection:
            ids = list((await connection.execute(lease)).scalars())
            if not ids:
                return []
            query = (
                select(publications, posts.c.text, posts.c.user_id)
                .join(posts, posts.c.id == publications.c.post_id)
                .where(publications.c.id.in_(ids))
                .order_by(publications.c.next_attempt_at, publications.c.id)
            )
            return [_claim(row) for row in await connection.execute(query)]

    async def published(self, claim: Claim, platform_post_id: str, url: str | None, now: datetime) -> bool:
        """Record that the platform has accepted the post; false if ``claim`` no longer holds."""
        return await self._finish(
            claim,
            state=PUBLISHED,
            platform_post_id=platform_post_id,
            platform_url=url,
            published_at=now,
            last_error=None,
        )

    async def postpone(self, claim: Claim, next_attempt_at: datetime, error: str) -> bool:
        """Have it tried again at ``next_attempt_at``, by whoever is first; false if ``claim`` no longer holds."""
        return await self._finish(claim, next_attempt_at=next_attempt_at, last_error=_shortened(error))

    async def failed(self, claim: Claim, reason: str, error: str) -> bool:
        """Give it up; false if ``claim`` no longer holds."""
        return await self._finish(claim, state=FAILED, failure_reason=reason, last_error=_shortened(error))

    async def release(self, owner: str) -> int:
        """Give back whatever ``owner`` still holds, so that others need not wait for its leases to end."""
        statement = (
            update(publications)
            .where(publications.c.state == SCHEDULED, publications.c.lease_owner == owner)
            .values(lease_owner=None, leased_until=None)
        )
        async with self._database.begin() as connection:
            return (await connection.execute(statement)).rowcount

    async def _finish(self, claim: Claim, **values: object) -> bool:
        # A lease that has ended still counts until somebody else takes the publication: the outcome is known.
        statement = (
            update(publications)
            .where(
                publications.c.id == claim.id,
                publications.c.state == SCHEDULED,
                publications.c.lease_owner == claim.owner,
                publications.c.leased_until == claim.leased_until,
                publications.c.attempts == claim.attempts,
            )
            .values(lease_owner=None, leased_until=None, **values)
        )
        async with self._database.begin() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def _platforms(
        self, connection: AsyncConnection, post_id: int, account_ids: Collection[int], user_id: int
    ) -> Mapping[int, str]:
        """The platform of each account."""
        post = select(posts.c.id).where(posts.c.id == post_id, posts.c.user_id == user_id)
        if (await connection.execute(post)).one_or_none() is None:
            raise UnknownPostError(post_id)
        query = (
            select(accounts.c.id, accounts.c.platform)
            .where(accounts.c.user_id == user_id, accounts.c.id.in_(account_ids))
            .order_by(accounts.c.id)
        )
        found = {row.id: row.platform for row in await connection.execute(query)}
        if missing := sorted(set(account_ids) - found.keys()):
            raise UnknownAccountError(missing[0])
        return found


def _new(post_id: int, account_id: int, platform: str, due_at: datetime) -> dict[str, Any]:
    return {
        "post_id": post_id,
        "account_id": account_id,
        "platform": platform,
        "state": SCHEDULED,
        "due_at": due_at,
        "next_attempt_at": due_at,
        "attempts": 0,
        "idempotency_key": uuid4().hex,
        "failure_reason": None,
        "last_error": None,
    }


def _shortened(error: str) -> str:
    """What may be kept of a platform's words. PostgreSQL's texts cannot hold a NUL."""
    return error.replace("\0", "")[:_LONGEST_ERROR]


def _unleased(moment: datetime) -> ColumnElement[bool]:
    return or_(publications.c.leased_until.is_(None), publications.c.leased_until <= moment)


def _cancel(post_id: int, moment: datetime) -> Any:
    return delete(publications).where(
        publications.c.post_id == post_id, publications.c.state == SCHEDULED, _unleased(moment)
    )


def _of_posts(post_ids: Collection[int]) -> Any:
    return select(*_COLUMNS).where(publications.c.post_id.in_(post_ids)).order_by(publications.c.id)


def _publication(row: Row[*tuple[Any, ...]]) -> Publication:
    return Publication(**row._mapping)


def _claim(row: Row[*tuple[Any, ...]]) -> Claim:
    return Claim(
        id=row.id,
        post_id=row.post_id,
        account_id=row.account_id,
        platform=row.platform,
        user_id=row.user_id,
        text=row.text,
        due_at=row.due_at,
        attempts=row.attempts,
        idempotency_key=row.idempotency_key,
        owner=row.lease_owner,
        leased_until=row.leased_until,
    )
