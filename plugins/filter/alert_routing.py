"""Filter `alert_routing`: routes and receivers of an Alertmanager, from what an inventory says of who is told what.

`alert_integrations` says of one alert by which ways it is told, for whoever proves that it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: alert_routing
author: AllIN operations
short_description: Routes and receivers of an Alertmanager, from what an inventory says of who is told what
description:
  - Alerts are told by severity. An environment or a team that is named has receivers of its own, and an alert goes to
    the first of these that it fits - the Watchdog's receiver, the user's own routes, its environment's, its team's,
    the general ones.
  - What an environment does not name, it does not have, so that nobody is woken by a trial. What a team does not name
    is taken from the general settings, so that its alerts are not lost.
options:
  _input:
    description:
      - The settings, named as the role's variables without their prefix. C(slack_channel) and C(email_to) are empty
        where Slack or mail are switched off.
    type: dict
    required: true
  slack:
    description: What every entry of C(slack_configs) says beside its channel.
    type: dict
    required: true
  mail:
    description: What every entry of C(email_configs) says beside its addresses.
    type: dict
    required: true
"""

EXAMPLES = r"""
routing: "{{ settings | alert_routing(slack={'send_resolved': true}, mail={'send_resolved': true}) }}"
"""

RETURN = r"""
_value:
  description:
    - C(route), C(receivers) and C(time_intervals) as Alertmanager wants them, and C(origins), which says of each route
      below the first where it comes from.
  type: dict
"""

SEVERITIES = ("critical", "warning", "info")
NOBODY = "nobody"
HEARTBEAT = "heartbeat"
DAILY = "daily-mail"
# The mail's group is looked at once in an interval; the window is a little longer, so that one look falls into it.
DAILY_WINDOW_MINUTES = 15
DAILY_INTERVAL = "14m"
DAILY_REPEAT = "20h"
MINUTES_OF_A_DAY = 24 * 60


@dataclass(frozen=True)
class Audience:
    """Those who are told: everybody, or those of one environment or one team."""

    prefix: str
    slack_channels: Mapping[str, str]
    email_to: tuple[str, ...]
    integrations: Mapping[str, Mapping[str, Any]]
    mute_times: Mapping[str, list[str]] = field(default_factory=dict)

    def slack_channel(self, severity: str) -> str:
        """Return the channel of a severity, empty where there is none."""
        return self.slack_channels.get(severity, "")


def matcher(label: str, value: str) -> str:
    """Return a matcher of exactly this value, whatever is in it."""
    return f"{label} = {json.dumps(value, ensure_ascii=False)}"


