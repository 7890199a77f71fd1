"""The ``allin-simulator`` command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from allin_simulator.settings import PLATFORMS, Knobs, Settings, SettingsError, read_clients, read_knobs

PREFIX: Final = "ALLIN_SIMULATOR_"
EXIT_BAD_CONFIGURATION: Final = 2


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 on")
    return seconds


# The options, each of which is also a variable: --token-seconds is ALLIN_SIMULATOR_TOKEN_SECONDS.
_OPTIONS: Final[tuple[tuple[str, Callable[[str], Any], str | None, str], ...]] = (
    ("host", str, "127.0.0.1", "address to listen on"),
    ("port", _port, "7080", "port to listen on; 0: a free one, which the first line of the output names"),
    ("seed", int, "0", "decides which requests fail, and by how much latency varies"),
    ("secret", str, "allin-simulator", "signs the tokens; simulators with the same one accept each other's"),
    ("clients", Path, None, "file with the OAuth clients, as for ALLIN_PLATFORMS_FILE; without it any is accepted"),
    ("token-seconds", _seconds, "3600", "how long access tokens live"),
    ("refresh-seconds", _seconds, "2592000", "how long refresh tokens live"),
    ("latency", float, "0", "latency_seconds of every platform"),
    ("error-ratio", float, "0", "error_ratio of every platform"),
    ("rate-limit", int, "10000", "rate_limit of every platform"),
    ("config", Path, None, "JSON file: knobs by platform, as the control API has them"),
)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command and return the exit code: 2 for options that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="allin-simulator",
        description="A stand-in for the social platforms. --port is also ALLIN_SIMULATOR_PORT, and so on.",
    )
    known = set()
    for name, read, default, meaning in _OPTIONS:
        variable = PREFIX + name.replace("-", "_").upper()
        known.add(variable)
        shown = meaning if default is None else f"{meaning} (default: {default})"
        parser.add_argument(f"--{name}", type=read, default=environ.get(variable, default), metavar="X", help=shown)
    parser.add_argument("--allow-remote", action="store_true", help="allow --host to be no loopback address")
    options = parser.parse_args(arguments)

    if unknown := sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        parser.error(f"there is no variable {unknown[0]}; the variables are {', '.join(sorted(known))}")
    if not options.allow_remote and not _is_loopback(options.host):
        parser.error(f"--host {options.host} is no loopback address; add --allow-remote if others are to reach it")
    try:
        settings = _settings(options)
    except SettingsError as error:
        parser.error(str(error))
    # Only now: reading options needs no web server.
    from allin_simulator.server import serve

    return serve(settings, options.host, options.port)


def _settings(options: argparse.Namespace) -> Settings:
    base = Knobs().changed(
        {
            "latency_seconds": options.latency,
            "error_ratio": options.error_ratio,
            "rate_limit": options.rate_limit,
        }
    )
    knobs = dict.fromkeys(PLATFORMS, base)
    if options.config is not None:
        knobs |= read_knobs(options.config, base)
    return Settings(
        seed=options.seed,
        secret=options.secret,
        clients=None if options.clients is None else read_clients(options.clients),
        token_seconds=options.token_seconds,
        refresh_seconds=options.refresh_seconds,
        knobs=knobs,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
