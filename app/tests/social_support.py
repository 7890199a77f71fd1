"""An application with the simulated platforms behind it, all in the test's process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from allin_backend.app import create_app
from allin_backend.metrics.contract import PLATFORMS
from allin_backend.publishing.publisher import Publisher
from allin_backend.security.encryption import make_key
from allin_backend.settings import Settings
from allin_simulator.app import create_simulator
from allin_simulator.settings import Settings as SimulatorSettings
from support import make_settings

GATEWAY: Final = "http://simulator.example.com"
CLIENT_SECRET: Final = "canary-client-secret"


class Social:
    """A backend, reached through ``http``, and the simulator that it talks to, through ``simulator``."""

    def __init__(self, http: TestClient, simulator: TestClient, publisher: Publisher) -> None:
        self.http = http
        self.simulator = simulator
        self._publisher = publisher

    def permit(self, url: str, **changes: str) -> dict[str, str]:
        """As ``permit`` does, of the simulator."""
        return permit(self.simulator, url, **changes)

    def connect(self, platform: str) -> dict[str, Any]:
        """A newly connected account."""
        begun = self.http.post(f"/api/v1/platforms/{platform}/authorizations")
        assert begun.status_code == 201, begun.text
        brought = self.permit(begun.json()["url"])
        assert brought["state"] == begun.json()["state"]
        connected = self.http.post(f"/api/v1/platforms/{platform}/callback", json=brought)
        assert connected.status_code == 201, connected.text
        account: dict[str, Any] = connected.json()
        return account

    def publish(self) -> None:
        """Publish what is due."""
        portal = self.http.portal
        assert portal is not None
        portal.call(self._publisher.run)

    def turn(self, platform: str, **knobs: object) -> None:
        """Change how a platform behaves."""
        answer = self.simulator.put(f"/control/platforms/{platform}", json=knobs)
        assert answer.status_code == 200, answer.text


def permit(simulator: TestClient, url: str, **changes: str) -> dict[str, str]:
    """What a person brings back from the platform's page after having given the permission."""
    more = "".join(f"&{name}={text}" for name, text in changes.items())
    answer = simulator.get(url + more, follow_redirects=False)
    assert answer.status_code == 302, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def make_social_settings(directory: Path, **variables: str) -> Settings:
    """Settings for all platforms, behind the simulator."""
    keys, file = directory / "keys", directory / "platforms.json"
    keys.write_text(make_key())
    file.write_text(
        json.dumps({name: {"client_id": f"{name}-client", "client_secret": CLIENT_SECRET} for name in PLATFORMS})
    )
    files = {"ALLIN_TOKEN_KEYS_FILE": str(keys), "ALLIN_PLATFORMS_FILE": str(file)}
    # The tests say when something is published.
    patient = {"ALLIN_PUBLISH_INTERVAL_SECONDS": "60"}
    return make_settings(directory, ALLIN_PLATFORMS_URL=GATEWAY, **files, **(patient | variables))


def make_simulator() -> tuple[httpx2.AsyncBaseTransport, TestClient]:
    """The simulator: for the backend, and for a person and whoever changes how it behaves."""
    simulator = create_simulator(SimulatorSettings(hang_seconds=0.05))
    return httpx2.ASGITransport(simulator), TestClient(simulator, base_url=GATEWAY, client=("127.0.0.1", 1))


@contextmanager
def social(directory: Path, registry: CollectorRegistry, **variables: str) -> Iterator[Social]:
    """A backend that is set up for all platforms."""
    settings = make_social_settings(directory, **variables)
    transport, simulator = make_simulator()
    app = create_app(settings, registry, platforms_http=transport)
    with TestClient(app, raise_server_exceptions=False) as http:
        yield Social(http, simulator, app.state.publisher)
