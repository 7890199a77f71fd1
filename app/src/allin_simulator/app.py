"""Puts the simulator together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from allin_simulator.control import Control
from allin_simulator.oauth import Authority, OAuth
from allin_simulator.platforms.graph import Facebook, Instagram
from allin_simulator.platforms.linkedin import LinkedIn
from allin_simulator.platforms.tiktok import TikTok
from allin_simulator.platforms.twitter import Twitter
from allin_simulator.posts import Posts
from allin_simulator.settings import Settings
from allin_simulator.site import Api, Site, Sleep


class Simulator(Starlette):
    """Starlette without its answer to unexpected exceptions: a dropped connection is one, and must stay one."""

    def build_middleware_stack(self) -> ASGIApp:
        return ExceptionMiddleware(self.router)


def create_simulator(
    settings: Settings, *, clock: Callable[[], float] = time.time, sleep: Sleep = asyncio.sleep
) -> Starlette:
    """The five platforms, each below ``/{its name}``, and the control API below ``/control``.

    In-process, behind ``httpx2.ASGITransport``, a dropped connection is an ``httpx2.RemoteProtocolError``, and a
    request without an answer an ``httpx2.ReadTimeout`` after ``hang_seconds``, whatever the client's own limit is.
    """
    posts = Posts(settings.secret, settings.remembered)
    authority = Authority(settings, clock)
    platforms = (Facebook(posts), Instagram(posts, settings.remembered), LinkedIn(posts), TikTok(posts), Twitter(posts))
    sites = {platform.name: Site(platform, settings, clock, sleep) for platform in platforms}

    def reset() -> None:
        posts.clear()
        authority.clear()
        for site in sites.values():
            site.reset()

    routes = list(Control(sites, posts, reset).routes())
    for name, site in sites.items():
        oauth = OAuth(site, authority, settings)
        routes += [
            Route(f"/{name}/oauth/authorize", oauth.authorize, methods=["GET"]),
            Route(f"/{name}/oauth/token", oauth.token, methods=["POST"]),
            Route(f"/{name}/oauth/revoke", oauth.revoke, methods=["POST"]),
        ]
        for operation in site.platform.operations():
            endpoint = Api(site, operation, authority.access).answer
            routes.append(Route(f"/{name}{operation.path}", endpoint, methods=[operation.method]))
    app = Simulator(routes=routes)
    app.router.redirect_slashes = False
    return app
