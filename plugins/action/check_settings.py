"""Action `check_settings`: check all settings of a role on the controller, and report every problem at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_settings
author: AllIN operations
short_description: Check all settings of a role at once, with an example for each mistake
description:
  - Checks what the user set for a role against the role's C(meta/argument_specs.yml) (entry point C(main)) and against
    formats that a specification cannot express, and fails once, with one line for each problem.
  - Runs on the controller only. It needs no connection and no facts, and does the same in check mode.
  - Stricter than Ansible itself where Ansible would convert the value for its check only, and the role would get the
    unconverted one. A text is no list and no mapping, and a list is no text.
  - Finds misspelled names too, since every variable that starts with the name of the role must be in its specification.
  - The value of a setting with C(no_log), or from a vault, is never shown.
  - May be used outside of the role, for example in a first play. Defaults of the role are then taken from its files.
  - A setting whose template needs facts, where none were gathered, is left out and named in RV(unchecked). One that
    needs facts which the playbooks do not gather is refused then.
options:
  role:
    description: Name of the role, in the roles path or beside the playbook.
    type: str
    required: true
  formats:
    description:
      - Formats by setting, one or a list of them. A nested setting is written with dots, an element of a list as C([]).
      - Not applied to what is not set or null, nor to an empty value that is the default in the specification.
      - V(not_empty), V(not_empty_list), V(not_placeholder) and V(not_placeholder_list) refuse such an empty default
        too, and null in place of any default.
      - V(flag) is applied to every setting of the type bool, without being named here.
      - Applied to a list, a format for single values is applied to each element.
      - In what a specification leaves to others, a mapping or list without C(options), a format is applied where the
        key is there.
      - The names are the keys of C(FORMATS) in this file.
    type: dict
    default: {}
  not_longer:
    description:
      - Durations by setting, with the setting that each must not be longer than, or a list of which the first that is
        set counts. A setting of each element of a list is written C(jobs[].timeout); a limit may stand in the same
        element.
    type: dict
    default: {}
  allow:
    description: Other variables that may start with the name of the role. C(*) stands for any characters.
    type: list
    elements: str
    default: []
  renamed:
    description: New names by old name, for settings that were renamed. Empty for one that was removed.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Check the settings
  check_settings:
    role: prometheus
    formats:
      prometheus_port: port
      prometheus_external_url: [url, not_placeholder]
      prometheus_scrape_jobs[].name: label_name
      prometheus_external_labels.environment: not_empty
    renamed:
      prometheus_retention: prometheus_retention_time
"""

RETURN = r"""
problems:
  description: One line for each problem, as in the message.
  type: list
  elements: str
  returned: always
unchecked:
  description: Settings whose template cannot be resolved yet, because it needs facts or a setting that is missing.
  type: list
  elements: str
  returned: always
"""

import difflib
import fnmatch
import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import yaml
from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleUndefinedVariable, AnsibleValueOmittedError
from ansible.module_utils import errors as core_errors
from ansible.module_utils.common import validation
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

try:  # Where a value was set and whether it came from a vault; without these only the hints are missing.
    from ansible._internal._datatag._tags import Origin, VaultedValue
except ImportError:
    Origin = VaultedValue = None

Spec = Mapping[str, Any]
PathPart = str | int
HIDDEN = "the secret value (not shown)"
SHOWN_LENGTH = 80
FEW_NAMES = 4
"""As many are named, where a name is close to none of them."""


# Formats: each check returns what is wrong, to be put behind the value, or nothing. It never repeats the value.


@dataclass(frozen=True)
class Format:
    """One format: its check, an example in YAML, and whether the check wants a list whole."""

    check: Callable[[object], str | None]
    example: str
    whole: bool = False
    demands: bool = False  # an empty value is a problem, even where it is the default
    meant: bool = False  # the example is what the refused value was to say


def as_int(value: object) -> int | None:
    """Return a whole number, or a text that is one; nothing for anything else, true and false included."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    return None


def as_number(value: object) -> float | None:
    """Return a finite number, or a text that is one; nothing for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def is_host_name(value: str) -> bool:
    """Say whether `value` is a host name by RFC 1123. A last part of digits only would be a broken IPv4 address."""
    labels = value.rstrip(".").split(".")
    return (
        0 < len(value) <= 253
        and all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", label) for label in labels)
        and not labels[-1].isdigit()
    )


def is_ip(value: str) -> bool:
    """Say whether `value` is an IPv4 address or an IPv6 address without brackets."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def is_host(value: str) -> bool:
    """Say whether `value` is an IP address or a host name."""
    return is_ip(value) or is_host_name(value)


def check_port(value: object) -> str | None:
    """TCP or UDP port."""
    number = as_int(value)
    if number is None:
        return "is not a port, a whole number from 1 to 65535"
    return None if 1 <= number <= 65535 else "is out of range, a port is 1 to 65535"


DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
DURATION_MS = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1000, 1)
DURATION_WORDS = (
    "is not a duration (a number and a unit: ms, s, m, h, d, w, y; units may be joined from large to small)"
)
LONGEST_MS = (2**63 - 1) // 1_000_000  # Prometheus counts nanoseconds in 64 bits


def duration_ms(value: object) -> int | None:
    """Return a duration in Prometheus's syntax as milliseconds, nothing when it is none."""
    text = str(value) if as_int(value) == 0 else value
    if text == "0":
        return 0
    if not isinstance(text, str) or not text:
        return None
    match = DURATION.fullmatch(text)
    if match is None:
        return None
    return sum(int(count or 0) * unit for count, unit in zip(match.groups(), DURATION_MS, strict=True))


def check_duration_or_zero(value: object) -> str | None:
    """Duration as Prometheus and Alertmanager read it; 0 is one."""
    length = duration_ms(value)
    if length is None:
        return DURATION_WORDS
    return None if length <= LONGEST_MS else "is too long, Prometheus counts up to 292 years"


def check_duration(value: object) -> str | None:
    """Duration as Prometheus and Alertmanager read it, longer than 0."""
    return (
        "is zero, a duration longer than that is needed" if duration_ms(value) == 0 else check_duration_or_zero(value)
    )


def check_scrape_interval(value: object) -> str | None:
    """Time between two scrapes, so short that one that fails does not hide the target from Prometheus."""
    length = duration_ms(value)
    # Prometheus forgets a sample after five minutes, and rates over five minutes need two of them.
    too_long = length is not None and length > 2 * 60_000
    return "is too long, Prometheus forgets a sample after 5 minutes; at most 2m" if too_long else check_duration(value)


