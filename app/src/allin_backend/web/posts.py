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
from allin_backend.database.users import UnknownUserError
from allin_backend.web.requests import LARGEST_ID, make_cursor, path_id, query_cursor, query_limit, read_json
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import JsonResponse


class NewPost(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a new post."""

    user_id: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_ID)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]


class Posts:
    """Create, list, read and delete posts."""

    def __init__(self, store: PostStore) -> None:
        self._store = store

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        return [
            Resource(paths.POSTS, {"GET": Endpoint(self.newest), "POST": Endpoint(self.create, 201)}),
            Resource(paths.POST, {"GET": Endpoint(self.get), "DELETE": Endpoint(self.delete, 204)}),
        ]

    async def newest(self, request: Request) -> Response:
        """A page of posts, newest first. ``next_cursor`` is null on the last page."""
        limit = query_limit(request, default=20, largest=100)
        before = query_cursor(request)
        # One more than asked for tells whether there is a next page.
        found = await self._store.newest(None, limit + 1, before)
        page = found[:limit]
        next_cursor = make_cursor(page[-1].id) if len(found) > limit else None
        return JsonResponse({"items": page, "next_cursor": next_cursor})

    async def create(self, request: Request) -> Response:
        """Add a post; 422 if its user does not exist."""
        new = await read_json(request, NewPost)
        try:
            post = await self._store.create(new.user_id, new.text)
        except UnknownUserError:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "There is no user with this user_id.") from None
        return JsonResponse(post, HTTPStatus.CREATED, {"Location": paths.POST.format(post_id=post.id)})

    async def get(self, request: Request) -> Response:
        """One post."""
        post_id = path_id(request, "post_id")
        post = None if post_id is None else await self._store.get(post_id)
        if post is None:
            raise _no_such_post()
        return JsonResponse(post)

    async def delete(self, request: Request) -> Response:
        """Remove a post."""
        post_id = path_id(request, "post_id")
        if post_id is None or not await self._store.delete(post_id):
            raise _no_such_post()
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _no_such_post() -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, "There is no post with this id.")
