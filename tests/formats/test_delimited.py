import csv
import io
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from atlas_ray.errors import CatalogError
from atlas_ray.formats import text_files
from atlas_ray.formats.delimited import MAX_RECORD_LINES, Delimited, Record, column_key
from atlas_ray.formats.text_files import Utf8Stream

HEADER = ["id", "title", "price", "image"]
ROWS = [[str(number), f"Title {number}", "9.99", f"{number}.jpg"] for number in range(1, 60)]


def table(text: str | bytes, columns: list[str] | None = None, **options: Any) -> Delimited:
    data = text.encode() if isinstance(text, str) else text
    blocks = [data[start : start + 7] for start in range(0, len(data), 7)]  # ends of blocks are anywhere
    return Delimited(Utf8Stream(blocks), columns or HEADER, source="shop.csv", error=CatalogError, **options)


def written(rows: list[list[str]], **options: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, **{"lineterminator": "\n"} | options).writerows([HEADER, *rows])
    return buffer.getvalue()


def read(text: str | bytes, **options: Any) -> list[Record]:
    """Read a CSV, and check that each of its lines is in one record."""
    found = table(text, **options)
    records = list(found)
    data = text.encode() if isinstance(text, str) else text
    at = found.header_lines + 1
    for record in records:
        assert record.line == at
        at += record.lines
    assert at == len(data.splitlines()) + 1
    return records


def ids(records: list[Record]) -> list[str]:
    return [record.cells[0] for record in records if record.cells]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_a_writer_wrote_reads_back(separator: str, end: str) -> None:
    rows = [["1", f'A "quoted", one{end}two', "9,99", "a.jpg"], ["2", "x;y\tz", "", "b.jpg"], ["3", "", "", ""]]
    text = written(rows, delimiter=separator, lineterminator=end)
    assert [record.cells for record in read(text)] == rows


def test_a_cell_of_many_lines() -> None:
    rows = [["1", "\n".join(f"line {n}, of many" for n in range(3000)), "5", "a.jpg"], *ROWS[1:]]
    assert [record.cells for record in read(written(rows))] == rows


def test_a_cell_of_many_lines_that_comes_first() -> None:
    text = 'title,id,price,image\n"one\ntwo\nthree",1,5,a.jpg\nb,2,5,b.jpg\n'
    assert [record.cells[1] for record in read(text)] == ["1", "2"]


