"""The route for what has become of a post: its figures, as its platforms tell them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.cache import Cache
from allin_backend.database.accounts import AccountStore
from allin_backend.database.posts import PostStore
from allin_backend.database.publications import Publication, PublicationStore
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.base import Figures
from allin_backend.platforms.errors import PlatformError
from allin_backend.platforms.registry import UnknownPlatformError
from allin_backend.platforms.service import PlatformService
from allin_backend.security.encryption import DecryptionError
from allin_backend.web.cached import cached
from allin_backend.web.guard import Guard, SignedIn
from allin_backend.web.requests import path_id
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import PLATFORM_PROBLEMS, JsonResponse, no_such

_CACHED_SECONDS: Final = 60.0


class PublicationFigures(msgspec.Struct, frozen=True):
    """The figures of a post on one account; null where its platform does not tell them now."""

    account_id: int
    platform: str
    figures: Figures | None


class PostFigures(msgspec.Struct, frozen=True):
    """The figures of a post on each account where it has been published."""

    items: list[PublicationFigures]


class FiguresRoutes:
    """Reads figures from the platforms. ``budget``: seconds that one platform has for them."""

    def __init__(
        self,
        guard: Guard,
        posts: PostStore,
        publications: PublicationStore,
        accounts: AccountStore,
        service: PlatformService,
        cache: Cache,
        metrics: WorkMetrics,
        *,
        budget: float,
    ) -> None:
        self._guard = guard
        self._posts = posts
        self._publications = publications
        self._accounts = accounts
        self._service = service
        self._cache = cache
        self._metrics = metrics
        self._budget = budget

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        get = Endpoint(
            self._guard.signed_in(self.get),
            answer=PostFigures,
            problems={
                **PLATFORM_PROBLEMS,
                HTTPStatus.NOT_FOUND: "The user has no post with this id.",
            },
        )
        return [Resource(paths.FIGURES, {"GET": get})]

    async def get(self, request: Request, signed_in: SignedIn) -> Response:
        """The figures of a post, at most a minute old.

        A platform that does not tell them now is left out, unless it is the only one.
        """
        post_id = path_id(request, "post_id")
        if post_id is None or await self._posts.get(post_id, signed_in.user.id) is None:
            raise no_such("post")
        publications = (await self._publications.of_posts([post_id])).get(post_id, [])
        items = await self._read([one for one in publications if one.platform_post_id is not None])
        self._metrics.user_actions.inc("figures_view")
        return JsonResponse(PostFigures(items))

    async def _read(self, published: Sequence[Publication]) -> list[PublicationFigures]:
        outcomes = await asyncio.gather(*(self._figures(one) for one in published), return_exceptions=True)
        items = []
        failures: list[BaseException] = []
        for publication, outcome in zip(published, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                if not isinstance(outcome, PlatformError | UnknownPlatformError | DecryptionError):
                    raise outcome
                failures.append(outcome)
                outcome = None
            items.append(PublicationFigures(publication.account_id, publication.platform, outcome))
        if failures and len(failures) == len(items):
            raise failures[0]
        return items

    async def _figures(self, publication: Publication) -> Figures | None:
        platform_post_id = publication.platform_post_id
        assert platform_post_id is not None  # noqa: S101  # the others have been left out

        async def load() -> Figures | None:
            account = await self._accounts.secrets(publication.account_id)
            if account is None:  # disconnected this moment
                return None
            return await self._service.figures(account, platform_post_id, budget=self._budget)

        return await cached(self._cache, "figures", str(publication.id), _CACHED_SECONDS, Figures, load)
