"""A list in a JSON document is read as `json.loads` reads it, wherever its bytes are cut into blocks."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_ray.formats.json_lists import JsonList
from atlas_ray.formats.text_files import Utf8Stream


def read(data: bytes, *, key: str | None = None, size: int = 7) -> tuple[str | None, list[Any], list[str | None]]:
    """Return the key that was found, the entries, and the codes of what is wrong with them."""
    document = JsonList(Utf8Stream([data[at : at + size] for at in range(0, len(data), size)], "utf-8"))
    found = document.find(key)
    entries = list(document.entries()) if found is not None else []
    if found is not None:
        document.finish()
    return found, [entry for entry, _ in entries], [error.code if error else None for _, error in entries]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3),
    max_leaves=6,
)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(
    entries=st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), min_size=1, max_size=5),
    size=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_any_list_is_read_whole(entries: list[Any], size: int, indent: int | None, ascii_only: bool) -> None:
    for document, key in ((entries, ""), ({"about": {"items": [1]}, "products": entries, "pages": 2}, "products")):
        text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
        assert read(text.encode(), size=size)[:2] == (key, entries)


def test_numbers_that_strict_readers_refuse() -> None:
    big = "9" * 5000
    text = (
        f'[{{"a": NaN}}, {{"a": Infinity, "b": "NaN, Infinity"}}, {{"a": -Infinity}}, {{"a": {big}}}, {{"a": {2**80}}}]'
    )
    _, entries, _ = read(text.encode())
    assert math.isnan(entries[0]["a"])
    assert entries[1] == {"a": math.inf, "b": "NaN, Infinity"}
    assert [entry["a"] for entry in entries[2:]] == [-math.inf, math.inf, 2**80]


def test_which_list_is_meant() -> None:
    text = b'{"tags": ["a", {"b": 1}], "none": [], "filters": {"x": [{}]}, "items": [{"id": 1}], "images": [{"id": 2}]}'
    assert read(text)[:2] == ("items", [{"id": 1}])
    assert read(text, key="images")[:2] == ("images", [{"id": 2}])
    assert read(text, key="none")[:2] == ("none", [])
    assert read(b'[1, {"id": 2}]')[:2] == ("", [1, {"id": 2}])
    assert [read(text)[0] for text in (b"7", b'"x"', b"null", b"{}", b'{"a": {"b": [{}]}}', b"", b"  ")] == [None] * 7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"id": 1}, {"id": "2', "Unterminated string starting at '\"2'"),
        ('[{"id": 1}', "it ends before ','"),
        ('[{"id": 1},]', "Expecting value at ']'"),
        ("[{'id': 1}]", "Expecting property name"),
        ('[{"id": 1}] [{"id": 2}]', "where the end of the document is expected"),
        ('{"products": [{"id": 1}]', "it ends before '}'"),
        ('{"products": [{"id": 1}], "more": [1', "more|Expecting"),
        ('{"products": [{"id": 1}]} {"products": [{"id": 2}]}', "where the end of the document is expected"),
        ("[" * 100_000, "nested without end"),
    ],
)
def test_what_is_not_json_is_never_read_in_part_alone(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(text.encode())


def test_an_entry_with_bytes_of_another_encoding_is_told() -> None:
    data = '[{"a": "é"}, {"a": "'.encode() + b"\xe9" + '"}, {"a": "\\ud800"}, {"a": "ü"}]'.encode()
    _, entries, codes = read(data)
    assert codes == [None, "bad_encoding", None, None]
    assert entries[3] == {"a": "ü"}


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ('{"id": 1, "id": 2}', "bad_row"),
        ('{"id": 1, "pictures": [{"url": "a", "url": "b"}]}', "bad_row"),
        ('{"id": 1, "id": 1}', None),
        ('{"id": {"a": 1}, "ID": 2}', None),
    ],
)
def test_a_key_with_two_values(entry: str, code: str | None) -> None:
    _, _, codes = read(f'[{{"id": 0}}, {entry}, {{"id": 3}}]'.encode())
    assert codes == [None, code, None]
