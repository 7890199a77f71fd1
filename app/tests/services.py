"""Servers that tests run for themselves, apart from any that this machine has."""

from __future__ import annotations

import asyncio
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy.engine import URL, make_url

from allin_backend.database.migrate import migrate
from support import DEADLINE

_BINARIES_VARIABLE: Final = "ALLIN_TEST_POSTGRES_BIN"
_TEMPLATE: Final = "migrated"


class PostgreSQL:
    """A PostgreSQL cluster of its own, on a free port of 127.0.0.1 and on a Unix socket in its directory.

    It forgets everything when the machine fails (no fsync), which makes it quick. ``start`` and ``stop`` may be called
    again and again; ``close`` removes it.
    """

    user: Final = "allin"
    password: Final = "a password with ü, / and :"

    def __init__(self) -> None:
        self._bin = _find_binaries()
        self._directory = Path(tempfile.mkdtemp(prefix="allin-pg-"))
        self._numbers = itertools.count()
        self._server: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._as: dict[str, Any] = {}
        if account is not None:
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}
            os.chown(self._directory, account.pw_uid, account.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        try:
            self._make()
            self.start()
            self._execute("postgres", f"CREATE DATABASE {_TEMPLATE}")
            # From version 15 on, the default is to write all of the copy to the log too.
            (version,) = self._execute("postgres", "SELECT current_setting('server_version_num')::int AS number")
            self._strategy = "STRATEGY file_copy" if version["number"] >= 150000 else ""
            asyncio.run(migrate(self._url(_TEMPLATE), timeout=DEADLINE))
        except BaseException:
            self.close()
            raise

    def make_database(self, *, migrated: bool = True) -> URL:
        """The URL of a new database, with the present schema or without any."""
        name = f"test_{next(self._numbers)}"
        template = _TEMPLATE if migrated else "template1"
        self._execute("postgres", f"CREATE DATABASE {name} TEMPLATE {template} {self._strategy}")
        return self._url(name)

    def drop_database(self, url: URL) -> None:
        """Remove a database; each takes several megabytes."""
        self._execute("postgres", f"DROP DATABASE {url.database} WITH (FORCE)")

    def execute(self, url: URL, statement: str, *arguments: object) -> list[Mapping[str, Any]]:
        """Run one statement, apart from the code that is tested, and return its rows."""
        assert url.database is not None
        return self._execute(url.database, statement, *arguments)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self._directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._bin / "postgres", "-D", self._directory / "data"],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as,
            )
        end = time.monotonic() + DEADLINE
        while True:
            try:
                self._execute("postgres", "SELECT 1")
            except (OSError, asyncpg.PostgresError) as error:
                if self._server.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"PostgreSQL does not start: {error}\n{self._log()}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End the server at once, as a crash would."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(DEADLINE)
            self._server = None

    def close(self) -> None:
        """Stop the server and remove everything."""
        self.stop()
        shutil.rmtree(self._directory)

    def _make(self) -> None:
        password_file = self._directory / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)
        self._run(
            "initdb",
            *("-D", "data", "--username", self.user, "--pwfile", "password", "--no-sync", "--encoding", "UTF8"),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256", "--no-instructions", "--locale", "C.UTF-8"),
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._directory),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            "max_connections": "50",
        }
        with (self._directory / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / command, *arguments],
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}"

    def _url(self, database: str) -> URL:
        return make_url("postgresql+asyncpg://127.0.0.1").set(
            username=self.user, password=self.password, port=self.port, database=database
        )

    def _execute(self, database: str, statement: str, *arguments: object) -> list[Mapping[str, Any]]:
        async def run() -> list[Mapping[str, Any]]:
            connection = await asyncpg.connect(
                host=str(self._directory), port=self.port, user=self.user, database=database, timeout=DEADLINE
            )
            try:
                return list(await connection.fetch(statement, *arguments))
            finally:
                await connection.close()

        return asyncio.run(run())

    def _log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-5000:]


def _find_binaries() -> Path:
    """The folder with PostgreSQL's server programs. A missing one fails the tests: skipped ones are seen by nobody."""
    named = os.environ.get(_BINARIES_VARIABLE)
    on_path = shutil.which("initdb")
    candidates = (
        [Path(named)]
        if named
        else [
            *([Path(on_path).resolve().parent] if on_path else []),
            # Debian keeps them here, by version, and puts none of them on PATH.
            *sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True),
        ]
    )
    for folder in candidates:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    pytest.fail(
        f"no PostgreSQL server programs in {named or 'PATH or /usr/lib/postgresql'}: install Debian's package"
        f" postgresql, or name the folder that has initdb and postgres in {_BINARIES_VARIABLE}",
        pytrace=False,
    )
