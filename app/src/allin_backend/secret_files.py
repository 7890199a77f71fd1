"""Secrets come from files that environment variables name, and never appear in messages."""

from __future__ import annotations

from pathlib import Path

from allin_backend.settings import ConfigurationError


def read_text(variable: str, path: Path) -> str:
    """The content of the file that ``variable`` names.

    Raises:
        ConfigurationError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        problem = f"{error.strerror}; name a file that the service may read"
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    raise ConfigurationError([f"{variable}={str(path)!r}: {problem}"])


def read_line(variable: str, path: Path | None) -> str | None:
    """The first line of the file that ``variable`` names, without its end; ``None`` where none is named.

    Raises:
        ConfigurationError: the file cannot be read, is not text, or its first line is empty.
    """
    if path is None:
        return None
    line, _, _ = read_text(variable, path).partition("\n")
    line = line.removesuffix("\r")
    if not line:
        raise ConfigurationError([f"{variable}={str(path)!r}: the first line is empty; write the secret there"])
    return line
