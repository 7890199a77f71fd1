"""The routes for posts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.database.posts import PostStore
from allin_backend.metrics import contract
from allin_backend.metrics.work import WorkMetrics
from allin_backend.web.feed import Feed, PostAnswer, PostPage, answer
from allin_backend.web.guard import Guard, SignedIn
from allin_backend.web.requests import CURSOR, LIMIT, TEXT, path_id, query_cursor, query_limit, read_json
from allin_backend.web.resources import JSON, Endpoint, Resource
from allin_backend.web.responses import JsonResponse, no_such
from allin_backend.web.schedules import AccountIds, Plan, Schedules, When


class NewPost(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a new post: a draft, or with accounts and a time a scheduled post."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000, pattern=TEXT)]
    account_ids: AccountIds | msgspec.UnsetType = msgspec.UNSET
    publish_at: When | msgspec.UnsetType = msgspec.UNSET


class Posts:
    """Create, list, read and delete posts."""

    def __init__(self, guard: Guard, posts: PostStore, feed: Feed, schedules: Schedules, metrics: WorkMetrics) -> None:
        self._guard = guard
        self._posts = posts
        self._feed = feed
        self._schedules = schedules
        self._metrics = metrics

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        signed_in = self._guard.signed_in
        unknown = {HTTPStatus.NOT_FOUND: "The user has no post with this id."}
        create = Endpoint(
            signed_in(self.create),
            HTTPStatus.CREATED,
            PostAnswer,
            body=NewPost,
            headers={"Location": "The path of the post."},
        )
        return [
            Resource(
                paths.POSTS,
                {"GET": Endpoint(signed_in(self.newest), answer=PostPage, query=(LIMIT, CURSOR)), "POST": create},
            ),
            Resource(
                paths.POST,
                {
                    "GET": Endpoint(signed_in(self.get), answer=PostAnswer, problems=unknown),
                    "DELETE": Endpoint(signed_in(self.delete), HTTPStatus.NO_CONTENT, problems=unknown),
                },
            ),
        ]

    async def newest(self, request: Request, signed_in: SignedIn) -> Response:
        """A page of the user's posts, newest first."""
        limit = query_limit(request)
        page = await self._feed.page(signed_in.user.id, limit, query_cursor(request))
        return Response(page, media_type=JSON)

    async def create(self, request: Request, signed_in: SignedIn) -> Response:
        """Write a post, and schedule it if account_ids and publish_at are given."""
        new = await read_json(request, NewPost)
        plan = await self._plan(new, signed_in.user.id)
        post = await self._posts.create(signed_in.user.id, new.text)
        for platform in {account.platform for account in plan.accounts} if plan else {contract.NO_PLATFORM}:
            self._metrics.posts_created.inc(platform)
        self._metrics.user_actions.inc("post_create")
        publications = await self._schedules.set(post.id, plan, signed_in.user.id) if plan else []
        await self._feed.changed(signed_in.user.id)
        return JsonResponse(
            answer(post, publications), HTTPStatus.CREATED, {"Location": paths.POST.format(post_id=post.id)}
        )

    async def get(self, request: Request, signed_in: SignedIn) -> Response:
        """One post."""
        post_id = path_id(request, "post_id")
        post = None if post_id is None else await self._feed.post(post_id, signed_in.user.id)
        if post is None:
            raise no_such("post")
        return JsonResponse(post)

    async def delete(self, request: Request, signed_in: SignedIn) -> Response:
        """Delete a post. Where it has been published it stays."""
        post_id = path_id(request, "post_id")
        if post_id is None or not await self._posts.delete(post_id, signed_in.user.id):
            raise no_such("post")
        self._metrics.user_actions.inc("post_delete")
        await self._feed.changed(signed_in.user.id)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _plan(self, new: NewPost, user_id: int) -> Plan | None:
        account_ids, publish_at = new.account_ids, new.publish_at
        if isinstance(account_ids, msgspec.UnsetType) and isinstance(publish_at, msgspec.UnsetType):
            return None
        if isinstance(account_ids, msgspec.UnsetType) or isinstance(publish_at, msgspec.UnsetType):
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "account_ids and publish_at go together.")
        return await self._schedules.plan(new.text, account_ids, publish_at, user_id)
