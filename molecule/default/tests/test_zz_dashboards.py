"""Every panel of every dashboard, asked of the Prometheus that was deployed.

The last of the scenario's tests: the others make the requests that they count, and here people do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dashboard_queries
import pytest
from apis import Prometheus
from waiting import eventually

UNIT = "allin-test-traffic"


@pytest.fixture
def people(host: Any) -> Iterator[None]:
    """People who use the backend, until the test is over; systemd ends them even if it is not."""
    started = host.run(
        f"systemd-run --unit={UNIT} --uid=allin-backend --property=RuntimeMaxSec=360 "
        "/opt/allin-backend/current/bin/allin-traffic --url http://127.0.0.1:7000 --rate 20 --people 25 --shape flat"
    )
    assert started.rc == 0, started.stderr
    yield
    host.run(f"systemctl stop {UNIT}.service")


@pytest.mark.usefixtures("people")
def test_every_panel_has_something_to_show(prometheus: Prometheus) -> None:
    """Prevents: a panel that is empty because its query names what nobody exports, or selects nothing."""
    eventually(
        lambda: dashboard_queries.complaints(prometheus),
        lambda found: not found,
        within=300,
        what="every query of every dashboard has data, or an excuse in molecule/shared/dashboard_queries.py",
    )
