"""Reads the file format of systemd's ``EnvironmentFile=``."""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPABLE: Final = '"\\`$'


class EnvFileError(ValueError):
    """A line that systemd would ignore or read differently from what was meant."""


def parse(text: str) -> dict[str, str]:
    """The variables of an environment file, read as systemd reads them; the last of two equal names wins.

    Where systemd would silently drop a line or swallow the rest of the file, this fails instead.

    Raises:
        EnvFileError: with the number of the line and what is wrong with it.
    """
    reader = _Reader(text)
    variables: dict[str, str] = {}
    while reader.skip_to_entry():
        line = reader.line
        name = reader.name()
        if not _NAME.fullmatch(name):
            raise EnvFileError(f"line {line}: {name!r} is not a variable name; write NAME=value, without 'export'")
        variables[name] = reader.value()
    return variables


class _Reader:
    """A position in the text. Follows the states of systemd's own reader."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0

    @property
    def line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _next(self) -> str:
        """The next character, or an empty string at the end."""
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def skip_to_entry(self) -> bool:
        """Move behind blank lines and comments; false at the end of the text."""
        while character := self._next():
            if character in "#;":
                while (character := self._next()) not in ("", "\n"):
                    # A backslash carries a comment on to the next line.
                    if character == "\\":
                        self._next()
            elif not character.isspace():
                self._at -= 1
                return True
        return False

    def name(self) -> str:
        line = self.line
        start = self._at
        while (character := self._next()) != "=":
            if character in ("", "\n"):
                # Not the line itself: a value that lost its name may be a password.
                raise EnvFileError(f"line {line}: there is no '=' in it; write NAME=value")
        return self._text[start : self._at - 1].strip()

    def value(self) -> str:
        line = self.line
        value = ""
        keep = 0  # length below which white space is part of the value
        at_start = True
        while (character := self._next()) not in ("", "\n"):
            if character == "\\":
                escaped = self._next()
                if escaped != "\n":
                    value += escaped
                    keep = len(value)
                at_start = False
            elif at_start and character in "'\"":
                value += self._quoted(character, line)
                keep = len(value)
                # White space and a further quoted part may follow.
            elif character.isspace():
                if not at_start:
                    value += character
            else:
                at_start = False
                value += character
                keep = len(value)
        return value[:keep]

    def _quoted(self, quote: str, line: int) -> str:
        value = ""
        while (character := self._next()) != quote:
            if not character:
                raise EnvFileError(f"line {line}: the quote {quote} is not closed")
            if character == "\\" and quote == '"':
                escaped = self._next()
                if escaped == "\n":
                    continue
                value += escaped if escaped in _ESCAPABLE else character + escaped
            else:
                value += character
        return value
