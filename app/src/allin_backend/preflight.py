"""What is checked beside the variables themselves, before anything starts: the files they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from allin_backend.platforms.registry import load_platforms
from allin_backend.secret_files import read_line
from allin_backend.security.encryption import TokenCipher
from allin_backend.settings import ConfigurationError, Settings


def check_files(settings: Settings) -> None:
    """Read every file that must be there at the start.

    Raises:
        ConfigurationError: with the problems of all files.
    """
    # The file with the faults comes and goes while the service runs.
    files: list[tuple[Path | None, Callable[[Path], object]]] = [
        (settings.database_password_file, lambda path: read_line("ALLIN_DATABASE_PASSWORD_FILE", path)),
        (settings.cache_password_file, lambda path: read_line("ALLIN_CACHE_PASSWORD_FILE", path)),
        (settings.token_keys_file, TokenCipher.from_file),
        (settings.platforms_file, load_platforms),
    ]
    problems: list[str] = []
    for path, read in files:
        try:
            if path is not None:
                read(path)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
