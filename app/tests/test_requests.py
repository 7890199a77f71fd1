"""Ids and cursors, for whatever callers may send."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.requests import Request

from allin_backend.web.requests import LARGEST_ID, make_cursor, path_id, query_cursor, query_limit
from support import http_scope

IDS = st.integers(1, LARGEST_ID)
# Characters that some language takes for a digit, or that base64 and URLs use, come up often.
ANY_TEXT = st.text(st.one_of(st.sampled_from("0123456789+-_=/. \0٣²"), st.characters(codec="utf-8")), max_size=30)


def request(query: str = "", **path: str) -> Request:
    scope = http_scope("/")
    scope["query_string"] = query.encode()
    scope["path_params"] = path
    return Request(scope)


@given(IDS)
def test_cursor_leads_back_to_its_id(number: int) -> None:
    cursor = make_cursor(number)

    assert cursor.isascii()
    assert query_cursor(request(f"cursor={cursor}")) == number


@given(IDS, st.data())
def test_cursor_that_was_changed_is_refused_or_another_id(number: int, data: st.DataObject) -> None:
    cursor = make_cursor(number)
    place = data.draw(st.integers(0, len(cursor) - 1))
    changed = cursor[:place] + data.draw(ANY_TEXT) + cursor[place + 1 :]

    _is_id_or_400(request("cursor=" + _quoted(changed)))


@given(ANY_TEXT)
def test_any_cursor_is_an_id_or_refused(text: str) -> None:
    _is_id_or_400(request("cursor=" + _quoted(text)))


@given(st.binary(max_size=40))
def test_any_query_string_is_read_or_refused(query: bytes) -> None:
    scope = http_scope("/")
    scope["query_string"] = query
    target = Request(scope)

    _is_id_or_400(target)
    limit = _or_400(query_limit, target)
    assert limit is None or 1 <= limit <= 100


@given(IDS)
def test_id_in_a_path(number: int) -> None:
    assert path_id(request(post_id=str(number)), "post_id") == number


@given(st.one_of(ANY_TEXT, st.integers().map(str)))
def test_any_text_in_a_path_is_an_id_or_nothing(text: str) -> None:
    number = path_id(request(post_id=text), "post_id")

    assert number is None or (1 <= number <= LARGEST_ID and int(text) == number)


def _is_id_or_400(target: Request) -> None:
    number = _or_400(query_cursor, target)
    assert number is None or 1 <= number <= LARGEST_ID


def _or_400(read: Callable[[Request], int | None], target: Request) -> int | None:
    try:
        return read(target)
    except HTTPException as error:
        if error.status_code != 400:
            raise
        return None


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())