def check_time_of_day(value: object) -> str | None:
    """Hour and minute."""
    if isinstance(value, int):
        return "is a number to YAML, which counts 18:00 in sixties; put it in quotes"
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        return None
    return "is not a time of day (hours and minutes, 00:00 to 23:59, in quotes)"


def check_time_zone(value: object) -> str | None:
    """Name of a time zone in the IANA's database, or what Alertmanager takes for the host's own or, empty, for UTC."""
    if value in ("Local", ""):
        return None
    try:
        ZoneInfo(str(value))
    except (KeyError, ValueError, OSError):
        # A machine without the database knows none of them.
        return "is not a time zone (region/city, or UTC)" if available_timezones() else None
    return None


def check_size(value: object) -> str | None:
    """Size as Prometheus reads it, such as 10GB."""
    match = re.fullmatch(r"([0-9]+)([KMGTPE]?B)", value) if isinstance(value, str) else None
    if match is None:
        return "is not a size (a whole number and a unit: B, KB, MB, GB, TB, PB, EB)"
    if int(match[1]) == 0:
        return "is zero, a size larger than that is needed"
    too_large = int(match[1]) << 10 * "BKMGTPE".index(match[2][0]) >= 2**63
    return "is too large, Prometheus counts up to 8EB" if too_large else None


def check_size_or_zero(value: object) -> str | None:
    """Size as Prometheus reads it, or 0 for none."""
    return None if as_int(value) == 0 or value == "0B" else check_size(value)


def check_listen_address(value: object) -> str | None:
    """IP address or host name, without a port."""
    if isinstance(value, str) and is_host(value):
        return None
    return "is not an address to listen on (an IP address or a host name, without port and brackets)"


def split_host_port(value: str) -> tuple[str, str]:
    """Split `host:port` or `[address]:port`."""
    host, _, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        inner = host[1:-1]
        return (inner if ":" in inner else ""), port
    return ("" if ":" in host else host), port


def check_host_port(value: object) -> str | None:
    """Host and port."""
    words = "is not a host and a port (host:port, or [address]:port for IPv6)"
    if not isinstance(value, str):
        return words
    host, port = split_host_port(value)
    if not is_host(host) or as_int(port) is None:
        return words
    return None if check_port(port) is None else "has a port out of range, a port is 1 to 65535"


def check_url(value: object) -> str | None:
    """Web address."""
    words = "is not a web address (http:// or https://, a host, and perhaps a port and a path)"
    if not isinstance(value, str) or re.search(r"[\s\x00-\x1f]", value):
        return words
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return words
    right = parts.scheme in ("http", "https") and is_host(parts.hostname or "") and port != 0
    return None if right else words


def check_url_or_empty(value: object) -> str | None:
    """Web address, or nothing."""
    return None if value == "" else check_url(value)


def check_url_base(value: object) -> str | None:
    """Beginning of web addresses, or a path in this repository, whose first part does not look like a host."""
    if isinstance(value, str) and re.fullmatch(r"[\w-]+(/[\w.-]+)*/?", value, re.ASCII):
        return None
    if check_url(value) is None:
        return None
    return "is neither a web address (http:// or https://, a host, and perhaps a path) nor a path in this repository"


def check_absolute_path(value: object) -> str | None:
    """Absolute path."""
    words = "is not an absolute path (it starts with / and has no .. in it)"
    if not isinstance(value, str) or not value.startswith("/") or re.search(r"[\x00-\x1f]", value):
        return words
    return words if ".." in value.split("/") else None


def is_email(value: object) -> bool:
    """Say whether `value` is one plain mail address."""
    if not isinstance(value, str):
        return False
    local, _, domain = value.rpartition("@")
    return bool(re.fullmatch(r"[^\s@<>(),;:\\\"\[\]]{1,64}", local)) and is_host_name(domain)


def check_email(value: object) -> str | None:
    """Mail address."""
    return None if is_email(value) else "is not a mail address (name@host)"


def check_email_list(value: object) -> str | None:
    """Mail addresses, as a list or as a text with commas between them."""
    addresses: object = value
    if isinstance(value, str):
        addresses = [part.strip() for part in value.split(",")]
    if isinstance(addresses, list) and all(is_email(address) for address in addresses):
        return None
    return "is not a list of mail addresses (name@host)"


def check_slack_channel(value: object) -> str | None:
    """Slack channel, user or their id."""
    words = "is not a Slack channel (#name in small letters and in quotes, @user, or an id such as C0123456789)"
    pattern = r"#[^\sA-Z#@,.]{1,80}|@[A-Za-z0-9._-]{1,80}|[CDGUW][A-Z0-9]{8,}"
    return None if isinstance(value, str) and re.fullmatch(pattern, value) else words


LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def check_label_name(value: object) -> str | None:
    """Name of a Prometheus label."""
    if not isinstance(value, str) or not LABEL_NAME.fullmatch(value):
        return "is not a label name (letters, digits and _, not starting with a digit)"
    return "starts with __, which Prometheus keeps for itself" if value.startswith("__") else None


def check_label_map(value: object) -> str | None:
    """Prometheus labels with their values."""
    if not isinstance(value, Mapping):
        return "is not a mapping of label names to texts"
    for name, text in value.items():
        wrong = check_label_name(name)
        if wrong is not None:
            return f"has a label whose name {wrong}"
        if not isinstance(text, str):
            return f"has a value for label {name} that is no text, put it in quotes"
    return None


def check_version(value: object) -> str | None:
    """Version, numbers joined by dots."""
    if isinstance(value, float):
        return "is a number to YAML, which drops zeros at the end; put the version in quotes"
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)+", value):
        return None
    return "is not a version (numbers joined by dots, without v)"


