import csv
import io
from pathlib import Path

import pytest

from atlas_ray.formats.spreadsheet import guarded, unguarded, write_csv

HOSTILE = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", "＝1", "'=1", "''", "'", "plain", "a=b", "", "1-2"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_reads_back_and_is_no_formula(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r", "＝"))


def test_what_a_spreadsheet_took_away() -> None:
    assert unguarded("=1") == "=1"
    assert unguarded("'quoted' by somebody") == "'quoted' by somebody"


def test_cells_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    texts = [*HOSTILE, 'नमस्ते, "x"\ny']
    write_csv(str(path), ["name", "value"], [(text, 0.5 if text in HOSTILE else None) for text in texts])
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert rows[0] == ["name", "value"]
    assert [unguarded(row[0]) for row in rows[1:]] == texts
    assert [row[1] for row in rows[1:]] == ["0.500000"] * len(HOSTILE) + [""]
