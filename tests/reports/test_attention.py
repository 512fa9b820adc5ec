from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atlas_ray.cli import main
from atlas_ray.reports.attention import CAPTION_PX, GAP_PX, SIDE_PX, strip
from tests.parts import picture


def test_a_strip_is_reddest_where_the_model_looked() -> None:
    pixels = np.full((3, 32, 32), 128, np.uint8)
    maps = np.zeros((3, 4, 4), np.float32)
    maps[0, 0, 0] = maps[1, 3, 3] = 1.0  # top left, then bottom right; the third level is past the path's end
    drawn = np.asarray(strip(pixels, maps, ["Women 0.90", "a name that is far too long for its place " * 3]))
    assert drawn.shape == (SIDE_PX + CAPTION_PX, 3 * SIDE_PX + 2 * GAP_PX, 3)
    panels = [drawn[:SIDE_PX, left : left + SIDE_PX] for left in range(0, drawn.shape[1], SIDE_PX + GAP_PX)]
    assert (panels[0] == 128).all()
    for panel, corner in ((panels[1], np.s_[:20, :20]), (panels[2], np.s_[-20:, -20:])):
        red = panel[..., 0].astype(int) - panel[..., 2]
        assert red[corner].min() > 90
        assert np.abs(red[90:130, 90:130]).max() < 10


def test_explain_draws_a_picture(tmp_path: Path, small_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(picture(3))
    output = tmp_path / "out.png"
    assert main(["explain", str(file), "--model", small_model, "--output", str(output)]) == 0
    levels = [line for line in capsys.readouterr().out.splitlines() if " or " not in line]
    assert len(levels) in (3, 4)  # two or three levels, and where the drawing is
    with Image.open(output) as drawn:
        assert drawn.size == ((len(levels)) * (SIDE_PX + GAP_PX) - GAP_PX, SIDE_PX + CAPTION_PX)
    file.write_bytes(b"broken")
    assert main(["explain", str(file), "--model", small_model]) == 2
    assert main(["explain", str(tmp_path / "none.jpg"), "--model", small_model]) == 2
    assert "no such file" in capsys.readouterr().err