def time_of_day(minute: int) -> str:
    """Return a minute of the day as Alertmanager writes it."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


def daily_window(start: str, location: str) -> dict[str, Any]:
    """Return the time interval in which the daily mail goes out; it may go over midnight."""
    hours, minutes = start.split(":")
    first = int(hours) * 60 + int(minutes)
    last = first + DAILY_WINDOW_MINUTES
    ranges = [(first, min(last, MINUTES_OF_A_DAY))]
    if last > MINUTES_OF_A_DAY:
        ranges.append((0, last - MINUTES_OF_A_DAY))
    times = [{"start_time": time_of_day(begin), "end_time": time_of_day(end)} for begin, end in ranges]
    return {"name": DAILY, "time_intervals": [{"times": times, "location": location}]}


class Routing:
    """Builds the routes and receivers.

    Args:
        settings: the role's variables without their prefix.
        slack: what every Slack message's configuration says beside its channel.
        mail: what every mail's configuration says beside its addresses.
    """

    def __init__(self, settings: Mapping[str, Any], slack: Mapping[str, Any], mail: Mapping[str, Any]) -> None:
        self.settings = settings
        self.slack = slack
        self.mail = mail
        self.receivers: dict[str, dict[str, Any]] = {}
        self.daily = False

    def everybody(self) -> Audience:
        """Return those who are told what no environment and no team is told."""
        channel = self.settings["slack_channel"]
        channels = {severity: channel for severity in SEVERITIES if channel}
        if channels:
            channels |= {name: one for name, one in self.settings["slack_channels"].items() if one}
        return Audience(
            prefix="",
            slack_channels=channels,
            email_to=tuple(self.settings["email_to"]),
            integrations=self.settings["extra_integrations"],
            mute_times=self.settings["mute_times"],
        )

    def named(self, label: str, entry: Mapping[str, Any], otherwise: Audience | None) -> Audience:
        """Return those of one environment or team; what it does not name is taken from `otherwise`."""
        channel = entry.get("slack_channel") if self.settings["slack_channel"] else ""
        addresses = entry.get("email_to") if self.settings["email_enabled"] else []
        mute_times = entry.get("mute_times")
        return Audience(
            prefix=f"{label}-{entry['name']}-",
            slack_channels=dict.fromkeys(SEVERITIES, channel)
            if channel
            else (otherwise.slack_channels if otherwise else {}),
            email_to=tuple(addresses or (otherwise.email_to if otherwise else ())),
            integrations=entry.get("extra_integrations") or (otherwise.integrations if otherwise else {}),
            mute_times=mute_times if mute_times is not None else (otherwise.mute_times if otherwise else {}),
        )

    def add_receiver(self, audience: Audience, severity: str) -> str:
        """Make the receiver of a severity; return its name."""
        # Only people are left out: what an inventory names beside Slack and mail gets all of its severity.
        no_people = severity == "info" and self.settings["info_to"] == NOBODY
        integrations = audience.integrations.get(severity) or {}
        if no_people and not any(integrations.values()):
            self.receivers.setdefault(NOBODY, {"name": NOBODY})
            return NOBODY
        name = f"{audience.prefix}{severity}"
        receiver: dict[str, Any] = {"name": name}
        channel = "" if no_people else audience.slack_channel(severity)
        daily = self.is_daily(audience, severity)
        if channel and not daily:
            receiver["slack_configs"] = [{"channel": channel, **self.slack}]
        # Mail is for what must not be overlooked; where there is no Slack it takes all.
        if audience.email_to and not no_people and (severity == "critical" or daily or not channel):
            config = {"to": ", ".join(audience.email_to), **self.mail}
            if daily:
                config["send_resolved"] = False
            receiver["email_configs"] = [config]
        for kind, configs in integrations.items():
            receiver[kind] = [*receiver.get(kind, []), *configs]
        self.receivers[name] = receiver
        return name

    def is_daily(self, audience: Audience, severity: str) -> bool:
        """Say whether these are told once a day, by mail."""
        return severity == "info" and self.settings["info_to"] == "daily_mail" and bool(audience.email_to)

    def severity_route(self, audience: Audience, severity: str) -> dict[str, Any]:
        """Return the route of one severity, and make its receiver."""
        route: dict[str, Any] = {
            "matchers": [matcher("severity", severity)],
            "receiver": self.add_receiver(audience, severity),
        }
        if severity == "critical":
            route["group_wait"] = self.settings["group_wait_critical"]
            route["group_interval"] = self.settings["group_interval_critical"]
            route["repeat_interval"] = self.settings["repeat_interval_critical"]
        if self.is_daily(audience, severity):
            self.daily = True
            route |= {
                "group_by": ["environment"],
                "group_interval": DAILY_INTERVAL,
                "repeat_interval": DAILY_REPEAT,
                "active_time_intervals": [DAILY],
            }
        if audience.mute_times.get(severity):
            route["mute_time_intervals"] = list(audience.mute_times[severity])
        return route

    def watchdog_route(self) -> dict[str, Any]:
        """Return the route of the alert that always fires."""
        seconds = int(self.settings["heartbeat_interval_seconds"])
        if not self.settings["heartbeat"]:
            self.receivers[NOBODY] = {"name": NOBODY}
            return {"matchers": [matcher("alertname", "Watchdog")], "receiver": NOBODY}
        self.receivers[HEARTBEAT] = {
            "name": HEARTBEAT,
            # The end of the Watchdog is no sign of life.
            "webhook_configs": [{**self.settings["heartbeat"], "send_resolved": False, "max_alerts": 1}],
        }
        return {
            "matchers": [matcher("alertname", "Watchdog")],
            "receiver": HEARTBEAT,
            "group_wait": "0s",
            "group_interval": f"{seconds}s",
            # Shorter than the interval, or every second one would find that it is not yet time; long enough that the
            # other members of a cluster, who look some seconds later, find that it was sent.
            "repeat_interval": f"{max(1, seconds // 2)}s",
        }

    def audience_routes(self, everybody: Audience) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the routes of environments and teams, with where each comes from."""
        for label, variable, otherwise in (
            ("environment", "environments", None),
            ("team", "teams", everybody),
        ):
            for number, entry in enumerate(self.settings[variable]):
                audience = self.named(label, entry, otherwise)
                routes = [self.severity_route(audience, severity) for severity in SEVERITIES]
                yield (
                    f"alertmanager_{variable}[{number}]",
                    {
                        "matchers": [matcher(label, entry["name"])],
                        # As everywhere: a severity that we do not know is shown, not lost.
                        "receiver": f"{audience.prefix}warning",
                        "routes": routes,
                    },
                )

    def build(self) -> dict[str, Any]:
        """Return everything."""
        everybody = self.everybody()
        found: list[tuple[str, dict[str, Any]]] = [("the role's route of the Watchdog", self.watchdog_route())]
        found += [
            (f"alertmanager_extra_routes[{number}]", dict(route))
            for number, route in enumerate(self.settings["extra_routes"])
        ]
        found += self.audience_routes(everybody)
        found += [
            (f"the role's route of severity {severity}", self.severity_route(everybody, severity))
            for severity in SEVERITIES
        ]
        intervals = list(self.settings["time_intervals"])
        if self.daily:
            intervals.append(daily_window(self.settings["daily_mail_time"], self.settings["daily_mail_location"]))
        receivers = [*self.receivers.values(), *self.settings["extra_receivers"]]
        if not self.settings["notify"]:
            # Whoever named them, here all ways end; the routes stay as they will be.
            receivers = [{"name": one["name"]} for one in receivers]
        return {
            "route": {
                # An alert without a severity that we know is shown, not lost.
                "receiver": "warning",
                "group_by": list(self.settings["group_by"]),
                "group_wait": self.settings["group_wait"],
                "group_interval": self.settings["group_interval"],
                "repeat_interval": self.settings["repeat_interval"],
                "routes": [route for _, route in found],
            },
            "receivers": receivers,
            "time_intervals": intervals,
            "origins": [origin for origin, _ in found],
        }


