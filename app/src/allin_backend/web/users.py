"""The routes for users."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.database.accounts import AccountStore
from allin_backend.database.users import EmailTakenError, User, UserStore
from allin_backend.metrics.work import WorkMetrics
from allin_backend.security.passwords import Passwords
from allin_backend.web.accounts import Revocations
from allin_backend.web.guard import Guard, SignedIn
from allin_backend.web.requests import TEXT, read_json
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import JsonResponse

EMAIL_LENGTH: Final = 254
"""Longest address that mail can carry."""
# No control characters and no white space of any kind, spelled out because regular expressions differ in what they
# take for it. The look-ahead: a "$" alone would let a line break follow.
_PART: Final = r"[^@\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]"
Email = Annotated[str, msgspec.Meta(pattern=f"^{_PART}{{1,64}}@{_PART}{{1,189}}$(?!\n)")]


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a new user."""

    email: Email
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=TEXT)]
    password: Annotated[str, msgspec.Meta(min_length=12, max_length=200)]


class Users:
    """Sign up, see and delete oneself."""

    def __init__(
        self,
        guard: Guard,
        users: UserStore,
        accounts: AccountStore,
        passwords: Passwords,
        revocations: Revocations,
        metrics: WorkMetrics,
    ) -> None:
        self._guard = guard
        self._users = users
        self._accounts = accounts
        self._passwords = passwords
        self._revocations = revocations
        self._metrics = metrics

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        sign_up = Endpoint(
            self._guard.anyone(self.create),
            HTTPStatus.CREATED,
            User,
            body=NewUser,
            problems={
                HTTPStatus.CONFLICT: "Another user has this email address.",
                HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer.",
            },
            headers={"Location": "The path of the user."},
        )
        return [
            Resource(paths.USERS, {"POST": sign_up}),
            Resource(
                paths.ME,
                {
                    "GET": Endpoint(self._guard.signed_in(self.get), answer=User),
                    "DELETE": Endpoint(self._guard.signed_in(self.delete), HTTPStatus.NO_CONTENT),
                },
            ),
        ]

    async def create(self, request: Request) -> Response:
        """Sign up. Email addresses that differ only in case are the same."""
        new = await read_json(request, NewUser)
        email = normal_email(new.email)
        if email is None:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"email is longer than {EMAIL_LENGTH} characters.")
        try:
            user = await self._users.create(email, new.name, await self._passwords.hash(new.password))
        except EmailTakenError:
            raise HTTPException(HTTPStatus.CONFLICT, "Another user has this email address.") from None
        self._metrics.user_actions.inc("sign_up")
        return JsonResponse(user, HTTPStatus.CREATED, {"Location": paths.ME})

    async def get(self, _request: Request, signed_in: SignedIn) -> Response:
        """The user whose session this is."""
        return JsonResponse(signed_in.user)

    async def delete(self, _request: Request, signed_in: SignedIn) -> Response:
        """Delete the user with all sessions, accounts and posts, and give the permissions back.

        Posts that have been published stay on their platforms.
        """
        user_id = signed_in.user.id
        found = [await self._accounts.secrets(account.id) for account in await self._accounts.list(user_id)]
        await self._users.delete(user_id)
        await self._guard.forget_user(user_id)
        self._metrics.user_actions.inc("user_delete")
        await self._revocations.revoke(secrets for secrets in found if secrets is not None)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def normal_email(email: str) -> str | None:
    """The form in which an address is stored and looked up; ``None`` if that is too long."""
    lower = email.lower()  # longer than the original in a few languages
    return lower if len(lower) <= EMAIL_LENGTH else None