LOSSES = {
    "never closed": (10, '"Title 11,9.99,11.jpg', "is not closed"),
    "closed by the inches of a later row": (10, '11,"Title,9.99,11.jpg', "whole rows between"),
    "closed in front of a text": (10, '11,"Title" 11,9.99,11.jpg', "text after the quote"),
    "closed early": (10, '11,"a "good" one",9.99,11.jpg', "text after the quote"),
    "a quote alone": (10, '"', "is not closed"),
    "in the last row": (58, '59,"Title,9.99,59.jpg', "is not closed"),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_stray_quote_costs_its_own_line(kind: str) -> None:
    at, damaged, reason = LOSSES[kind]
    rows = [list(row) for row in ROWS]
    if "inches" in kind:
        rows[40][1] = 'Monitor 24"'
    lines = [",".join(row) for row in rows]
    lines[at] = damaged
    records = read("\n".join([",".join(HEADER), *lines]))
    assert ids(records) == [row[0] for row in ROWS if row[0] != str(at + 1)]
    (bad,) = [record for record in records if record.error]
    assert (bad.line, bad.lines) == (at + 2, 1)
    assert bad.error is not None
    assert bad.error.code == "bad_row"
    assert reason in bad.error.message


@pytest.mark.parametrize("columns", [3, 4, 5, 8])
@pytest.mark.parametrize("between", [0, 1, 2, 30])
def test_two_stray_quotes_do_not_make_one_record_of_several(columns: int, between: int) -> None:
    header = ["id", "title", *(f"c{number}" for number in range(columns - 3)), "image"]
    rows = [[str(number), "T", *["x"] * (columns - 3), "a.jpg"] for number in range(between + 4)]
    rows[1][1] = '"T'
    rows[between + 2][1] = 'Monitor 24"'
    records = read("\n".join(",".join(row) for row in [header, *rows]))
    assert ids(records) == [row[0] for row in rows if row[0] != "1"]


@pytest.mark.parametrize(
    "text",
    ["Hello\nred, green", "one, two\nthree, four", "a, b\nc, d\ne, f and g", "Sizes:\nS,M\nL", "x\n\ny", "1,2\n3"],
)
@pytest.mark.parametrize("columns", [["id", "title", "image"], ["id", "image", "title"], ["title", "id", "image"]])
def test_prose_with_commas_and_line_breaks_is_a_cell(text: str, columns: list[str]) -> None:
    buffer = io.StringIO()
    rows = [{"id": str(number), "title": text, "image": "a.jpg"} for number in range(3)]
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    assert [dict(zip(columns, record.cells, strict=True)) for record in read(buffer.getvalue())] == rows


@pytest.mark.long
def test_a_quote_that_many_rows_follow() -> None:
    count = MAX_RECORD_LINES * 2 + 100
    lines = [f"{number},T,1,{number}.jpg" for number in range(count)]
    lines[10] = '10,"T,1,10.jpg'
    lines[count - 50] = '7,"",1,7.jpg'  # an empty cell in quotes says nothing of where one ends
    records = read("\n".join(["id,title,price,image", *lines]))
    assert len(ids(records)) == count - 1


def test_a_space_before_a_quote() -> None:
    (record,) = read('id, title, price, image\n1, "a, ""b""", 5, a.jpg\n')
    assert record.cells == ["1", 'a, "b"', "5", "a.jpg"]


@pytest.mark.parametrize("end", ["", ",,"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_two_exports_in_one_file(mark: str, end: str) -> None:
    text = f"{mark}id, Title ,image{end}\n1,a,1.jpg{end}\n{mark}id, Title ,image{end}\n2,b,2.jpg{end}\n"
    records = read(text)
    assert ids(records) == ["1", "2"]
    assert [record.error.message for record in records if record.error] == ["the header once more"]


def test_each_row_has_a_stray_quote() -> None:
    lines = [f'{number},"T {number},1,{number}.jpg' for number in range(200)]
    records = read("\n".join(["id,title,price,image", *lines, "999,ok,1,a.jpg"]))
    assert ids(records) == ["999"]
    assert sum(record.error is not None for record in records) == 200


def test_a_file_that_is_cut() -> None:
    text = written([*ROWS, ["60", "caf\u00e9 " * 3 + '"x"', "5", "a.jpg"]]).encode()
    whole = ids(read(text))
    for end in range(len(text) - 40, len(text)):
        found = ids(read(text[:end]))
        assert found in (whole, whole[:-1])


def test_broken_lines_and_blank_ones() -> None:
    text = b'id,title,price,image\n1,a,1,a.jpg\n\xff\xfe,b\n\n;;\n2,"x\n\xc3y",1,b.jpg\n3,short\n4,\0,1,d.jpg\n'
    records = read(text)
    assert [record.error.code if record.error else "" for record in records] == [
        "", "bad_encoding", "", "bad_row", "bad_encoding", "bad_row", ""
    ]  # fmt: skip
    assert records[2] == Record(4, 1, [])
    assert records[4].lines == 2
    assert ids(records) == ["1", "4"]


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 1000)
    records = read(f"id,title,price,image\n1,{'x' * 5000},1,a.jpg\r\n2,b,1,b.jpg\n")
    assert [record.error.code if record.error else record.cells[0] for record in records] == ["bad_row", "2"]


@pytest.mark.parametrize("begin", ["", "\ufeff", "sep=;\n", "\n\n", "\ufeffsep=;\r\n"])
@pytest.mark.parametrize("name", ["ID", " id ", "I d", "i_D"])
def test_headers(begin: str, name: str) -> None:
    found = table(f"{begin}{name};Title;;\n1;a;;\n")
    assert (found.header, found.separator) == ([name.strip(), "Title"], ";")
    assert [record.cells for record in found] == [["1", "a"]]
    assert column_key(name) == "id"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty file"), ("\n\r\n;;\n", "an empty file"), ("a|b\n1|2\n", "no known column in"),
        ('"id,title\n1,a\n', "no known column in"), ("id,id\n", "stands twice"),
        (b"id,\xff\x81\n1,2\n", "line 1: byte 4 of the line is not UTF-8"),
    ],
)  # fmt: skip
def test_files_without_a_header(text: str | bytes, reason: str) -> None:
    with pytest.raises(CatalogError, match=reason):
        table(text)


def tables(letters: str) -> st.SearchStrategy[list[list[str]]]:
    return st.lists(st.lists(st.text(st.sampled_from(letters), max_size=8), min_size=4, max_size=4), max_size=12)


@given(tables('ab1 ,;"\t\0\u2028é') | tables('ab ;"\n\r\té'))
def test_any_table_reads_back(rows: list[list[str]]) -> None:
    """But for one whose cells hold whole rows, such as `,,,` between line breaks."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows([HEADER, *rows])
    expected = [row for row in rows if any(map(str.strip, row))]
    found = [record for record in read(buffer.getvalue()) if record.cells or record.error]
    assert [record.cells for record in found] == expected


@given(st.binary(max_size=300))
def test_any_bytes_are_in_one_record_each(data: bytes) -> None:
    read(b"id,title,price,image\n" + data)


@given(st.lists(st.sampled_from(['"', ",", "\n", "\r", "a", '""', "é", "\0", ";"]), max_size=60))
def test_any_quotes_are_in_one_record_each(parts: list[str]) -> None:
    read("id,title,price,image\n" + "".join(parts))


def test_packed_files_say_what_to_do(tmp_path: Path) -> None:
    for head, advice in (
        (b"\x1f\x8b\x08", "a damaged gzip file"),
        (b"PK\x03\x04", "save its sheet"),
        (b"PAR1", "Parquet"),
    ):
        (tmp_path / "x.csv").write_bytes(head + b"rest")
        with pytest.raises(CatalogError, match=advice):
            text_files.open_text(str(tmp_path / "x.csv"), CatalogError)
