"""The ``allin-backend`` command."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from allin_backend import __version__, env_file, settings
from allin_backend.preflight import check_files
from allin_backend.security.encryption import make_key

EXIT_FAILED = 1
EXIT_BAD_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code: 2 for a configuration that cannot be used, 1 for other failures."""
    parser = argparse.ArgumentParser(prog="allin-backend", description="The AllIN platform's backend.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="serve until SIGTERM; configured by ALLIN_* environment variables")
    check = commands.add_parser(
        "check-config", help="check the configuration and the files it names, without touching the database"
    )
    migrating = commands.add_parser("migrate", help="bring the database to this release's schema; safe to repeat")
    migrating.add_argument("--dry-run", action="store_true", help="only say what there is to do")
    for command in (check, migrating):
        command.add_argument(
            "--env-file",
            type=Path,
            metavar="PATH",
            help="read this systemd EnvironmentFile instead of the environment; - is the standard input",
        )
    commands.add_parser("make-token-key", help="print a new key for the file that ALLIN_TOKEN_KEYS_FILE names")
    commands.add_parser("version", help="print the version")
    options = parser.parse_args(arguments)

    if options.command == "version":
        print(__version__)
        return 0
    if options.command == "make-token-key":
        print(make_key())
        return 0
    try:
        named = None if options.command == "serve" else options.env_file
        environ = os.environ if named is None else _read(named)
        loaded = settings.load(environ)
        check_files(loaded)
    except settings.ConfigurationError as error:
        count = len(error.problems)
        print(f"allin-backend: {count} problem{'s'[: count > 1]} in the configuration:", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        return EXIT_BAD_CONFIGURATION
    if options.command == "check-config":
        print("allin-backend: the configuration is valid")
        return 0
    if options.command == "migrate":
        return _migrate(loaded, dry_run=options.dry_run)
    # Only now: checking a configuration needs no web server.
    from allin_backend.server import serve

    return serve(loaded)


def _migrate(loaded: settings.Settings, *, dry_run: bool) -> int:
    from allin_backend.database.engine import DatabaseUnavailableError
    from allin_backend.database.migrate import migrate
    from allin_backend.database.revision import SchemaError

    work = migrate(
        loaded.database_url,
        timeout=loaded.database_timeout_seconds,
        password_file=loaded.database_password_file,
        dry_run=dry_run,
    )
    try:
        print(asyncio.run(work))
    except (DatabaseUnavailableError, SchemaError) as error:
        print(f"allin-backend: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _read(path: Path) -> Mapping[str, str]:
    try:
        return env_file.parse(sys.stdin.read() if path == Path("-") else path.read_text(encoding="utf-8"))
    except OSError as error:
        raise settings.ConfigurationError([f"{path}: {error.strerror}; name a file that can be read"]) from None
    except UnicodeDecodeError:
        raise settings.ConfigurationError([f"{path}: is not UTF-8 text"]) from None
    except env_file.EnvFileError as error:
        raise settings.ConfigurationError([f"{path}: {error}"]) from None
