"""Requests made up from the API's own description: what it promises holds, and what it rules out is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from schemathesis import GenerationMode
from schemathesis.python.asgi import ASGIClient, get_client, shutdown_lifespans
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from allin_backend import paths
from allin_backend.app import create_app
from allin_backend.settings import load
from support import PASSWORD, make_settings

_NO_LIMITS: Final = {"ALLIN_RATE_LIMIT_PER_MINUTE": "0", "ALLIN_SIGN_IN_LIMIT_PER_MINUTE": "0"}
_ENDS_SESSION: Final = ((paths.ME, "delete"), (paths.CURRENT_SESSION, "delete"))
# Data that fits its description may still be refused for a reason that no schema can tell: a name that is taken.
_EXCLUDED: Final = [positive_data_acceptance]


def _operations() -> list[Any]:
    # The description needs neither a database nor a start.
    document = TestClient(create_app(load({}), CollectorRegistry())).get("/openapi.json").json()
    return [
        pytest.param(path, method, mode, id=f"{method} {path} {mode}")
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for mode in GenerationMode
        # Without any input there is none that could be wrong.
        if mode.is_positive or operation["parameters"] or "requestBody" in operation
    ]


@dataclass
class Api:
    """The description of an application, and a client of it."""

    schema: Any
    client: ASGIClient
    number: int = 0

    def sign_up(self) -> dict[str, str]:
        """The headers of a new user."""
        self.number += 1
        user = {"email": f"{self.number}@example.com", "password": PASSWORD}
        self.client.post("/api/v1/users", json=user | {"name": "Ann"})
        token = self.client.post("/api/v1/sessions", json=user).json()["token"]
        return {"Authorization": f"Bearer {token}"}

    def write_post(self, headers: dict[str, str]) -> int:
        """The id of a new post."""
        post = self.client.post("/api/v1/posts", json={"text": "hello"}, headers=headers)
        return int(post.json()["id"])


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    app = create_app(make_settings(tmp_path, **_NO_LIMITS), CollectorRegistry())
    asgi: Any = app  # its own type for ASGI applications is narrower
    with get_client(asgi) as client:
        yield Api(schemathesis.openapi.from_asgi("/openapi.json", app), client)
    shutdown_lifespans()


@pytest.mark.parametrize(("path", "method", "mode"), _operations())
def test_answers_are_as_described(api: Api, path: str, method: str, mode: GenerationMode) -> None:
    headers = api.sign_up()

    @given(case=api.schema[path][method].as_strategy(mode), existing=st.booleans())
    @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(case: Any, existing: bool) -> None:
        own = api.sign_up() if (path, method) in _ENDS_SESSION else headers
        if mode.is_positive and existing and "post_id" in case.path_parameters:
            case.path_parameters = {"post_id": api.write_post(own)}
        case.call_and_validate(session=api.client, headers=own, excluded_checks=_EXCLUDED)

    check()