def alert_routing(settings: Mapping[str, Any], slack: Mapping[str, Any], mail: Mapping[str, Any]) -> dict[str, Any]:
    """Return routes, receivers and time intervals, and where each route comes from.

    Raises:
        AnsibleFilterError: a setting is missing or of another kind than it must be.
    """
    try:
        return Routing(settings, slack, mail).build()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnsibleFilterError(f"alert_routing: {type(error).__name__}: {error}") from error


def alert_integrations(variables: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """Return by which integrations an alert is told at once, by Alertmanager's names.

    Args:
        variables: those of a host of Alertmanager, as the inventory has them; what is missing has the role's default.
        labels: of the alert; `severity`, `environment` and `team` matter.

    What C(alertmanager_extra_routes) leads elsewhere is not seen. Empty where nobody is told, or only once a day.

    Raises:
        AnsibleFilterError: a variable is of another kind than it must be.
    """

    def of(name: str, default: Any) -> Any:
        return variables.get(f"alertmanager_{name}", default)

    notify = of("notify", True)
    email = notify and of("email_enabled", True)
    settings = {
        # Any name will do: only whether there is a channel matters.
        "slack_channel": (of("slack_channel", "") or "#") if notify and of("slack_enabled", True) else "",
        "slack_channels": of("slack_channels", {}),
        "email_enabled": email,
        "email_to": of("email_to", []) if email else [],
        "info_to": of("info_to", "slack"),
        "extra_integrations": of("extra_integrations", {}) if notify else {},
        "mute_times": {},
    }
    severity = labels.get("severity", "")
    severity = severity if severity in SEVERITIES else "warning"
    try:
        routing = Routing(settings, {}, {})
        audience = everybody = routing.everybody()
        for label, variable, otherwise in (("team", "teams", everybody), ("environment", "environments", None)):
            named = [entry for entry in of(variable, []) if entry["name"] == labels.get(label)]
            if named:
                audience = routing.named(label, named[0], otherwise)
        receiver = routing.receivers[routing.add_receiver(audience, severity)]
        ways = [kind.removesuffix("_configs") for kind in receiver if kind != "name"]
        return [] if not notify or routing.is_daily(audience, severity) else ways
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnsibleFilterError(f"alert_integrations: {type(error).__name__}: {error}") from error


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"alert_routing": alert_routing, "alert_integrations": alert_integrations}
