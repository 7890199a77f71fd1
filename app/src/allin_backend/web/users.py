"""The routes for users."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.database.users import EmailTakenError, UserStore
from allin_backend.web.requests import path_id, read_json
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import JsonResponse


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a new user."""

    email: Annotated[str, msgspec.Meta(pattern=r"^[^@\s]{1,64}@[^@\s]{1,189}$")]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Users:
    """Create, read and delete users."""

    def __init__(self, store: UserStore) -> None:
        self._store = store

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        return [
            Resource(paths.USERS, {"POST": Endpoint(self.create, 201)}),
            Resource(paths.USER, {"GET": Endpoint(self.get), "DELETE": Endpoint(self.delete, 204)}),
        ]

    async def create(self, request: Request) -> Response:
        """Add a user; 409 if the address is taken. Addresses that differ only in case are the same."""
        new = await read_json(request, NewUser)
        try:
            user = await self._store.create(new.email.lower(), new.name)
        except EmailTakenError:
            raise HTTPException(HTTPStatus.CONFLICT, "Another user has this email address.") from None
        return JsonResponse(user, HTTPStatus.CREATED, {"Location": paths.USER.format(user_id=user.id)})

    async def get(self, request: Request) -> Response:
        """One user."""
        user_id = path_id(request, "user_id")
        user = None if user_id is None else await self._store.get(user_id)
        if user is None:
            raise _no_such_user()
        return JsonResponse(user)

    async def delete(self, request: Request) -> Response:
        """Remove a user with all posts."""
        user_id = path_id(request, "user_id")
        if user_id is None or not await self._store.delete(user_id):
            raise _no_such_user()
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _no_such_user() -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, "There is no user with this id.")
