"""Answers that are no numbers: of one picture, in each stage; and of a whole model."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from atlas_ray.artifacts import load_artifact, save_artifact, save_zoom_artifact
from atlas_ray.cli.main import main
from atlas_ray.embedding.encoders import EncoderSource
from atlas_ray.embedding.vectors import Embed
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.pictures import decode
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.scoring.predict import Predict, PredictorSpec, decode_block
from atlas_ray.serving.gateway import CategorizeOptions, _result
from atlas_ray.serving.model import Model
from atlas_ray.serving.question import Question
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.zoom.stage import JudgeZoom
from tests.support.parts import make_fused, picture, rows

PICTURES = [picture(number) for number in range(5)]
CONFIG = PredictorConfig(precision="float32", batch_size=2, device="cpu")


class Board:
    """Takes what a stage tells."""

    def __getattr__(self, name: str) -> "Board":
        return self

    def remote(self, *_: Any) -> None: ...


def block(**texts: list[str | None]) -> pa.Table:
    """Six pictures, of which the third could not be had and the last is none; texts by name."""
    contents = [*PICTURES, b"junk"]
    contents[2] = None  # type: ignore[call-overload]
    failed = [None, None, "timeout", None, None, None]
    return pa.table(
        {
            "image_id": list(range(6)),
            "product_id": [f"p{number}" for number in range(6)],
            "image_uri": [f"{number}.jpg" for number in range(6)],
            "sha256": pa.array([None if content is None else "0" * 64 for content in contents], pa.string()),
            "etag": pa.nulls(len(contents), pa.string()),
            "bytes": pa.array(contents, pa.binary()),
            "stage": pa.array([code and "fetch" for code in failed], pa.string()),
            "error_code": pa.array(failed, pa.string()),
            "message": pa.array([code and "too slow" for code in failed], pa.string()),
            **{name: pa.array(column, pa.string()) for name, column in texts.items()},
        }
    )


def break_encode(inference: Any, monkeypatch: pytest.MonkeyPatch, picture_number: int) -> None:
    """Make a network give NaN for one of the pictures of `block`, told by how varied it is."""
    whole = inference.encode
    deviation = pixels_of(picture_number, inference.image_size_px)

    def encode(products: Any) -> torch.Tensor:
        encoded: torch.Tensor = whole(products)
        bad = (products.pixels.float().std((1, 2, 3)) - deviation).abs() < 0.01
        return torch.where(bad.view(-1, *[1] * (encoded.ndim - 1)), torch.nan, encoded)

    monkeypatch.setattr(inference, "encode", encode)


def pixels_of(number: int, size: int) -> float:
    return float(decode(PICTURES[number], size).pixels.float().std())


def spec(model: str, garments: Taxonomy, texts: tuple[str, ...] = (), zoom: str | None = None) -> PredictorSpec:
    return PredictorSpec(
        model=model, taxonomy_json=garments.to_json(), within=(), config=CONFIG,
        sizes_px=(32, 22) if zoom else (32,), zoom_model=zoom, zoom_threshold=0.5 if zoom else None, texts=texts,
    )  # fmt: skip


def codes(table: pa.Table) -> list[tuple[str | None, str | None]]:
    return list(zip(table["stage"].to_pylist(), table["error_code"].to_pylist(), strict=True))


WANTED = [(None, None), ("predict", "not_a_number"), ("fetch", "timeout"), (None, None), (None, None)]


@pytest.mark.long
@pytest.mark.parametrize("apart", [False, True])
def test_one_picture_goes_to_quarantine_and_no_other(
    small_model: str, garments: Taxonomy, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    stage = Predict(Board(), spec(small_model, garments))
    break_encode(stage._predictor._encoder, monkeypatch, 1)
    table = decode_block(block(), (32,), PictureLimits()) if apart else block()
    out = stage(table)
    assert codes(out) == [*WANTED, ("decode", "not_an_image")]
    assert out["category_path"].is_null().to_pylist() == [False, True, True, False, False, True]
    assert all(np.isfinite(one) for one in out["probability"].to_pylist() if one is not None)


@pytest.mark.long
def test_a_reason_of_an_earlier_stage_stays_beside_texts(
    garments: Taxonomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Predict(Board(), spec(make_fused(tmp_path, garments), garments, ("title", "description")))
    said: list[str | None] = ["red shirt"] * 6
    whole = stage._predictor._encoder.encode

    def encode(products: Any) -> torch.Tensor:
        bad = [title == "wrong" for title in products.texts["title"]]
        return torch.where(torch.tensor(bad)[:, None], torch.nan, whole(products))

    monkeypatch.setattr(stage._predictor._encoder, "encode", encode)
    out = stage(block(title=["red shirt", "wrong", "wrong", *said[3:]], description=said))
    assert codes(out) == [*WANTED, (None, None)]
    assert out["picture_error"].to_pylist()[5].startswith("not_an_image")


@pytest.mark.long
def test_a_vector_of_no_numbers_goes_to_quarantine(small_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Embed(Board(), EncoderSource(small_model), CONFIG)
    break_encode(stage._predictor._encoder, monkeypatch, 1)
    nothing: list[str | None] = [None] * 6
    table = block(split=nothing).append_column("category_path", pa.nulls(6, pa.list_(pa.string())))
    out = stage(table)
    assert codes(out) == [*WANTED, ("decode", "not_an_image")]
    assert all(np.isfinite(vector).all() for vector in out["vector"].to_pylist() if vector is not None)


@pytest.fixture
def zoom(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save_zoom_artifact(str(tmp_path / "zoom"), ZoomNetwork(ZoomConfig(image_size_px=22)), metrics={})
    return str(tmp_path / "zoom")


def break_zoom(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, deviation = predictor._run, pixels_of(1, 22)

    def run(pictures: torch.Tensor) -> torch.Tensor:
        bad = (pictures.float().std((1, 2, 3)) - deviation).abs() < 0.01
        return torch.where(bad, torch.nan, whole(pictures))

    monkeypatch.setattr(predictor, "_run", run)


@pytest.mark.long
def test_a_picture_that_the_zoom_filter_cannot_judge_is_neither_kept_nor_rejected(
    zoom: str, small_model: str, garments: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = JudgeZoom(
        Board(), model=zoom, device="cpu", precision="float32", batch_size=2, engine="auto", threads=0,
        limits=PictureLimits(),
    )  # fmt: skip
    break_zoom(stage._predictor, monkeypatch)
    out = stage(block())
    assert codes(out) == [*WANTED, ("decode", "not_an_image")]
    assert out["zoomed_probability"].is_null().to_pylist() == [False, True, True, False, False, True]
    scoring = Predict(Board(), spec(small_model, garments, zoom=zoom))
    assert scoring._zoom is not None
    break_zoom(scoring._zoom, monkeypatch)
    out = scoring(block())
    assert codes(out)[1] == ("predict", "not_a_number")
    assert out["category_path"][1].as_py() is None


def overflowing(uri: str, source: str) -> str:
    """Save a model of weights that are numbers, and whose answers are none."""
    artifact = load_artifact(source)
    with torch.no_grad():
        for name, tensor in artifact.model.state_dict().items():
            if name.endswith(("bn1.weight", "bn2.weight")):
                tensor.fill_(3e38)
    save_artifact(uri, artifact.model, vocabulary=artifact.vocabulary, taxonomy=artifact.taxonomy, metrics={})
    return uri


@pytest.mark.long
def test_one_question_fails_where_one_answer_is_no_number(small_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(small_model, CONFIG)
    break_encode(model._predictor._encoder, monkeypatch, 1)
    pixels = model._predictor.decode(PICTURES[:2])[0].numpy()
    for explain in (False, True):
        good, bad = model._answers_or_errors(
            [Question(pixels[:1], explain=explain), Question(pixels[1:], explain=explain)]
        )
        assert not isinstance(good, Exception)
        assert not isinstance(bad, Exception)
        assert "category_path" in _result(good, 0, CategorizeOptions())
        assert _result(bad, 0, CategorizeOptions())["error"]["code"] == "not_a_number"
    model.check_health()


@pytest.mark.slow  # every run has one picture without an answer
@pytest.mark.usefixtures("local_ray")
def test_a_model_of_no_answers_scores_nothing(
    catalog: str, small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = overflowing(str(tmp_path / "model"), small_model)
    output = str(tmp_path / "run")
    assert main(["score", "--catalog", catalog, "--model", model, "--output", output, "--precision", "float32"]) == 3
    assert "are in quarantine" in capsys.readouterr().err
    assert rows(output, "predictions") == []
    found = [row["error_code"] for row in rows(output, "quarantine")]
    assert found.count("not_a_number") == 112
    assert all(row["category_path"] is None for row in rows(output, "products"))
