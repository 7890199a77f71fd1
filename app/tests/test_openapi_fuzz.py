"""Requests made up from the API's own description: what it promises holds, and what it rules out is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from schemathesis import GenerationMode
from schemathesis.python.asgi import get_client, shutdown_lifespans
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sqlalchemy.engine import URL
from starlette.applications import Starlette
from starlette.testclient import TestClient

from allin_backend import paths
from allin_backend.app import create_app
from allin_backend.settings import load
from social_support import make_simulator, make_social_settings, permit
from support import PASSWORD

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


class Api:
    """The description of an application, and a client of it."""

    def __init__(self, app: Starlette, simulator: TestClient) -> None:
        asgi: Any = app  # its own type for ASGI applications is narrower
        self.client = get_client(asgi)
        self.schema = schemathesis.openapi.from_asgi("/openapi.json", asgi)
        self._simulator = simulator
        self._users = 0

    def sign_up(self) -> dict[str, str]:
        """The headers of a new user."""
        self._users += 1
        user = {"email": f"{self._users}@example.com", "password": PASSWORD}
        self._post("/api/v1/users", user | {"name": "Ann"})
        return {"Authorization": f"Bearer {self._post('/api/v1/sessions', user)['token']}"}

    def existing(self, names: Iterable[str], headers: dict[str, str]) -> dict[str, Any]:
        """Parameters of a path behind which there is something of the user's."""
        found: dict[str, Any] = {}
        for name in names:
            match name:
                case "platform":
                    found[name] = "twitter"
                case "account_id":
                    found[name] = self._connect(headers)
                case "post_id":
                    schedule = {
                        "account_ids": [self._connect(headers)],
                        "publish_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
                    }
                    found[name] = self._post("/api/v1/posts", {"text": "hello"} | schedule, headers)["id"]
        return found

    def _connect(self, headers: dict[str, str]) -> int:
        path = "/api/v1/platforms/twitter"
        brought = permit(self._simulator, self._post(f"{path}/authorizations", {}, headers)["url"])
        return int(self._post(f"{path}/callback", brought, headers)["id"])

    def _post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        response = self.client.post(path, json=body, headers=headers)
        assert response.status_code == 201, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture
def api(tmp_path: Path, postgresql_url: URL) -> Iterator[Api]:
    # PostgreSQL: it is particular about what it stores.
    database = {"ALLIN_DATABASE_URL": postgresql_url.render_as_string(hide_password=False)}
    transport, simulator = make_simulator()
    settings = make_social_settings(tmp_path, **database, **_NO_LIMITS)
    yield Api(create_app(settings, CollectorRegistry(), platforms_http=transport), simulator)
    shutdown_lifespans()


@pytest.mark.parametrize(("path", "method", "mode"), _operations())
def test_answers_are_as_described(api: Api, path: str, method: str, mode: GenerationMode) -> None:
    headers = api.sign_up()

    @given(case=api.schema[path][method].as_strategy(mode), existing=st.booleans())
    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    def check(case: Any, existing: bool) -> None:
        own = api.sign_up() if (path, method) in _ENDS_SESSION else headers
        if mode.is_positive and existing and case.path_parameters:
            case.path_parameters = api.existing(case.path_parameters, own)
        case.call_and_validate(session=api.client, headers=own, excluded_checks=_EXCLUDED)

    check()


@pytest.mark.parametrize("path", sorted({parameter.values[0] for parameter in _operations()}))
def test_edges_of_the_description(api: Api, path: str) -> None:
    """The last value that is allowed and the first that is not, what is left out, methods that do not exist."""
    schema = api.schema
    headers = api.sign_up()
    for method in schema[path]:
        cases = schema.iter_coverage_cases(
            schema[path][method], generation_modes=list(GenerationMode), generation_config=schema.config.generation
        )
        case: Any
        for case in cases:
            own = api.sign_up() if (path, method) in _ENDS_SESSION else headers
            case.call_and_validate(session=api.client, headers=own, excluded_checks=_EXCLUDED)
