"""Posts as callers see them: with what has become of each on its platforms, the first page through the cache."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from allin_backend.cache import Cache
from allin_backend.database.posts import Post, PostStore
from allin_backend.database.publications import Publication, PublicationStore
from allin_backend.web.requests import PAGE, make_cursor

# The publisher changes what pages show and does not say so here.
_STALE_SECONDS: Final = 10.0


class PublicationAnswer(msgspec.Struct, frozen=True):
    """A post on one account. ``state`` is scheduled, published or failed; a failed one has a ``failure_reason``."""

    account_id: int
    platform: str
    state: str
    due_at: datetime
    published_at: datetime | None
    url: str | None
    failure_reason: str | None


class PostAnswer(msgspec.Struct, frozen=True):
    """A text, and each account it is meant for; a draft has none."""

    id: int
    text: str
    created_at: datetime
    publications: list[PublicationAnswer]


class PostPage(msgspec.Struct, frozen=True):
    """Posts, newest first. ``next_cursor`` is null on the last page."""

    items: list[PostAnswer]
    next_cursor: str | None


class Feed:
    """Reads the posts of one user."""

    def __init__(self, posts: PostStore, publications: PublicationStore, cache: Cache) -> None:
        self._posts = posts
        self._publications = publications
        self._cache = cache

    async def post(self, post_id: int, user_id: int) -> PostAnswer | None:
        """One post, if the user has it."""
        post = await self._posts.get(post_id, user_id)
        return None if post is None else (await self._with_publications([post]))[0]

    async def page(self, user_id: int, limit: int, before: int | None) -> bytes:
        """A ``PostPage`` in JSON, of posts with ids below ``before``."""

        async def load() -> bytes:
            return msgspec.json.encode(await self._page(user_id, limit, before))

        # The page that people come back to. Of all pages, there would be no telling which a change touches.
        if before is not None or limit != PAGE:
            return await load()
        return (
            await self._cache.get_or_load("posts", str(user_id), self._cache.lifetime(_STALE_SECONDS), load)
            or await load()
        )

    async def changed(self, user_id: int) -> None:
        """The user's posts are not any more what they were."""
        await self._cache.delete("posts", str(user_id))

    async def _page(self, user_id: int, limit: int, before: int | None) -> PostPage:
        # One more than asked for tells whether there is a next page.
        found = await self._posts.newest(user_id, limit + 1, before)
        page = found[:limit]
        next_cursor = make_cursor(page[-1].id) if len(found) > limit else None
        return PostPage(await self._with_publications(page), next_cursor)

    async def _with_publications(self, posts: Sequence[Post]) -> list[PostAnswer]:
        publications = await self._publications.of_posts([post.id for post in posts]) if posts else {}
        return [answer(post, publications.get(post.id, ())) for post in posts]


def answer(post: Post, publications: Sequence[Publication]) -> PostAnswer:
    """What callers see of a post."""
    return PostAnswer(
        id=post.id,
        text=post.text,
        created_at=post.created_at,
        publications=[
            PublicationAnswer(
                account_id=publication.account_id,
                platform=publication.platform,
                state=publication.state,
                due_at=publication.due_at,
                published_at=publication.published_at,
                url=publication.platform_url,
                failure_reason=publication.failure_reason,
            )
            for publication in publications
        ],
    )
