"""Every panel of every dashboard, asked of the Prometheus that was deployed."""

from __future__ import annotations

import dashboard_queries
from apis import Prometheus
from waiting import eventually


def test_every_panel_has_something_to_show(prometheus: Prometheus) -> None:
    """Prevents: a panel that is empty because its query names what nobody exports, or selects nothing."""
    eventually(
        lambda: dashboard_queries.complaints(prometheus),
        lambda found: not found,
        within=300,
        what="every query of every dashboard has data, or an excuse in molecule/shared/dashboard_queries.py",
    )
