"""Action `check_routes`: find routes that no alert reaches, and receivers that nobody is told by."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_routes
author: AllIN operations
short_description: Find mistakes in an Alertmanager's routes that amtool accepts
description:
  - Looks at a complete configuration on the controller, and fails once, with one line for each problem.
  - A problem is a route that no alert can reach, because routes before it take all of its alerts or because its
    matchers contradict each other; a receiver that no route names; a receiver that does not exist; two receivers of one
    name; a receiver that tells nobody; a time interval that is missing, or that nothing uses.
  - Decides by the matchers alone. A regular expression is compared by the values that equality matchers and plain
    alternatives name; what cannot be decided so is taken as reachable.
options:
  config:
    description: The configuration, with C(route), C(receivers) and C(time_intervals).
    type: dict
    required: true
  origins:
    description: Where each of the routes below the first one was written, for the message.
    type: list
    elements: str
    required: true
  silent:
    description: Receivers that are meant to tell nobody. C(*) stands for all.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse routes that no alert reaches
  check_routes:
    config: "{{ alertmanager_config }}"
    origins: "{{ origins }}"
    silent: [nobody]
"""

RETURN = r"""
problems:
  description: One line for each problem, as in the message.
  type: list
  elements: str
  returned: always
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MATCHER = re.compile(r"\s*(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?P<sign>=~|!~|!=|=)\s*(?P<value>.*?)\s*", re.DOTALL)
SPLIT = re.compile(r'((?:[^,"]|"(?:[^"\\]|\\.)*")+)(?:,|$)', re.DOTALL)
# A regular expression that is a list of plain values.
ALTERNATIVES = re.compile(r"\(?[\w .:/-]*(?:\|[\w .:/-]*)*\)?")


@dataclass(frozen=True)
class Matcher:
    """One matcher; `name` is empty and `value` the whole text where it is of a form that is not known here."""

    name: str
    sign: str
    value: str

    def accepts(self, value: str) -> bool | None:
        """Say whether a label of this value fits; nothing where that cannot be said."""
        if self.sign in ("=", "!="):
            return (value == self.value) == (self.sign == "=")
        try:
            found = re.fullmatch(self.value, value) is not None
        except re.error:
            return None
        return found == (self.sign == "=~")

    def values(self) -> list[str] | None:
        """Return the only values that fit; nothing where there is no such list."""
        if self.sign == "=":
            return [self.value]
        if self.sign == "=~" and ALTERNATIVES.fullmatch(self.value) and "." not in self.value:
            return self.value.strip("()").split("|")
        return None

    def follows_from(self, other: Matcher) -> bool:
        """Say whether every alert that `other` takes is taken by this one too."""
        if self == other:
            return True
        if not self.name or self.name != other.name:
            return False
        values = other.values()
        return values is not None and all(self.accepts(value) for value in values)

    def contradicts(self, other: Matcher) -> bool:
        """Say whether no alert can fit both."""
        if not self.name or self.name != other.name:
            return False
        for one, two in ((self, other), (other, self)):
            values = one.values()
            if values is not None and all(two.accepts(value) is False for value in values):
                return True
        return False

    def __str__(self) -> str:
        """Return it as a person writes it."""
        return f"{self.name} {self.sign} {self.value}" if self.name else self.value


def parse(text: str) -> Iterator[Matcher]:
    """Yield the matchers in one element of `matchers`, which may hold several."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1]
    for part in SPLIT.findall(inner):
        match = MATCHER.fullmatch(part)
        if match is None:
            yield Matcher("", "", part.strip())
            continue
        value = match["value"]
        if len(value) > 1 and value[0] == value[-1] == '"':
            try:
                value = json.loads(value)
            except ValueError:
                yield Matcher("", "", part.strip())
                continue
        yield Matcher(match["name"], match["sign"], value)


def matchers_of(route: Mapping[str, Any]) -> list[Matcher]:
    """Return the matchers of a route, in the new form and in both old ones."""
    found = [matcher for text in route.get("matchers") or [] for matcher in parse(str(text))]
    found += [Matcher(str(name), "=", str(value)) for name, value in (route.get("match") or {}).items()]
    found += [Matcher(str(name), "=~", str(value)) for name, value in (route.get("match_re") or {}).items()]
    return found


