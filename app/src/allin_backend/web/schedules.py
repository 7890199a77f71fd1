"""The routes for the time and the accounts of a post."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.database.accounts import ACTIVE, Account, AccountStore
from allin_backend.database.posts import PostStore
from allin_backend.database.publications import (
    SCHEDULED,
    Publication,
    PublicationStore,
    UnknownAccountError,
    UnknownPostError,
)
from allin_backend.database.tables import now
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.base import Platform
from allin_backend.web.feed import Feed, PostAnswer, answer
from allin_backend.web.guard import Guard, SignedIn
from allin_backend.web.requests import Id, path_id, read_json
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import JsonResponse, no_such

AccountIds = Annotated[list[Id], msgspec.Meta(min_length=1, max_length=20)]
When = Annotated[datetime, msgspec.Meta(tz=True)]
_CLOCKS_DIFFER: Final = timedelta(minutes=1)
_FURTHEST: Final = timedelta(days=366)


class NewSchedule(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that gives a post its accounts and its time."""

    account_ids: AccountIds
    publish_at: When


@dataclass(frozen=True, slots=True)
class Plan:
    """Accounts that can take the post, and when."""

    accounts: Sequence[Account]
    publish_at: datetime


class Schedules:
    """Give a post its time, move it, take it back."""

    def __init__(
        self,
        guard: Guard,
        posts: PostStore,
        accounts: AccountStore,
        publications: PublicationStore,
        feed: Feed,
        platforms: Mapping[str, Platform],
        metrics: WorkMetrics,
    ) -> None:
        self._guard = guard
        self._posts = posts
        self._accounts = accounts
        self._publications = publications
        self._feed = feed
        self._platforms = platforms
        self._metrics = metrics

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        unknown = "The user has no post with this id."
        put = Endpoint(
            self._guard.signed_in(self.put),
            answer=PostAnswer,
            body=NewSchedule,
            problems={HTTPStatus.NOT_FOUND: unknown},
        )
        delete = Endpoint(
            self._guard.signed_in(self.delete),
            HTTPStatus.NO_CONTENT,
            problems={
                HTTPStatus.NOT_FOUND: unknown,
                HTTPStatus.CONFLICT: "Nothing of the post is still to be published.",
            },
        )
        return [Resource(paths.SCHEDULE, {"PUT": put, "DELETE": delete})]

    async def put(self, request: Request, signed_in: SignedIn) -> Response:
        """Give a post its accounts and its time, instead of those it had.

        Where it has been published, or is being published just now, nothing changes.
        """
        new = await read_json(request, NewSchedule)
        post_id = path_id(request, "post_id")
        user_id = signed_in.user.id
        post = None if post_id is None else await self._posts.get(post_id, user_id)
        if post is None:
            raise no_such("post")
        plan = await self.plan(post.text, new.account_ids, new.publish_at, user_id)
        publications = await self.set(post.id, plan, user_id)
        await self._feed.changed(user_id)
        return JsonResponse(answer(post, publications))

    async def delete(self, request: Request, signed_in: SignedIn) -> Response:
        """Take back what is still to be published; the post stays."""
        post_id = path_id(request, "post_id")
        user_id = signed_in.user.id
        if post_id is None or await self._posts.get(post_id, user_id) is None:
            raise no_such("post")
        if not await self._publications.cancel(post_id, user_id):
            raise HTTPException(HTTPStatus.CONFLICT, "Nothing of this post is still to be published.")
        self._metrics.user_actions.inc("post_cancel")
        await self._feed.changed(user_id)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def plan(self, text: str, account_ids: Sequence[int], publish_at: datetime, user_id: int) -> Plan:
        """Check that the user's accounts can take the text, and the time.

        Raises:
            HTTPException: 422 with what does not fit.
        """
        moment = now()
        if not moment - _CLOCKS_DIFFER <= publish_at <= moment + _FURTHEST:
            raise _unfit(f"publish_at must lie in the next {_FURTHEST.days} days.")
        own = {account.id: account for account in await self._accounts.list(user_id)}
        accounts = []
        for account_id in dict.fromkeys(account_ids):
            account = own.get(account_id)
            if account is None:
                raise _unfit(f"There is no account {account_id}.")
            if account.state != ACTIVE:
                raise _unfit(f"The account {account_id} must be connected again first.")
            platform = self._platforms.get(account.platform)
            if platform is None:
                raise _unfit(f"This service is not set up for {account.platform}.")
            length = platform.text_length(text)
            if length > platform.text_limit:
                raise _unfit(f"The text has {length} characters; {account.platform} takes {platform.text_limit}.")
            accounts.append(account)
        return Plan(accounts, publish_at)

    async def set(self, post_id: int, plan: Plan, user_id: int) -> list[Publication]:
        """Schedule the user's post, and count it.

        Raises:
            HTTPException: 404 or 422, the post or an account has been deleted meanwhile.
        """
        account_ids = [account.id for account in plan.accounts]
        try:
            publications = await self._publications.schedule(post_id, account_ids, plan.publish_at, user_id)
        except UnknownPostError:
            raise no_such("post") from None
        except UnknownAccountError as error:
            raise _unfit(f"There is no account {error}.") from None
        for platform in {publication.platform for publication in publications if publication.state == SCHEDULED}:
            self._metrics.posts_scheduled.inc(platform)
        self._metrics.user_actions.inc("post_schedule")
        return publications


def _unfit(detail: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