def check_sha256(value: object) -> str | None:
    """SHA-256 in hexadecimal."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return None
    return "is not a SHA-256 (64 hexadecimal digits)"


def check_ratio(value: object) -> str | None:
    """Number from 0 to 1."""
    number = as_number(value)
    if number is None:
        return "is not a number from 0 to 1"
    return None if 0 <= number <= 1 else "is out of range, a ratio is 0 to 1"


def check_share(value: object) -> str | None:
    """Part of a whole: neither nothing nor all of it."""
    number = as_number(value)
    words = "is not a share, a number between 0 and 1, and neither of them (5 % is 0.05)"
    return None if number is not None and 0 < number < 1 else words


def check_share_or_all(value: object) -> str | None:
    """Part of a whole, or the whole."""
    number = as_number(value)
    words = "is not a share, a number above 0 and at most 1 (5 % is 0.05)"
    return None if number is not None and 0 < number <= 1 else words


def check_zero_or_more(value: object) -> str | None:
    """Number that is not negative."""
    number = as_number(value)
    return None if number is not None and number >= 0 else "is not a number of 0 or more"


def check_positive(value: object) -> str | None:
    """Number above 0."""
    number = as_number(value)
    return None if number is not None and number > 0 else "is not a number above 0"


def check_unix_mode(value: object) -> str | None:
    """Octal permissions."""
    if isinstance(value, int):
        return "is a number to YAML, which may read it as another mode; put it in quotes"
    if isinstance(value, str) and re.fullmatch(r"[0-7]?[0-7]{3}", value):
        return None
    return "is not a file mode (three or four octal digits in quotes)"


def check_system_user(value: object) -> str | None:
    """Name of a Unix account."""
    if isinstance(value, str) and re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}\$?", value) and len(value) <= 32:
        return None
    return "is not the name of an account (small letters, digits, _ and -, at most 32, not starting with a digit)"


def as_name(value: object) -> str:
    """Return a text, or a number as one; an empty text for anything else."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def check_grafana_uid(value: object) -> str | None:
    """Name of a folder, or of what else Grafana knows by a name that stays."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", as_name(value)):
        return "is not a uid of Grafana's (letters, digits, _ and -, at most 40)"
    return "is Grafana's own uid" if value in ("general", "sharedwithme") else None


def check_name_of_file(value: object) -> str | None:
    """Name that becomes a part of a file's name, with a dot behind it."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", as_name(value)):
        return None
    return "is not a name for a file (letters, digits, _ and -, starting with a letter or digit)"


def check_flag(value: object) -> str | None:
    """True or false, which roles may ask for as it stands; a text is never false there."""
    words = "is a text, which may count as true; write it without quotes, and behind -e as JSON"
    means_false = isinstance(value, str) and value.strip().lower() in ("false", "no", "off", "n", "f", "0")
    return words if means_false else None


def check_not_empty(value: object) -> str | None:
    """Anything but nothing and blanks."""
    if isinstance(value, (bool, float)):
        return "is not a text to YAML; put it in quotes"
    return None if as_name(value).strip() else "is empty, a name is needed"


def check_not_empty_list(value: object) -> str | None:
    """List, or mapping, of at least one."""
    return None if isinstance(value, (list, Mapping)) and value else "has no entry, at least one is needed"


PLACEHOLDER = re.compile(
    r"""
      (?:change|replace|fill|insert|put)[-_ ]?(?:me|this|it|with|here|in)(?![a-z])
    | (?<![a-z0-9])x{3,}(?![a-z0-9])        # xxx, services/XXX/YYY
    | (?<![a-z0-9])[tbcu]0{6,}(?![a-z0-9])  # Slack's documented ids T00000000, B00000000
    | (?<![a-z0-9])your[-_ ]                # your-token, your_company.com
    | (?:^|[/@.=: ])<[^<>@]+>               # <webhook>, https://<host>/
    | (?:\.\.\.|…)$
    | ^(?:todo|fixme)\b
    | ^your(?:s|\w*(?:token|key|password|secret|url|name|company))$
    | ^(?:example|sample|dummy|placeholder|tbd|tba|none|null|undefined|password|passwd|secret)$
    | ^example[-_. ]
    """,
    re.IGNORECASE | re.VERBOSE,
)
# Reserved for documentation by RFC 2606, 6761, 5737 and 3849: nothing sent there arrives.
DOCUMENTATION_HOST = re.compile(
    r"""
    (?:^|[@/\s.,<])
    (?:[a-z0-9-]+\.)*(?:example\.(?:com|org|net|edu)|[a-z0-9-]+\.(?:example|invalid))
    \.?(?=$|[:/?\#\s,>\])])
    """,
    re.IGNORECASE | re.VERBOSE,
)
DOCUMENTATION_IP = re.compile(
    r"(?<![0-9.])(?:192\.0\.2|198\.51\.100|203\.0\.113)\.[0-9]{1,3}(?![0-9.])|(?<![0-9a-f:])2001:0?db8:", re.IGNORECASE
)
NOT_SET = "required, and not set"


def check_not_placeholder(value: object) -> str | None:
    """Value that somebody really chose."""
    text = str(value).strip() if isinstance(value, (str, int, float)) else value
    if text in ("", None) or text == [] or text == {}:
        return NOT_SET
    if not isinstance(text, str):
        return check_not_placeholder_list(text)
    if PLACEHOLDER.search(text):
        return "is a placeholder, put the real value there"
    if DOCUMENTATION_HOST.search(text) or DOCUMENTATION_IP.search(text):
        return "is an address for documentation only, which reaches nobody; put the real one there"
    return None


def check_reachable(value: object) -> str | None:
    """Nothing, or an address at which something may answer."""
    if isinstance(value, str) and (DOCUMENTATION_HOST.search(value) or DOCUMENTATION_IP.search(value)):
        return "is an address for documentation only, at which nothing answers; put the real one there"
    return None


def check_not_placeholder_list(value: object) -> str | None:
    """List, or mapping, of values that somebody really chose, at least one."""
    if isinstance(value, str):
        return check_not_placeholder(value)
    if not isinstance(value, (list, Mapping)) or not value:
        return NOT_SET
    for element in value.values() if isinstance(value, Mapping) else value:
        wrong = check_not_placeholder(element)
        if wrong == NOT_SET:
            return "has an empty element"
        if wrong is not None:
            return f"has an element that {wrong}"
    return None


def check_secret(value: object) -> str | None:
    """Password of one line, which somebody really chose."""
    if not isinstance(value, str) or not value.strip() or re.search(r"[\x00-\x1f\x7f]", value):
        return "is not a text of one line"
    return "is a placeholder, put the real value there" if PLACEHOLDER.search(value) else None


def check_password(value: object) -> str | None:
    """Password that nobody guesses: what `secret` wants, and long."""
    wrong = check_secret(value)
    if wrong is None and len(str(value)) < 12:
        return "is too short, at least 12 characters are needed"
    return wrong