def words(matchers: Sequence[Matcher]) -> str:
    """Return matchers for a message."""
    return ", ".join(str(matcher) for matcher in matchers) or "no matchers"


def takes_all(earlier: Sequence[Matcher], later: Sequence[Matcher]) -> bool:
    """Say whether a route with the matchers `earlier` takes every alert that fits `later`."""
    return all(any(one.follows_from(other) for other in later) for one in earlier)


@dataclass(frozen=True)
class Place:
    """A route in the tree.

    Attributes:
        origin: where it was written.
        route: the route itself.
        own: its matchers.
        above: the matchers of the routes that it is in.
    """

    origin: str
    route: Mapping[str, Any]
    own: tuple[Matcher, ...]
    above: tuple[Matcher, ...]


class Checker:
    """Collects all problems of one configuration.

    Args:
        config: the configuration.
        origins: where each of the routes below the first one was written.
        silent: receivers that may tell nobody; `*` for all.
    """

    def __init__(self, config: Mapping[str, Any], origins: Sequence[str], silent: Sequence[str]) -> None:
        self.config = config
        self.origins = origins
        self.silent = silent
        self.receivers: list[Mapping[str, Any]] = list(config.get("receivers") or [])
        self.names = [str(one.get("name")) for one in self.receivers]
        self.problems: list[str] = []
        self.used_receivers: set[str] = set()
        self.used_intervals: set[str] = set()

    def check(self) -> list[str]:
        """Return all problems."""
        root = self.config["route"]
        self.see(Place("the first route", root, (), ()))
        routes = root.get("routes") or []
        self.check_level(routes, list(self.origins), ())
        self.check_receivers()
        self.check_intervals()
        return self.problems

    def check_level(
        self, routes: Sequence[Mapping[str, Any]], origins: Sequence[str], above: tuple[Matcher, ...]
    ) -> None:
        """Check routes that stand beside each other, and what is in them."""
        before: list[Place] = []
        for route, origin in zip(routes, origins, strict=True):
            place = Place(origin, route, tuple(matchers_of(route)), above)
            self.see(place)
            if self.is_reachable(place, before):
                inner = route.get("routes") or []
                self.check_level(inner, [f"{origin}.routes[{n}]" for n in range(len(inner))], above + place.own)
            before.append(place)

    def is_reachable(self, place: Place, before: Sequence[Place]) -> bool:
        """Note why no alert reaches a route; say whether one does."""
        everything = place.above + place.own
        for number, one in enumerate(everything):
            other = next((two for two in everything[number + 1 :] if one.contradicts(two)), None)
            if other is not None:
                self.problems.append(
                    f"{place.origin}: no alert reaches it, because none is both {one} and {other}. "
                    "Remove one of the two, or the route"
                )
                return False
        for earlier in before:
            if not earlier.route.get("continue") and takes_all(earlier.own, everything):
                self.problems.append(
                    f"{place.origin} ({words(place.own)}): no alert reaches it, because {earlier.origin} "
                    f"({words(earlier.own)}) comes before it and takes them all. {self.remedy(place, earlier)}"
                )
                return False
        return True

    @staticmethod
    def remedy(place: Place, earlier: Place) -> str:
        """Return what to write."""
        if "role's route" in earlier.origin:
            return "Remove the route"
        if place.own == earlier.own:
            return "Make one of the two, or write continue: true in the first"
        if not earlier.own:
            return (
                f"Give {earlier.origin} matchers, for example matchers: ['team = payments'], "
                "or write continue: true in it"
            )
        return "Put the narrower one first, or write continue: true in the other"

    def see(self, place: Place) -> None:
        """Check what a route names."""
        name = place.route.get("receiver")
        if name is not None:
            self.used_receivers.add(str(name))
            if str(name) not in self.names:
                self.problems.append(
                    f"{place.origin}: goes to the receiver {name}, which does not exist{meant(str(name), self.names)}. "
                    f"Write for example: alertmanager_extra_receivers: [{{name: {name}, webhook_configs: "
                    "[{url: 'https://hooks.your-company.com/alerts'}]}]"
                )
        known = [str(one.get("name")) for one in self.config.get("time_intervals") or []]
        for key in ("mute_time_intervals", "active_time_intervals"):
            for interval in place.route.get(key) or []:
                self.used_intervals.add(str(interval))
                if str(interval) not in known:
                    self.problems.append(
                        f"{place.origin}: {key} names {interval}, which does not exist{meant(str(interval), known)}. "
                        f"Write for example: alertmanager_time_intervals: [{{name: {interval}, time_intervals: "
                        "[{times: [{start_time: '22:00', end_time: '24:00'}]}]}]"
                    )

    def check_receivers(self) -> None:
        """Check that every receiver is named once, by a route, and tells somebody."""
        for number, name in enumerate(self.names):
            if name in self.names[:number]:
                self.problems.append(
                    f"alertmanager_extra_receivers: there are two receivers of the name {name}. Give one another name, "
                    f"for example {name}-2"
                )
            elif name not in self.used_receivers:
                self.problems.append(
                    f"alertmanager_extra_receivers: no route names the receiver {name}, so it is never told anything. "
                    f"Write for example: alertmanager_extra_routes: [{{matchers: ['team = payments'], "
                    f"receiver: {name}}}], or remove the receiver"
                )
            if "*" not in self.silent and name not in self.silent and not tells_somebody(self.receivers[number]):
                self.problems.append(f"{self.owner(name)}: the receiver {name} tells nobody. {self.cure(name)}")

    def owner(self, name: str) -> str:
        """Return the variable that a receiver comes from."""
        for place, route in zip(self.origins, self.config["route"].get("routes") or [], strict=True):
            if name in {route.get("receiver"), *(one.get("receiver") for one in route.get("routes") or [])}:
                return place.partition("[")[0] if place.startswith("alertmanager_extra_routes") else place
        return "alertmanager_extra_receivers"

    def cure(self, name: str) -> str:
        """Return what to write so that a receiver tells somebody."""
        owner = self.owner(name)
        if owner.startswith(("alertmanager_environments", "alertmanager_teams")):
            return "Give it for example: slack_channel: '#staging'"
        if owner.startswith("alertmanager_extra"):
            return "Give it for example: webhook_configs: [{url: 'https://hooks.your-company.com/alerts'}]"
        return (
            "Switch on alertmanager_slack_enabled or alertmanager_email_enabled, or write for example: "
            f"alertmanager_extra_integrations: {{{name}: {{webhook_configs: [{{url: 'https://hooks.your-company.com/alerts'}}]}}}}"
        )

    def check_intervals(self) -> None:
        """Check that every time interval is used: an unused one looks as if it muted something."""
        for one in self.config.get("time_intervals") or []:
            name = str(one.get("name"))
            if name not in self.used_intervals:
                self.problems.append(
                    f"alertmanager_time_intervals: nothing uses {name}, so it mutes nothing. Write for example: "
                    f"alertmanager_mute_times: {{warning: [{name}]}}, or remove it"
                )


def tells_somebody(receiver: Mapping[str, Any]) -> bool:
    """Say whether a receiver has a way out."""
    return any(name.endswith("_configs") and configs for name, configs in receiver.items())


def meant(name: str, known: Sequence[str]) -> str:
    """Return a guess at what was meant, for a message."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action plugin."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check; raise AnsibleActionFail with all problems."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "config": {"type": "dict", "required": True},
                "origins": {"type": "list", "elements": "str", "required": True},
                "silent": {"type": "list", "elements": "str", "default": []},
            }
        )
        problems = Checker(arguments["config"], arguments["origins"], arguments["silent"]).check()
        if problems:
            counted = "1 route or receiver" if len(problems) == 1 else f"{len(problems)} routes or receivers"
            raise AnsibleActionFail(
                "\n".join([f"{counted} cannot work as written:", *(f"- {problem}" for problem in problems)]),
                result={"problems": problems},
            )
        return {"changed": False, "problems": []}
