"""systemd's EnvironmentFile format."""

from __future__ import annotations

import pytest

from allin_backend.env_file import EnvFileError, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n\n  \n", {}),
        ("A=1", {"A": "1"}),
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("  A = 1  ", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A=\nB=1", {"A": "", "B": "1"}),
        ("A=1\nA=2", {"A": "2"}),
        ("# A=1\n; B=2\nC=3", {"C": "3"}),
        ("# goes on \\\nA=1\nB=2", {"B": "2"}),
        ("A=1 # no comment", {"A": "1 # no comment"}),
        ("A=a=b", {"A": "a=b"}),
        ("A=a b  c", {"A": "a b  c"}),
        ("A='a b'", {"A": "a b"}),
        ("A='a \\ b'", {"A": "a \\ b"}),
        ('A="a b"', {"A": "a b"}),
        ('A="  "', {"A": "  "}),
        ('A=" a "  ', {"A": " a "}),
        ('A=""', {"A": ""}),
        ('A="a\\"b"', {"A": 'a"b'}),
        ('A="a\\\\b\\$c\\`d"', {"A": "a\\b$c`d"}),
        ('A="a\\nb"', {"A": "a\\nb"}),
        ('A="one\ntwo"\nB=1', {"A": "one\ntwo", "B": "1"}),
        ('A="one\\\ntwo"', {"A": "onetwo"}),
        ("A=one\\\ntwo", {"A": "onetwo"}),
        ("A=a\\ ", {"A": "a "}),
        ("A=it's", {"A": "it's"}),
        ("A='a''b'", {"A": "ab"}),
        ("A='a' \"b\"", {"A": "ab"}),
        ("A='x'y", {"A": "xy"}),
        ("A=$HOME", {"A": "$HOME"}),
        ("A=ü", {"A": "ü"}),
    ],
)
def test_values(text: str, expected: dict[str, str]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nB", "line 2: there is no '='"),
        ("A=1\nhunter2\nB=1", "line 2: there is no '='"),
        ("export A=1", "line 1: 'export A' is not a variable name"),
        ("1A=1", "line 1: '1A'"),
        ("=1", "line 1: ''"),
        ("\n\nA-B=1", "line 3: 'A-B'"),
        ('A=1\nB="open\nC=3', "line 2: the quote"),
        ("A='open", "line 1: the quote"),
    ],
)
def test_what_systemd_would_drop_is_an_error(text: str, message: str) -> None:
    with pytest.raises(EnvFileError, match=message):
        parse(text)


def test_a_stray_value_is_not_repeated() -> None:
    with pytest.raises(EnvFileError) as caught:
        parse("hunter2")

    assert "hunter2" not in str(caught.value)
