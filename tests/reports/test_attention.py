import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atlas_ray.cli.main import main
from atlas_ray.reports import fonts
from atlas_ray.reports.attention import CAPTION_PX, GAP_PX, SIDE_PX, strip
from tests.support.parts import picture

NAMES = ["साड़ी", "连衣裙", "ワンピース", "한복", "ชุดเดรส", "ልብስ"]


@pytest.fixture
def no_fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system without any font; one that is put into the folder is found by its name."""
    monkeypatch.setenv("PATH", "")
    for variable in ("XDG_DATA_HOME", "XDG_DATA_DIRS"):
        monkeypatch.setenv(variable, str(tmp_path))
    for cached in (fonts._path_of, fonts._letters, fonts._common):
        cached.cache_clear()
    (tmp_path / "fonts").mkdir()
    yield tmp_path / "fonts"
    for cached in (fonts._path_of, fonts._letters, fonts._common):
        cached.cache_clear()


def make_font(file: Path, letters: str) -> None:
    """Write a font in which these letters are tall bars."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 900), (300, 900), (300, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (400, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    builder.save(file)


def captions(*levels: tuple[str, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the captions of a strip, (height, width, 3)."""
    maps = np.full((len(levels), 2, 2), 0.25, np.float32)
    return np.asarray(strip(np.zeros((3, 32, 32), np.uint8), maps, levels))[SIDE_PX:]


@pytest.mark.parametrize("name", NAMES)
def test_what_no_font_can_write_is_the_number_of_its_level(no_fonts: Path, name: str) -> None:
    written = captions(("Robe d'été", 0.25), (f"{name} XL", 0.5))
    assert (written == captions(("Robe d'e\u0301te\u0301", 0.25), ("level 2", 0.5))).all()
    assert (written != captions(("Robe", 0.25), ("level 2", 0.5))).any()


def test_a_font_of_the_system_is_found_by_its_name(no_fonts: Path) -> None:
    (no_fonts / "msyh.ttc").write_bytes(b"damaged")
    make_font(no_fonts / "NotoSansThai-Regular.ttf", "한복")
    font = fonts.font_of("한복", 13)
    assert font is not None
    assert font.path == str(no_fonts / "NotoSansThai-Regular.ttf")
    assert fonts.font_of("한복 中", 13) is None
    assert (captions(("한복", 0.5)) != captions(("level 1", 0.5))).any()


@pytest.mark.skipif(not shutil.which("fc-match"), reason="the system has no fontconfig")
def test_fontconfig_is_asked(no_fonts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_font(no_fonts / "bars.ttf", "한복")
    (no_fonts / "fonts.conf").write_text(
        f"<fontconfig><dir>{no_fonts}</dir><cachedir>{no_fonts}</cachedir></fontconfig>"
    )
    monkeypatch.undo()
    monkeypatch.setenv("FONTCONFIG_FILE", str(no_fonts / "fonts.conf"))
    font = fonts.font_of("복한", 13)
    assert font is not None
    assert font.path == str(no_fonts / "bars.ttf")
    assert fonts.font_of("中", 13) is None  # what is best of all does not have it


def test_the_probability_of_a_long_name_stays(no_fonts: Path) -> None:
    make_font(no_fonts / "malgun.ttf", "한복")
    for name in ("a name that is far too long for its place " * 3, "한복" * 60):
        one, other = captions((name, 0.25)), captions((name, 0.75))
        assert (one != other).any()
        assert (one[:, SIDE_PX + GAP_PX :] == 0).any()
        assert (one[:, :-60] == other[:, :-60]).all()


def test_a_strip_is_reddest_where_the_model_looked() -> None:
    pixels = np.full((3, 32, 32), 128, np.uint8)
    maps = np.zeros((3, 4, 4), np.float32)
    maps[0, 0, 0] = maps[1, 3, 3] = 1.0  # top left, then bottom right; the third level is past the path's end
    drawn = np.asarray(strip(pixels, maps, [("Women", 0.9), ("a name that is far too long for its place " * 3, 0.5)]))
    assert drawn.shape == (SIDE_PX + CAPTION_PX, 3 * SIDE_PX + 2 * GAP_PX, 3)
    panels = [drawn[:SIDE_PX, left : left + SIDE_PX] for left in range(0, drawn.shape[1], SIDE_PX + GAP_PX)]
    assert (panels[0] == 128).all()
    for panel, corner in ((panels[1], np.s_[:20, :20]), (panels[2], np.s_[-20:, -20:])):
        red = panel[..., 0].astype(int) - panel[..., 2]
        assert red[corner].min() > 90
        assert np.abs(red[90:130, 90:130]).max() < 10


@pytest.mark.long
def test_explain_draws_a_picture(tmp_path: Path, small_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(picture(3))
    output = tmp_path / "out.png"
    assert main(["explain", str(file), "--model", small_model, "--output", str(output)]) == 0
    levels = [line for line in capsys.readouterr().out.splitlines() if " or " not in line]
    assert len(levels) in (3, 4)  # two or three levels, and where the drawing is
    with Image.open(output) as drawn:
        assert drawn.size == ((len(levels)) * (SIDE_PX + GAP_PX) - GAP_PX, SIDE_PX + CAPTION_PX)
    assert (
        main(
            [
                "explain",
                str(file),
                "--model",
                small_model,
                "--output",
                str(output),
                "--beam-width",
                "1",
                "--search",
                "beam",
            ]
        )
        == 0
    )
    alone = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("where")]
    assert alone
    assert not any(" or " in line for line in alone)  # a beam of one prefix finds one path
    file.write_bytes(b"broken")
    assert main(["explain", str(file), "--model", small_model]) == 2
    assert main(["explain", str(tmp_path / "none.jpg"), "--model", small_model]) == 2
    assert "no such file" in capsys.readouterr().err
