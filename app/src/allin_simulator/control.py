"""The control API: turns the knobs, and tells what happened. For this machine only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from ipaddress import ip_address

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from allin_simulator.posts import Posts
from allin_simulator.requests import json_response, read_body
from allin_simulator.settings import SettingsError
from allin_simulator.site import Site


class Control:
    def __init__(self, sites: Mapping[str, Site], posts: Posts, reset: Callable[[], None]) -> None:
        self._sites = sites
        self._posts = posts
        self._reset = reset

    def routes(self) -> Sequence[Route]:
        return [
            Route("/control/platforms", _local(self._all_knobs), methods=["GET"]),
            Route("/control/platforms/{platform}", _local(self._knobs), methods=["GET", "PUT"]),
            Route("/control/posts", _local(self._list_posts), methods=["GET"]),
            Route("/control/stats", _local(self._stats), methods=["GET"]),
            Route("/control/reset", _local(self._reset_all), methods=["POST"]),
        ]

    def _all_knobs(self, _request: Request, _body: bytes) -> Response:
        return json_response({name: site.knobs for name, site in self._sites.items()})

    def _knobs(self, request: Request, body: bytes) -> Response:
        site = self._sites.get(request.path_params["platform"])
        if site is None:
            return _problem(HTTPStatus.NOT_FOUND, f"The platforms are {', '.join(self._sites)}.")
        if request.method == "PUT":
            try:
                changes = msgspec.json.decode(body, type=dict[str, object])
                # What is not named is as at the start, so the same request always has the same result.
                site.knobs = site.initial_knobs.changed(changes)
            except (msgspec.DecodeError, UnicodeDecodeError, SettingsError) as error:
                return _problem(HTTPStatus.BAD_REQUEST, str(error))
        return json_response(site.knobs)

    def _list_posts(self, request: Request, _body: bytes) -> Response:
        platform, limit = request.query_params.get("platform"), request.query_params.get("limit", "1000")
        if not limit.isdecimal() or len(limit) > 9:
            return _problem(HTTPStatus.BAD_REQUEST, "limit must be a whole number.")
        posts = [
            {
                "platform": post.platform,
                "id": str(post.number),
                "person": post.person,
                "text": post.text,
                "idempotency_key": post.idempotency_key,
                "requests": post.requests,
                "created_at": post.created_at,
            }
            for post in self._posts.newest(platform, int(limit))
        ]
        return json_response({"posts": posts, "published": self._posts.published.total()})

    def _stats(self, _request: Request, _body: bytes) -> Response:
        return json_response(
            {
                name: {
                    "requests": dict(site.requests),
                    "faults": dict(site.faults),
                    "published": self._posts.published[name],
                    "repeated": self._posts.repeated[name],
                }
                for name, site in self._sites.items()
            }
        )

    def _reset_all(self, _request: Request, _body: bytes) -> Response:
        self._reset()
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _local(answer: Callable[[Request, bytes], Response]) -> Callable[[Request], object]:
    async def endpoint(request: Request) -> Response:
        if request.client is None or not _is_loopback(request.client.host):
            return _problem(HTTPStatus.FORBIDDEN, "The control API answers this machine only.")
        return answer(request, await read_body(request))

    return endpoint


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(status: HTTPStatus, detail: str) -> Response:
    return json_response({"error": detail}, status)
