"""What others refer to: bookmarks, alerts, the role that deploys, and the tests. Changed, it breaks all of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

DATASOURCE: Final = "prometheus"
"""The uid under which the role grafana provisions the data source."""

TAG: Final = "allin"
"""On every dashboard: the links in their headers list what has it."""

WATCHDOG: Final = "Watchdog"
"""The alert that always fires; no sign of trouble."""


class Folder(StrEnum):
    """Folders of Grafana, by the directory that holds their dashboards."""

    PLATFORM = "platform"
    INFRASTRUCTURE = "infrastructure"


class Uid(StrEnum):
    """The dashboards; the uid is in each address and in the links of alerts."""

    OVERVIEW = "allin-overview"
    BUSINESS = "allin-business"
    THIRD_PARTY = "allin-third-party"
    ALERTS = "allin-alerts"
    HOSTS = "allin-hosts"
    CONTAINERS = "allin-containers"
    MONITORING = "allin-monitoring"
