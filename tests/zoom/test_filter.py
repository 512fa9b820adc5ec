"""The filter for real: a local Ray over drawn pictures, and the same filter within scoring."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from atlas_ray.artifacts import load_zoom_artifact, save_zoom_artifact
from atlas_ray.errors import OutputError, PictureError
from atlas_ray.modalities.pictures import decode
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.checkpoint import CHECKPOINT
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.zoom.choose import ZOOMED
from atlas_ray.zoom.filter import SHEET_PICTURES, FilterConfig, filter_catalog
from tests.support.parts import rows

pytestmark = pytest.mark.usefixtures("local_ray")
PICTURES_A_PRODUCT = 4


@pytest.fixture(scope="module")
def album(catalog: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The drawn catalogue's pictures, four a product, in another order than the products."""
    uris = [row["image_uri"] for row in rows(catalog, "images")]
    owners = [f"P{number % -(-len(uris) // PICTURES_A_PRODUCT):02d}" for number in range(len(uris))]
    folder = tmp_path_factory.mktemp("album")
    products: dict[str, list[str]] = {}
    for owner, uri in zip(owners, uris, strict=True):
        products.setdefault(owner, []).append(uri)
    columns: dict[str, Any] = {name: pa.nulls(len(products), PRODUCTS.field(name).type) for name in PRODUCTS.names}
    columns |= {"product_id": list(products), "image_uris": list(products.values()), "title": list(products)}
    images = {name: pa.nulls(len(uris), IMAGES.field(name).type) for name in IMAGES.names}
    images |= {"image_id": pa.array(image_ids(owners, uris)), "product_id": owners, "image_uri": uris}
    for name, table in (("products", pa.table(columns, PRODUCTS)), ("images", pa.table(images, IMAGES))):
        (folder / name).mkdir()
        pq.write_table(table, folder / name / "part-00000.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def judged(album: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[int, float], float]:
    """An untrained filter, what it makes of each picture that can be decoded, and their 30% quantile."""
    torch.manual_seed(3)
    # 30 and the model's 32 are both served by a JPEG decoded at half its size, so the pixels are the same.
    uri = str(tmp_path_factory.mktemp("zoom"))
    save_zoom_artifact(uri, ZoomNetwork(ZoomConfig(image_size_px=30)), metrics={})
    predictor = ZoomPredictor(load_zoom_artifact(uri), precision="float32")
    pixels, ids = [], []
    for row in rows(album, "images"):
        try:
            pixels.append(decode(Path(row["image_uri"]).read_bytes(), 30).pixels)
            ids.append(row["image_id"])
        except (PictureError, FileNotFoundError):
            continue
    found = predictor(torch.stack(pixels))
    return uri, dict(zip(ids, found.tolist(), strict=True)), float(np.quantile(found, 0.3))


@pytest.fixture(scope="module")
def filtered(
    album: str, judged: tuple[str, dict[int, float], float], tmp_path_factory: pytest.TempPathFactory
) -> RunReport:
    return run(album, judged, tmp_path_factory.mktemp("filtered") / "run")


def run(album: str, judged: tuple[str, dict[int, float], float], output: Path, **fields: Any) -> RunReport:
    model, _, threshold = judged
    fields = {"threshold": threshold, "precision": "float32", "batch_size": 8, "rows_per_file": 16, **fields}
    return filter_catalog(FilterConfig(catalog=album, model=model, output=str(output), **fields))


def expected(album: str, judged: tuple[str, dict[int, float], float]) -> tuple[set[int], set[int]]:
    """Decide by the rule's words: the pictures kept, and those of them that are only the least zoomed."""
    _, chances, threshold = judged
    kept, saved = set(), set()
    products: dict[str, list[int]] = {}
    for row in rows(album, "images"):
        if row["image_id"] in chances:
            products.setdefault(row["product_id"], []).append(row["image_id"])
    for ids in products.values():
        normal = [one for one in ids if chances[one] < threshold]
        if not normal:
            saved.add(min(ids, key=lambda one: (chances[one], one)))
        kept |= set(normal)
    return kept | saved, saved


def test_every_picture_is_kept_rejected_or_in_quarantine(
    album: str, judged: tuple[str, dict[int, float], float], filtered: RunReport
) -> None:
    kept, rejected, quarantine = (rows(filtered.output, name) for name in ("kept/images", "rejected", "quarantine"))
    everything = [row["image_id"] for row in (*kept, *rejected, *quarantine)]
    assert sorted(everything) == [row["image_id"] for row in rows(album, "images")]
    wanted, saved = expected(album, judged)
    assert saved
    assert len(wanted) > len(saved)
    assert {row["image_id"] for row in kept} == wanted
    assert {row["image_id"] for row in kept if row["least_zoomed"]} == saved
    assert filtered.counts == {
        "input": 117, "kept": len(wanted), "kept_least_zoomed": len(saved), "rejected": 112 - len(wanted),
        "quarantined": 5, "products": 30, "repeated_input_rows": 0,
    }  # fmt: skip
    for row in (*kept, *rejected):
        assert row["zoomed_probability"] == pytest.approx(judged[1][row["image_id"]], abs=1e-5)
        assert row["width"] == 128
        assert len(row["sha256"]) == 64
    products = {row["product_id"]: row for row in rows(filtered.output, "kept/products")}
    assert len(products) == 30
    left = {row["image_uri"] for row in kept}
    for row in rows(album, "products"):
        assert products[row["product_id"]]["image_uris"] == [uri for uri in row["image_uris"] if uri in left]
        assert products[row["product_id"]]["title"] == row["title"]
    drawn = 2 * min(SHEET_PICTURES, 112 - len(wanted)) + len(saved)
    assert (Path(filtered.output) / "contact-sheet.html").read_text().count("<figure") == drawn


@pytest.mark.slow  # of the stops, every run has scoring's
def test_a_stopped_run_goes_on_and_a_finished_one_is_left_alone(
    album: str, judged: tuple[str, dict[int, float], float], filtered: RunReport, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    # As after a crash: one file committed, another one written and not committed.
    seen = pa.concat_tables(pq.read_table(Path(filtered.output) / name) for name in ("kept/images", "rejected"))
    seen = seen.select(ZOOMED.names).cast(ZOOMED)
    for folder in ("zoom", CHECKPOINT):
        (output / folder).mkdir(parents=True)
    shutil.copy(Path(filtered.output) / "filter.json", output)
    pq.write_table(seen.slice(0, 50), output / "zoom" / "old_000000.parquet")
    pq.write_table(seen.slice(0, 50).select(["image_id"]), output / CHECKPOINT / "old_000000.parquet")
    pq.write_table(seen.slice(50, 20), output / "zoom" / "old_000001.parquet")
    pq.write_table(seen.slice(50, 20).select(["image_id"]), output / CHECKPOINT / "old_000001.pending.parquet")
    again = run(album, judged, output)
    assert again.run["resumed_from"] == 50
    assert again.counts == filtered.counts
    for name in ("kept/images", "rejected"):
        assert [row["image_id"] for row in rows(output, name)] == [
            row["image_id"] for row in rows(filtered.output, name)
        ]
    assert run(album, judged, output).already_done
    assert not (output / CHECKPOINT).exists()
    with pytest.raises(OutputError, match="threshold = "):
        run(album, judged, output, threshold=0.9)


def test_scoring_filters_in_its_own_stream(
    album: str, judged: tuple[str, dict[int, float], float], filtered: RunReport, small_model: str, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"predictor": PredictorConfig(precision="float32", batch_size=8), "model": small_model}
    zoom: dict[str, Any] = {"zoom_model": judged[0], "zoom_threshold": judged[2]}
    report = score(ScoreConfig(catalog=album, output=str(tmp_path / "one"), **fields, **zoom))
    assert report.counts["scored"] == filtered.counts["kept"]
    assert report.counts["filtered"] == filtered.counts["rejected"]
    assert report.counts["quarantined"] == 5
    after = score(ScoreConfig(catalog=f"{filtered.output}/kept", output=str(tmp_path / "two"), **fields))
    assert after.counts["input"] == filtered.counts["kept"]
    one, two = (rows(tmp_path / name, "products") for name in ("one", "two"))
    for row, other in zip(one, two, strict=True):
        assert row["category_path"] == other["category_path"]
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)
    saved = {row["product_id"] for row in rows(filtered.output, "kept/images") if row["least_zoomed"]}
    assert {row["product_id"] for row in one if row["only_zoomed"]} == saved
    identity = json.loads((tmp_path / "one" / "run.json").read_text())["identity"]
    assert identity["zoom_threshold"] == judged[2]
