import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from atlas_ray.reports.curves import draw_curves


def history(epochs: int, *, levels: int = 2, pictures: float = 8.0) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 3.0 / epoch,
            "val_loss": 4.0 / epoch if pictures else 0.0,
            "val_examples": pictures,
            "val_accuracy": 1 - 1 / epoch if pictures else 0.0,
            "encoder_lr": 0.0 if epoch == 1 else 1e-4,  # the first epoch trains the head alone
            "decoder_lr": 3e-3 / epoch,
            **{f"val_accuracy_level_{level}": 1 - 0.5 / epoch for level in range(1, levels + 1)},
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **keywords: Any) -> None:
        drawn.append(self)
        save(self, *arguments, **keywords)

    monkeypatch.setattr(Figure, "savefig", keep)
    return drawn


def lines(figure: Figure) -> list[list[str]]:
    """The labels of each part's lines."""
    return [[str(line.get_label()) for line in axes.get_lines()] for axes in figure.axes]


def check_picture(png: bytes) -> None:
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == (1300, 400)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 100  # curves in colours, smoothed


@pytest.mark.long
@pytest.mark.parametrize("epochs", [1, 3, 60])
def test_curves_with_validation(figures: list[Figure], epochs: int) -> None:
    rows = history(epochs)
    check_picture(draw_curves(rows, "classifier, resnet34"))
    (figure,) = figures
    assert figure.get_suptitle() == "classifier, resnet34"
    assert lines(figure) == [
        ["training", "validation"],
        ["encoder", "decoder or head"],
        ["level 1", "level 2", "whole path"],
    ]
    drawn = figure.axes[0].get_lines()[1]
    assert np.asarray(drawn.get_xdata()).tolist() == list(range(1, epochs + 1))
    assert np.asarray(drawn.get_ydata()).tolist() == [row["val_loss"] for row in rows]
    assert figure.axes[1].get_yscale() == "log"


@pytest.mark.long
def test_curves_without_validation(figures: list[Figure]) -> None:
    check_picture(draw_curves(history(3, pictures=0.0), "t"))
    (figure,) = figures
    assert lines(figure) == [["training"], ["encoder", "decoder or head"], []]
    assert [text.get_text() for text in figure.axes[2].texts] == ["no validation split"]


@pytest.mark.long
def test_a_rate_of_zero_is_drawn(figures: list[Figure]) -> None:
    rows = [row | {"decoder_lr": 0.0} for row in history(2)]
    check_picture(draw_curves(rows, "t"))
    assert figures[0].axes[1].get_yscale() == "linear"


@pytest.mark.long
def test_levels_stand_in_their_order(figures: list[Figure]) -> None:
    draw_curves(history(2, levels=11), "t")
    assert lines(figures[0])[2] == [*(f"level {level}" for level in range(1, 12)), "whole path"]


def test_curves_of_labels(figures: list[Figure]) -> None:
    rows = [
        {name: value for name, value in row.items() if not name.startswith("val_accuracy")}
        | {"val_micro_precision": 0.5, "val_micro_recall": 0.25, "val_micro_f1": 1 / 3}
        for row in history(3)
    ]
    check_picture(draw_curves(rows, "t"))
    assert lines(figures[0])[2] == ["precision", "recall", "F1"]