def check_fernet_key(value: object) -> str | None:
    """Key of Fernet, 32 bytes in URL-safe Base64."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{43}=", value):
        return None
    return "is not a key of Fernet (44 characters, as `allin-backend make-token-key` prints one)"


def check_cache_url(value: object) -> str | None:
    """Where the backend's cache is."""
    words = "is not a cache (memory: or a Redis server, redis://host:port/number, rediss:// with TLS)"
    if value == "memory:":
        return None
    if not isinstance(value, str) or not re.match(r"rediss?://", value):
        return words
    try:
        path = urlsplit(value).path
    except ValueError:
        return words
    same = re.sub(r"^redis", "http", value)
    return None if check_url(same) is None and re.fullmatch(r"(/[0-9]{0,3})?", path) else words


FORMATS: dict[str, Format] = {
    "port": Format(check_port, "9090"),
    "duration": Format(check_duration, "30s"),
    "scrape_interval": Format(check_scrape_interval, "15s"),
    "duration_or_zero": Format(check_duration_or_zero, "30s"),
    "size": Format(check_size, "10GB"),
    "size_or_zero": Format(check_size_or_zero, "10GB"),
    "listen_address": Format(check_listen_address, "127.0.0.1"),
    "host_port": Format(check_host_port, "mail.your-company.com:587"),
    "url": Format(check_url, "https://monitoring.your-company.com"),
    "url_or_empty": Format(check_url_or_empty, "https://monitoring.your-company.com"),
    "reachable": Format(check_reachable, ""),
    "url_base": Format(check_url_base, "https://git.your-company.com/monitoring"),
    "absolute_path": Format(check_absolute_path, "/var/lib/name"),
    "email": Format(check_email, "on-call@your-company.com"),
    "email_list": Format(check_email_list, "[on-call@your-company.com]", whole=True),
    "slack_channel": Format(check_slack_channel, "'#alerts'"),
    "label_name": Format(check_label_name, "region"),
    "label_map": Format(check_label_map, "{region: eu-west}", whole=True),
    "version": Format(check_version, "1.2.3"),
    "sha256": Format(check_sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    "time_of_day": Format(check_time_of_day, "'08:00'"),
    "time_zone": Format(check_time_zone, "Europe/Berlin"),
    "flag": Format(check_flag, "false", meant=True),
    "not_empty": Format(check_not_empty, "production", demands=True),
    "not_empty_list": Format(check_not_empty_list, "", whole=True, demands=True),
    "ratio": Format(check_ratio, "0.9"),
    "share": Format(check_share, "0.9"),
    "share_or_all": Format(check_share_or_all, "0.9"),
    "zero_or_more": Format(check_zero_or_more, "1"),
    "positive": Format(check_positive, "1"),
    "unix_mode": Format(check_unix_mode, "'0640'"),
    "system_user": Format(check_system_user, "prometheus"),
    "secret": Format(check_secret, "correct-horse-battery-staple"),
    "password": Format(check_password, "correct-horse-battery-staple"),
    "fernet_key": Format(check_fernet_key, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
    "cache_url": Format(check_cache_url, "redis://127.0.0.1:6379/0"),
    "grafana_uid": Format(check_grafana_uid, "payments"),
    "name_of_file": Format(check_name_of_file, "deploy"),
    "not_placeholder": Format(check_not_placeholder, "", demands=True),
    "not_placeholder_list": Format(check_not_placeholder_list, "", whole=True, demands=True),
}


# Types


def plain(value: object) -> Any:
    """Return the value without Ansible's tags, as the types of the YAML it came from."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(element) for key, element in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(element) for element in value]
    return value


def is_vaulted(value: object) -> bool:
    """Say whether any part of the value came from a vault."""
    if VaultedValue is None:
        return False
    if isinstance(value, Mapping):
        return any(is_vaulted(element) for element in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_vaulted(element) for element in value)
    return bool(VaultedValue.is_tagged_on(value))


KIND_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "path": "a path",
    "bytes": "a size such as 10M",
    "bits": "a number of bits such as 1Mb",
}
KIND_EXAMPLES = {
    "str": "some-text",
    "int": "1",
    "float": "0.5",
    "bool": "true",
    "dict": "{name: value}",
    "path": "/var/lib/name",
    "bytes": "10M",
    "bits": "1Mb",
}
CONVERTERS: dict[str, Callable[[Any], object]] = {
    "int": validation.check_type_int,
    "float": validation.check_type_float,
    "bool": validation.check_type_bool,
    "bytes": validation.check_type_bytes,
    "bits": validation.check_type_bits,
}


def wrong_kind(kind: str, value: object) -> str | None:
    """Return in words why the value is not of the kind that a specification asks for, or nothing."""
    if kind not in KIND_WORDS:  # raw and json take anything
        return None
    wanted = KIND_WORDS[kind]
    if kind in ("list", "dict"):
        return None if isinstance(value, list if kind == "list" else dict) else f"is not {wanted}"
    if isinstance(value, (list, dict)):
        return f"is {'a list' if isinstance(value, list) else 'a mapping'}, not {wanted}"
    if kind in ("str", "path"):
        is_text = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        return None if is_text else f"is not {wanted} to YAML; put it in quotes"
    if isinstance(value, bool) and kind != "bool":
        return f"is not {wanted}"
    try:
        CONVERTERS[kind](value)
    except (TypeError, ValueError):
        return "is neither true nor false" if kind == "bool" else f"is not {wanted}"
    return None


def holds_secret(option: Spec) -> bool:
    """Say whether the option or anything in it is marked no_log."""
    return bool(option.get("no_log")) or any(holds_secret(inner) for inner in (option.get("options") or {}).values())


def secret_texts(value: object) -> Iterator[str]:
    """Yield every text and number in a value."""
    if isinstance(value, Mapping):
        for element in value.values():
            yield from secret_texts(element)
    elif isinstance(value, list):
        for element in value:
            yield from secret_texts(element)
    elif value not in (None, "") and not isinstance(value, bool):
        yield str(value)


def show(value: object) -> str:
    """Return a value as one short line, texts in quotes, the rest as YAML writes it."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"


# Examples


def flow(value: object) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(plain(value), default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return str(text).strip().removesuffix("...").strip()


def dotted(path: Sequence[PathPart]) -> str:
    """Write a path as `jobs[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def pattern_of(path: Sequence[PathPart]) -> str:
    """Write a path without positions in lists, as `formats` is keyed here."""
    return ".".join(part for part in path if isinstance(part, str))


def assignment(path: Sequence[PathPart], value: str) -> str:
    """Write the line that sets `path` to `value`, which is YAML already."""
    for part in reversed(path[1:]):
        value = f"[{value}]" if isinstance(part, int) else f"{{{part}: {value}}}"
    return f"{path[0]}: {value}"


def below(value: object, keys: Sequence[str], path: Sequence[PathPart]) -> Iterator[tuple[list[PathPart], object]]:
    """Yield what stands at `keys` in a value, with its path; in a list, of each element."""
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from below(element, keys, [*path, index])
    elif not keys:
        yield list(path), value
    elif isinstance(value, Mapping) and value.get(keys[0]) is not None:
        yield from below(value[keys[0]], keys[1:], [*path, keys[0]])


FOR_EXAMPLE = re.compile(r"For example:?\s+C\((.+?)\)(?=[\s.,;]|$)", re.DOTALL)


def described_example(option: Spec, path: Sequence[PathPart]) -> str | None:
    """Return the line of the last "For example C(name: value)" in the description."""
    description = option.get("description") or ""
    texts = description if isinstance(description, list) else [description]
    found = FOR_EXAMPLE.findall(" ".join(str(text) for text in texts))
    if not found:
        return None
    text = re.sub(r"\s+", " ", found[-1]).strip()
    leaf = next((part for part in reversed(path) if isinstance(part, str)), "")
    if text.startswith(f"{path[0]}:"):
        return text
    return assignment(path, text.removeprefix(f"{leaf}:").strip())


def usable_default(option: Spec, value: object, formats: Sequence[Format]) -> str | None:
    """Return the default of an option as YAML, unless it is empty, a template, a secret or as wrong as the value."""
    default = plain(option.get("default"))
    unusable = default in (None, "") or default == [] or default == {} or default == value or option.get("no_log")
    if unusable or "{{" in str(default) or any(form.check(default) is not None for form in formats):
        return None
    return flow(default)


def example_line(
    path: Sequence[PathPart], options: Sequence[Spec], value: object, formats: Sequence[Format] = ()
) -> str:
    """Return a line that a person can write instead.

    `options` holds the specifications along the path, the outermost first, one for every name in it.
    """
    option = options[-1]
    meant = next((form for form in formats if form.meant and form.check(value) is not None), None)
    if meant is not None:
        return assignment(path, meant.example)
    named = [position for position, part in enumerate(path) if isinstance(part, str)]
    described = described_example(option, path)
    if described is not None:
        return described
    default = usable_default(option, value, formats)
    if default is not None:
        # The default of a list, where one element is wrong, shows the whole list.
        whole = path[: named[-1] + 1]
        return assignment(whole, default)
    for depth in range(len(options) - 2, -1, -1):
        outer = described_example(options[depth], path[: named[depth] + 1])
        if outer is not None:
            return outer
    for form in formats:
        if form.example:
            return assignment(path, form.example)
    if option.get("choices"):
        return assignment(path, flow(option["choices"][0]))
    kind = option.get("type") or "str"
    element = KIND_EXAMPLES.get(option.get("elements") or "str", "value")
    if isinstance(path[-1], int):
        return assignment(path, element)
    return assignment(path, f"[{element}]" if kind == "list" else KIND_EXAMPLES.get(kind, "value"))


# The check itself


@dataclass
class Checker:
    """Collects all problems of one role."""

    role: str
    spec: Mapping[str, Spec]
    formats: Mapping[str, list[str]]
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    vaulted: set[str] = field(default_factory=set)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: Sequence[PathPart], what: str, example: str = "") -> None:
        """Note a problem."""
        line = f"{dotted(path)}: {what}"
        if example:
            line += f". Write for example: {example}"
        origin = self.origins.get(str(path[0]))
        self.problems.append((str(path[0]), f"{line} [set in {origin}]" if origin else line))

    def formats_of(self, path: Sequence[PathPart]) -> list[Format]:
        """Return the formats that apply to `path`."""
        return [FORMATS[name] for name in self.formats.get(pattern_of(path), ())]

    def shown(self, path: Sequence[PathPart], options: Sequence[Spec], value: object) -> str:
        """Return the value for a message, hidden where it is or holds a secret."""
        secret = path[0] in self.vaulted or any(option.get("no_log") for option in options)
        return HIDDEN if secret or holds_secret(options[-1]) else show(value)

    def check_option(self, path: list[PathPart], options: list[Spec], value: object) -> None:
        """Check one option that is set: kind, choices, formats, and what is in it."""
        option = options[-1]
        kind = option.get("type") or "str"
        shown = self.shown(path, options, value)
        formats = [*self.formats_of(path), *([FORMATS["flag"]] if kind == "bool" else [])]
        wrong = wrong_kind(kind, value)
        if wrong is not None:
            if not isinstance(value, (list, dict)):
                # "is not a port" says more than "is not a whole number".
                wrong = next((said for form in formats if (said := form.check(value))), wrong)
            self.add(path, f"{shown} {wrong}", example_line(path, options, value, formats))
            return
        if isinstance(value, list):
            if not self.elements_fit(path, options, value):
                return
        elif not fits_choices(option, value):
            self.add_choices(path, options, value)
            return
        if not self.formats_fit(path, options, value, formats):
            return
        inner = option.get("options")
        if not inner:
            self.check_passed_on(path, options, value)
            return
        if isinstance(value, dict):
            self.check_inner(path, options, value)
        elif isinstance(value, list):
            for index, element in enumerate(value):
                if isinstance(element, dict):
                    self.check_inner([*path, index], options, element)

    def check_passed_on(self, path: list[PathPart], options: list[Spec], value: object) -> None:
        """Apply formats to parts of a value that a specification leaves to others."""
        start = f"{pattern_of(path)}."
        for pattern, names in self.formats.items():
            if not pattern.startswith(start):
                continue
            for place, element in below(value, pattern.removeprefix(start).split("."), path):
                form = next((form for form in map(FORMATS.__getitem__, names) if form.check(element) is not None), None)
                if form is not None:
                    shown = self.shown(path, options, element)
                    self.add(place, f"{shown} {form.check(element)}", f"{place[-1]}: {form.example}")

    def add_choices(self, path: list[PathPart], options: list[Spec], value: object) -> None:
        """Note a value that is none of the choices."""
        choices = ", ".join(flow(choice) for choice in options[-1]["choices"])
        shown = self.shown(path, options, value)
        self.add(path, f"{shown} is not one of: {choices}", example_line(path, options, value))

    def elements_fit(self, path: list[PathPart], options: list[Spec], values: list[Any]) -> bool:
        """Check kind and choices of the elements of a list."""
        before = len(self.problems)
        option = options[-1]
        kind = option.get("elements")
        for index, element in enumerate(values):
            wrong = wrong_kind(kind, element) if kind else None
            if wrong is not None:
                shown = self.shown(path, options, element)
                self.add([*path, index], f"{shown} {wrong}", example_line([*path, index], options, element))
            elif not fits_choices(option, element):
                self.add_choices([*path, index], options, element)
        return len(self.problems) == before

    def formats_fit(self, path: list[PathPart], options: list[Spec], value: Any, formats: Sequence[Format]) -> bool:
        """Apply the formats of one option; the first that a value fails is enough."""
        default_is_empty = value in ("", [], {}) and value == plain(options[-1].get("default"))
        before = len(self.problems)
        failed: set[str] = set()
        for form in formats:
            if default_is_empty and not form.demands:
                continue
            single = isinstance(value, list) and not form.whole and not (form.demands and not value)
            targets = [([*path, index], element) for index, element in enumerate(value)] if single else [(path, value)]
            for target, element in targets:
                wrong = form.check(element) if dotted(target) not in failed else None
                if wrong is None:
                    continue
                failed.add(dotted(target))
                shown = self.shown(path, options, element)
                what = wrong if wrong == NOT_SET else f"{shown} {wrong}"
                self.add(target, what, example_line(target, options, element, formats))
            if dotted(path) in failed:
                break
        return len(self.problems) == before

    def check_inner(self, path: list[PathPart], options: list[Spec], values: dict[str, Any]) -> None:
        """Check the nested options of one mapping."""
        spec: Mapping[str, Spec] = options[-1]["options"]
        known = {name for own, option in spec.items() for name in names_of(own, option)}
        for key in values:
            if key not in known:
                self.add([*path, str(key)], f"unknown{did_you_mean(str(key), known)}")
        for name, option in spec.items():
            found = [key for key in names_of(name, option) if values.get(key) is not None]
            if found:
                self.check_option([*path, found[0]], [*options, option], values[found[0]])
            elif option.get("required"):
                self.add([*path, name], NOT_SET, example_line([*path, name], [*options, option], None))

    def check_role(self, failed: Iterable[str]) -> None:
        """Check every option of the role, except those in `failed`, whose value could not be had."""
        failed = set(failed)
        for name, option in self.spec.items():
            names = names_of(name, option)
            if failed.intersection(names):
                continue
            found = [key for key in names if self.values.get(key) is not None]
            if found:
                self.check_option([found[0]], [option], self.values[found[0]])
                continue
            if name in self.values and option.get("default") is not None and option.get("type") in ("list", "dict"):
                self.add([name], f"null, as where every entry is commented out. {self.instead_of_null(name, option)}")
                continue
            # Null instead of a default that is empty is as empty; without any default null is a choice.
            demanded = option.get("default") is not None and any(form.demands for form in self.formats_of([name]))
            if option.get("required") or demanded:
                self.add([name], NOT_SET, example_line([name], [option], None, self.formats_of([name])))
        self.check_with_core(failed)

    def instead_of_null(self, name: str, option: Spec) -> str:
        """Return a sentence that says what to write instead of a list or mapping that is null."""
        formats = self.formats_of([name])
        if any(form.demands for form in formats):
            example = f"Write for example: {example_line([name], [option], None, formats)}"
            return f"{example}, or delete the line" if option["default"] else example
        return f"Write {name}: {'[]' if option['type'] == 'list' else '{}'} for none, or delete the line"

    def check_lengths(self, not_longer: Mapping[str, object]) -> None:
        """Find durations that are longer than another one. What is no duration is left to the formats."""
        for name, limits in not_longer.items():
            outer, _, inner = name.partition("[].")
            elements = self.values.get(outer) if inner else None
            places: list[tuple[list[PathPart], Any]] = [([], self.values)]
            if inner:
                places = [([outer, n], one) for n, one in enumerate(elements if isinstance(elements, list) else [])]
            for start, entry in places:
                if not isinstance(entry, Mapping):
                    continue
                found = {**self.values, **entry}
                limit = next((key for key in (limits if isinstance(limits, list) else [limits]) if found.get(key)), "")
                value, longest = duration_ms(entry.get(inner or outer)), duration_ms(found.get(limit))
                if value is not None and longest is not None and value > longest:
                    path = [*start, inner or outer]
                    what = f"{show(entry[path[-1]])} is longer than {limit}, {show(found[limit])}"
                    self.add(path, what, f"{path[-1]}: {flow(found[limit])}")

    def check_with_core(self, failed: set[str]) -> None:
        """Let Ansible's own validator have the last word, on what the words above do not cover."""
        spec = {name: option for name, option in self.spec.items() if not failed.intersection(names_of(name, option))}
        names = {alias for name, option in spec.items() for alias in names_of(name, option)}
        values = {name: value for name, value in without_none(self.values).items() if name in names}
        result = ArgumentSpecValidator(spec).validate(values, validate_role_argument_spec=True)
        between_settings = (
            core_errors.AliasError,
            core_errors.MutuallyExclusiveError,
            core_errors.RequiredByError,
            core_errors.RequiredIfError,
            core_errors.RequiredOneOfError,
            core_errors.RequiredTogetherError,
        )
        explained = bool(self.problems)  # then it says of single settings what was said above
        for error in result.errors.errors:
            if not explained or isinstance(error, between_settings):
                self.problems.append(("", self.without_secrets(str(error.msg))))

    def without_secrets(self, text: str) -> str:
        """Take every secret value out of a message that somebody else wrote."""
        secrets: set[str] = set()
        for name, option in self.spec.items():
            if name in self.vaulted or holds_secret(option):
                secrets.update(secret_texts(self.values.get(name)))
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    def check_names(
        self, names: Iterable[str], *, allow: Sequence[str], renamed: Mapping[str, str | None], siblings: Sequence[str]
    ) -> None:
        """Find misspelled, renamed and removed settings among the names of all variables."""
        known = {alias for name, option in self.spec.items() for alias in names_of(name, option)}
        endings = {name.removeprefix(f"{self.role}_") for name in known if name.startswith(f"{self.role}_")}
        for name in sorted(names):
            if name in renamed:
                new = renamed[name]
                what = f"was renamed to {new}, rename it" if new else "was removed, delete it"
                self.add([name], what)
            elif name in known or any(fnmatch.fnmatchcase(name, pattern) for pattern in allow):
                continue
            elif name.startswith(f"{self.role}_"):
                # backend_proxy_port belongs to the role backend_proxy.
                if not name.startswith(tuple(f"{sibling}_" for sibling in siblings)):
                    self.add([name], f"unknown{did_you_mean(name, known, f'{self.role}_')}")
            else:
                meant = self.misspelled_role(name, endings, siblings)
                if meant:
                    self.add([name], f"unknown, did you mean {meant}?")

    def misspelled_role(self, name: str, endings: set[str], siblings: Sequence[str]) -> str | None:
        """Return the setting that was meant where the part before it is nearly the name of the role."""
        for position, character in enumerate(name):
            head, tail = name[:position], name[position + 1 :]
            if character != "_" or tail not in endings or head in siblings or head.startswith("_"):
                continue
            if difflib.SequenceMatcher(None, head, self.role).ratio() >= 0.85:
                return f"{self.role}_{tail}"
        return None


def names_of(name: str, option: Spec) -> list[str]:
    """Return the name of an option and its aliases."""
    return [name, *(option.get("aliases") or ())]


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the end of a sentence that names the closest known name, or says that there is none.

    What all names share in front would make any two of them look close, so it does not count.
    """
    endings = sorted(other.removeprefix(prefix) for other in known)
    close = difflib.get_close_matches(name.removeprefix(prefix), endings, n=1, cutoff=0.6)
    if close:
        return f", did you mean {prefix}{close[0]}?"
    few = f" ({', '.join(endings)})" if not prefix and len(endings) <= FEW_NAMES else ""
    return f", and close to no setting that there is{few}; delete it"


def fits_choices(option: Spec, value: object) -> bool:
    """Say whether a value is among the choices, if there are any. Ansible converts before it compares."""
    choices = option.get("choices")
    if not choices or value in choices or str(value) in [str(choice) for choice in choices]:
        return True
    if option.get("type") == "bool":
        return bool(validation.check_type_bool(value) in choices)
    return False


def without_none(value: Any) -> Any:
    """Return the value without the parts that are null, which here mean "not set"."""
    if isinstance(value, dict):
        return {key: without_none(element) for key, element in value.items() if element is not None}
    if isinstance(value, list):
        return [without_none(element) for element in value]
    return value


def normal_formats(formats: Mapping[str, object], spec: Mapping[str, Spec], role: str) -> dict[str, list[str]]:
    """Return the formats as lists, keyed without `[]`, and by aliases too.

    Raises AnsibleActionFail for a format or a setting that does not exist: a mistake of the caller.
    """
    result: dict[str, list[str]] = {}
    for key, wanted in formats.items():
        names = wanted if isinstance(wanted, list) else [wanted]
        for name in names:
            if name not in FORMATS:
                known = ", ".join(sorted(FORMATS))
                raise AnsibleActionFail(f"check_settings: formats: {key}: no format {name!r}. There are: {known}.")
        level: Mapping[str, Spec] = spec
        patterns = [""]
        parts = str(key).replace("[]", "").split(".")
        for position, part in enumerate(parts):
            if part not in level:
                raise AnsibleActionFail(f"check_settings: formats: {key}: the role {role} has no such setting.")
            patterns = [f"{start}.{alias}" for start in patterns for alias in names_of(part, level[part])]
            inner = level[part].get("options")
            if inner is None and level[part].get("type") in ("dict", "list"):  # left to others, with any keys
                rest = parts[position + 1 :]
                patterns = [".".join([start, *rest]) for start in patterns]
                break
            level = inner or {}
        result.update((pattern.removeprefix("."), [str(name) for name in names]) for pattern in patterns)
    return result


def load_spec(role_path: Path) -> dict[str, Spec]:
    """Return the options of the entry point `main` of a role.

    Raises AnsibleActionFail where there is no specification that can be read.
    """
    # Only plain data is needed, so the quick C parser will do.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for name in ("argument_specs.yml", "argument_specs.yaml"):
        path = role_path / "meta" / name
        if not path.is_file():
            continue
        try:
            with path.open("rb") as stream:
                data = yaml.load(stream, Loader=loader)  # noqa: S506  # a safe loader, chosen above
            options = data["argument_specs"]["main"].get("options") or {}
        except (OSError, yaml.YAMLError) as error:
            raise AnsibleActionFail(f"check_settings: cannot read {path}: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise AnsibleActionFail(f"check_settings: {path} has no entry point `main`; write one.") from error
        return dict(options)
    raise AnsibleActionFail(f"check_settings: {role_path} has no meta/argument_specs.yml; write one.")


# Names that connection and inventory set, and that are no facts.
FACT = re.compile(
    r"\bansible_(?!host\b|user\b|port\b|connection\b|password\b|ssh|become|python_interpreter|check_mode|version\b)\w+"
)

FACT_IN_USE = re.compile(r"\bansible_facts['\"]?\]?(?:\.|\[\s*['\"])(?!(?:get|items|keys|values)\b)(\w+)")
MISSED = re.compile(r"object of type 'dict' has no attribute '(\w+)'")
# What the playbooks gather before they deploy (gather_subset); the rest no host ever has told.
GATHERED = frozenset(
    (
        *("distribution", "distribution_major_version", "distribution_release", "distribution_version", "os_family"),
        *("hostname", "fqdn", "domain", "nodename", "machine_id", "kernel", "kernel_version", "system"),
        *("architecture", "machine", "userspace_architecture", "userspace_bits"),
        *("python", "python_version", "pkg_mgr", "service_mgr"),
    )
)


def facts_not_gathered(template: str, said: str, known: Iterable[str]) -> list[str]:
    """Return the facts that a template cannot do without, and that the playbooks do not gather.

    Args:
        template: as it was written.
        said: Ansible's error, which names the first that is missing.
        known: names of variables that are there.
    """
    # A default may be for any of them, but for the one that was missed.
    text = said if "default" in template else f"{template} {said}"
    bare = {name.removeprefix("ansible_") for name in FACT.findall(text) if name not in known}
    missed = MISSED.findall(said)
    named = {*FACT_IN_USE.findall(template)}
    names = bare | (named.intersection(missed) if "default" in template else named)
    return sorted(names - GATHERED - {"facts"})


class ActionModule(ActionBase):  # type: ignore[misc]
    """Entry point for Ansible."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the settings and return the result of the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "role": {"type": "str", "required": True},
                "formats": {"type": "dict", "default": {}},
                "not_longer": {"type": "dict", "default": {}},
                "allow": {"type": "list", "elements": "str", "default": []},
                "renamed": {"type": "dict", "default": {}},
            }
        )
        arguments = plain(arguments)
        role: str = arguments["role"]
        role_path = self.find_role(role)
        spec = load_spec(role_path)
        checker = Checker(role, spec, normal_formats(arguments["formats"], spec, role))

        own = self.own_role(role)
        if own is not None:  # Ansible has them already
            defaults, internals = own.get_default_vars(), own.get_vars(include_params=False)
        else:
            defaults, internals = self.load_vars(role_path, "defaults"), self.load_vars(role_path, "vars")
        known = {**defaults, **internals, **task_vars}
        self.read_origins(checker, {name: value for name, value in task_vars.items() if isinstance(name, str)})
        unchecked = self.read_values(checker, known, defaults, has_facts=bool(task_vars.get("ansible_facts")))
        checker.check_role({*unchecked, *(name for name, _ in checker.problems)})
        checker.check_lengths(arguments["not_longer"])
        roles_own = {*defaults, *internals} - {*spec}  # a mistake there is not the user's
        checker.check_names(
            [name for name in task_vars if isinstance(name, str) and name not in roles_own],
            allow=arguments["allow"],
            renamed=arguments["renamed"],
            siblings=self.siblings(role_path, role),
        )

        # By setting, in the order of the specification, and unknown names behind them.
        order = {name: position for position, name in enumerate(spec)}
        checker.problems.sort(key=lambda problem: order.get(problem[0], len(order)))
        lines = [line for _, line in checker.problems]
        result.update(changed=False, problems=lines, unchecked=unchecked)
        if lines:
            result["failed"] = True
            result["msg"] = self.message(role, role_path, lines)
        else:
            result["msg"] = f"The settings of the role {role} are in order."
        return result

    def message(self, role: str, role_path: Path, lines: list[str]) -> str:
        """Return the whole message."""
        count = "1 setting" if len(lines) == 1 else f"{len(lines)} settings"
        readme = role_path / "README.md"
        where = f"ansible-doc -t role {role}" + (f", and {short_path(readme)}" if readme.is_file() else "")
        body = "\n".join(f"  {line}" for line in lines)
        return f"{count} of the role {role} must be corrected:\n{body}\nEvery setting is described by: {where}"

    def own_role(self, role: str) -> Any:
        """Return Ansible's object for the role when this task belongs to it, else nothing."""
        own = getattr(self._task, "_role", None)
        return own if own is not None and own.get_name() == role else None

    def find_role(self, role: str) -> Path:
        """Return the directory of the role.

        Raises AnsibleActionFail when it is nowhere.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", role):
            raise AnsibleActionFail(f"check_settings: role: {role!r} is not the name of a role.")
        own = self.own_role(role)
        if own is not None:
            return Path(own.get_role_path())
        beside = Path(self._loader.get_basedir())
        places = [beside / "roles", *(Path(place) for place in constants.DEFAULT_ROLES_PATH or ()), beside]
        for place in places:
            if (place / role).is_dir():
                return place / role
        looked = ", ".join(str(place) for place in places)
        raise AnsibleActionFail(f"check_settings: the role {role} is in none of: {looked}.")

    def siblings(self, role_path: Path, role: str) -> list[str]:
        """Return the names of the other roles beside this one."""
        return [entry.name for entry in role_path.parent.iterdir() if entry.is_dir() and entry.name != role]

    def load_vars(self, role_path: Path, directory: str) -> dict[str, Any]:
        """Return the variables of the role's defaults or vars, as templates that are not resolved yet."""
        for name in ("main.yml", "main.yaml"):
            path = role_path / directory / name
            if path.is_file():
                data = self._loader.load_from_file(str(path), cache="none", unsafe=True, trusted_as_template=True)
                return dict(data or {})
        return {}

    def read_origins(self, checker: Checker, task_vars: Mapping[str, Any]) -> None:
        """Note in which file and line a setting was written, where Ansible knows it."""
        if Origin is None:
            return
        for name, value in task_vars.items():
            origin = Origin.get_tag(value)
            if origin is None:
                continue
            place = short_path(Path(origin.path)) if origin.path else str(origin.description)
            checker.origins[name] = f"{place}:{origin.line_num}" if origin.line_num else place

    def read_values(
        self, checker: Checker, known: Mapping[str, Any], defaults: Mapping[str, Any], *, has_facts: bool
    ) -> list[str]:
        """Resolve the templates of all settings; return the names of those that cannot be resolved yet."""
        templar = self._templar.copy_with_new_env(available_variables=dict(known))
        unchecked = []
        names = [alias for name, option in checker.spec.items() for alias in names_of(name, option)]
        for name in names:
            if name not in known:
                continue
            raw = known[name]
            option = checker.spec.get(name, {})
            try:
                value = templar.template(raw)
            except AnsibleValueOmittedError:
                continue
            except AnsibleError as error:
                said = " ".join(str(error.message).split()).rstrip(".")
                undefined = isinstance(error, AnsibleUndefinedVariable)
                is_default = name in defaults and same(raw, defaults[name])
                template = str(raw) if isinstance(raw, (str, list, dict)) else ""
                # The fact may be in a variable that the template names.
                behind = GATHERED.intersection(MISSED.findall(said))
                needs_facts = not has_facts and bool(
                    FACT.search(f"{template} {said}") or "HostVarsVars" in said or behind
                )
                lacking = facts_not_gathered(template, said, known) if undefined and needs_facts else []
                if lacking and not is_default:
                    example = example_line([name], [option], None, checker.formats_of([name]))
                    facts = f"the fact{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
                    how = "write the value itself, where hosts differ in host_vars"
                    checker.add([name], f"needs {facts}, which the playbooks do not gather; {how}", example)
                    continue
                if undefined and (is_default or needs_facts):
                    # Not the user's mistake: the missing setting itself is reported, missing facts come later.
                    unchecked.append(name)
                    continue
                if holds_secret(option) and not re.fullmatch(r"'\w+' is undefined", said):
                    said = "the error is not shown, because the value is secret"
                example = example_line([name], [option], None, checker.formats_of([name]))
                checker.add([name], f"its template cannot be resolved: {said}", example)
                continue
            if is_vaulted(value):
                checker.vaulted.add(name)
            checker.values[name] = plain(value)
        return unchecked


def same(left: object, right: object) -> bool:
    """Say whether two values are written the same, without decrypting anything."""
    plain_types = (str, int, float, bool, list, dict, type(None))
    return isinstance(left, plain_types) and isinstance(right, plain_types) and bool(left == right)


def short_path(path: Path) -> str:
    """Return a path relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
