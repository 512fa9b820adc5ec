"""Runs that carry answers over, for real: a local Ray, pictures in S3 that change between runs, and stops."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from atlas_ray.artifacts import save_zoom_artifact
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, OutputError
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.checkpoint import CHECKPOINT
from atlas_ray.runtime.job import Job
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids
from atlas_ray.scoring import carry
from atlas_ray.scoring import run as score_run
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.taxonomy import Taxonomy
from tests.scoring.test_score import same
from tests.support.parts import make_artifact, make_fused, picture, rows

pytestmark = pytest.mark.usefixtures("local_ray")
PRODUCT_COUNT, BAD = 20, {"P03": b"not a picture", "P04": b""}


def products(count: int = PRODUCT_COUNT) -> dict[str, list[str]]:
    """Return products with three pictures each, and one without any."""
    listed = {f"P{n:02d}": [f"s3://shop/pictures/{n:02d}-{k}.jpg" for k in range(3)] for n in range(count)}
    return {**listed, "bare": []}


def write(folder: Path, listed: Mapping[str, list[str]], titles: Mapping[str, str] | None = None) -> str:
    """Write a catalogue of products with these pictures."""
    shutil.rmtree(folder, ignore_errors=True)
    pairs = [(product, uri) for product, uris in listed.items() for uri in uris]
    columns: dict[str, Any] = {name: pa.nulls(len(listed), PRODUCTS.field(name).type) for name in PRODUCTS.names}
    columns |= {"product_id": list(listed), "image_uris": list(listed.values())}
    columns["title"] = [(titles or {}).get(product, "red shirt") for product in listed]
    images: dict[str, Any] = {name: pa.nulls(len(pairs), IMAGES.field(name).type) for name in IMAGES.names}
    owners, uris = ([pair[at] for pair in pairs] for at in (0, 1))
    images |= {"image_id": pa.array(image_ids(owners, uris)), "product_id": owners, "image_uri": uris}
    for name, table in (("products", pa.table(columns, PRODUCTS)), ("images", pa.table(images, IMAGES))):
        (folder / name).mkdir(parents=True)
        pq.write_table(table, folder / name / "part-00000.parquet")
    return str(folder)


def put(uri: str, content: bytes) -> None:
    boto3.client("s3").put_object(Bucket="shop", Key=uri.removeprefix("s3://shop/"), Body=content)


def run(catalog: str, model: str, output: Path | str, *, batch_size: int = 8, **fields: Any) -> RunReport:
    predictor = PredictorConfig(precision="float32", batch_size=batch_size)
    return score(ScoreConfig(catalog=catalog, model=model, output=str(output), predictor=predictor, **fields))


def assert_equal(output: Path, whole: Path, *, but_for: tuple[str, ...] = ()) -> None:
    """Check that two runs have the same tables, but for whose answer it was."""
    for name in {"predictions", "filtered", "quarantine", "products"} - {*but_for}:
        one, other = (
            [{key: value for key, value in row.items() if key != "images_carried"} for row in rows(folder, name)]
            for folder in (output, whole)
        )
        assert same(one, other), name
    counts = [json.loads((folder / "run.json").read_text())["counts"] for folder in (output, whole)]
    for one in counts:
        assert one["input"] == one["scored"] + one["carried"] + one["filtered"] + one["quarantined"]
        one["scored"] += one.pop("carried")
    assert counts[0] == counts[1]


@pytest.fixture(scope="module")
def folder(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the catalogue `one`, and its pictures in S3: two of the first ones are damaged, one is missing."""
    folder = tmp_path_factory.mktemp("incremental")
    for number, (product, uris) in enumerate(products().items()):
        for position, uri in enumerate(uris):
            put(uri, BAD.get(product, b"") if product in BAD and not position else picture(3 * number + position, 40))
    boto3.client("s3").delete_object(Bucket="shop", Key="pictures/05-0.jpg")
    write(folder / "one", products())
    return folder


@pytest.fixture(scope="module")
def first(folder: Path, small_model: str, local_ray: None) -> RunReport:
    report = run(str(folder / "one"), small_model, folder / "first")
    assert report.counts["scored"] == 3 * PRODUCT_COUNT - 3
    return report


@pytest.fixture(scope="module")
def changed(folder: Path, first: RunReport) -> str:
    """The next catalogue: a new product, one that is gone, one with another picture, four pictures that changed."""
    listed = products(PRODUCT_COUNT + 1)
    del listed["P10"]
    listed["P11"] = [*listed["P11"][:2], "s3://shop/pictures/another.jpg"]
    for name, number in (("20-0", 1), ("20-1", 2), ("20-2", 3), ("another", 4), ("05-0", 5), ("12-0", 6), ("12-1", 7)):
        put(f"s3://shop/pictures/{name}.jpg", picture(100 + number, 40))
    put("s3://shop/pictures/03-0.jpg", picture(99, 40))
    boto3.client("s3").delete_object(Bucket="shop", Key="pictures/13-0.jpg")
    return write(folder / "two", listed)


@pytest.fixture(scope="module")
def whole(folder: Path, small_model: str, changed: str) -> Path:
    """A run over all of the next catalogue."""
    run(changed, small_model, folder / "whole")
    return folder / "whole"


def test_only_what_changed_is_scored(
    folder: Path, small_model: str, first: RunReport, changed: str, whole: Path, tmp_path: Path
) -> None:
    report = run(changed, small_model, tmp_path / "run", previous=first.output)
    assert_equal(tmp_path / "run", whole)
    assert report.counts["carried"] == 3 * PRODUCT_COUNT - 3 - 3 - 1 - 3
    assert report.counts["scored"] == 8
    assert report.run["previous"] == {
        "run": first.output,
        # of the damaged ones, one is carried over; the other was mended
        "carried": {"predictions": report.counts["carried"], "filtered": 0, "quarantine": 1},
        "to_score": {"new": 4, "changed": 4, "asked again": 1},
    }
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "predictions", "filtered", "quarantine", "products", "predicted_taxonomy.json", "score.json", "run.json",
    }  # fmt: skip
    again = run(changed, small_model, tmp_path / "run", previous=first.output)
    assert again.already_done

    # The next day nothing has changed; the day before carried over most of it.
    report = run(changed, small_model, tmp_path / "next", previous=str(tmp_path / "run"), trust="content")
    assert_equal(tmp_path / "next", whole)
    assert report.counts["carried"] == 3 * PRODUCT_COUNT - 2
    assert report.run["previous"]["to_score"] == {"new": 0, "changed": 0, "asked again": 2}


def test_a_new_model_carries_nothing_over_and_says_so(
    folder: Path,
    small_model: str,
    first: RunReport,
    garments: Taxonomy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_artifact(str(tmp_path / "other"), garments, seed=9)
    report = run(str(folder / "one"), str(tmp_path / "other"), tmp_path / "run", previous=first.output)
    assert report.counts["carried"] == 0
    reason = f"model_id is {report.run['identity']['model_id']!r}, there it was {first.run['identity']['model_id']!r}"
    assert report.run["previous"] == {"run": first.output, "carries_nothing": reason}
    assert f"nothing is carried over from {first.output}: {reason}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "moment",
    ["half", *(pytest.param(moment, marks=pytest.mark.slow) for moment in ("comparing", "compared", "all"))],
)
def test_a_stopped_run_goes_on(
    moment: str, small_model: str, first: RunReport, changed: str, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    output = tmp_path / "run"
    fields: dict[str, Any] = {"previous": first.output, "rows_per_file": 4, "batch_size": 2}
    place: tuple[Any, str] = {
        "comparing": (carry, "_compare_all"),  # its files are there, and not what says that they are all
        "compared": (score_run, "carry_over"),
    }.get(moment, (Job, "stream"))
    with monkeypatch.context() as patched:
        stop_after(patched, *place)
        with pytest.raises(KeyboardInterrupt):
            run(changed, small_model, output, **fields)
    done = 0
    if moment in ("half", "all"):
        commits = sorted((output / CHECKPOINT).iterdir())
        if moment == "half":
            commits.pop().unlink()  # what it named is undone
        done = sum(pq.read_metadata(file).num_rows for file in commits)
        assert 0 < done <= 9
    report = run(changed, small_model, output, **fields)
    assert report.run["resumed_from"] == done
    assert_equal(output, whole)
    assert report.run["previous"]["to_score"] == {"new": 4, "changed": 4, "asked again": 1}


def stop_after(patched: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Let a function do its work, and stop as Ctrl-C would."""
    function = getattr(where, name)

    def stopped(*arguments: Any, **fields: Any) -> None:
        function(*arguments, **fields)
        raise KeyboardInterrupt

    patched.setattr(where, name, stopped)


@pytest.mark.slow  # of what decides, every run has the pictures
def test_texts_decide_too(folder: Path, garments: Taxonomy, first: RunReport, changed: str, tmp_path: Path) -> None:
    model = make_fused(tmp_path, garments)
    listed = products()
    before = write(tmp_path / "before", listed)
    report = run(before, model, tmp_path / "first")
    assert report.counts["input"] == 3 * PRODUCT_COUNT + 1
    after = write(
        tmp_path / "after", {**listed, "other": []}, {"P07": "blue saree", "bare": "blue", "P12": "red shirt"}
    )
    report = run(after, model, tmp_path / "run", previous=str(tmp_path / "first"))
    run(after, model, tmp_path / "whole")
    assert_equal(tmp_path / "run", tmp_path / "whole")
    assert report.run["previous"]["to_score"] == {"new": 1, "changed": 4, "asked again": 1}  # one picture is missing
    assert (
        report.run["without_picture_by_code"]
        == json.loads((tmp_path / "whole" / "run.json").read_text())["without_picture_by_code"]
    )


@pytest.mark.slow  # likewise
def test_close_ups_of_a_product_are_told_apart_again(
    folder: Path, small_model: str, first: RunReport, changed: str, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    save_zoom_artifact(str(tmp_path / "zoom"), ZoomNetwork(ZoomConfig(image_size_px=30)), metrics={})
    listed = products()
    before = write(tmp_path / "before", listed)
    report = run(before, small_model, tmp_path / "probe", zoom_model=str(tmp_path / "zoom"), zoom_threshold=1.0)
    judged = {row["image_uri"]: row["zoomed_probability"] for row in rows(report.output, "predictions")}
    fields = {"zoom_model": str(tmp_path / "zoom"), "zoom_threshold": sorted(judged.values())[len(judged) // 2]}
    first_run = run(before, small_model, tmp_path / "first", **fields)
    assert first_run.counts["filtered"] > 0
    # Each product loses the picture that was least zoomed: of some, what was left out is now all that there is.
    after = {
        product: sorted(uris, key=lambda uri: judged.get(uri, 2.0))[1:] if number % 3 == 0 else uris
        for number, (product, uris) in enumerate(listed.items())
    }
    catalog = write(tmp_path / "after", after)
    report = run(catalog, small_model, tmp_path / "run", previous=first_run.output, **fields)
    run(catalog, small_model, tmp_path / "whole", **fields)
    # A picture that is left out at the end may have been scored, where others of its product were not at hand.
    assert_equal(tmp_path / "run", tmp_path / "whole", but_for=("predictions", "filtered"))
    assert report.counts["carried"] > 20
    assert report.run["previous"]["carried"]["filtered"] > 0
    assert report.run["previous"]["to_score"]["asked again"] > 0


def test_mistakes_are_told_before_anything_starts(
    folder: Path, small_model: str, first: RunReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CatalogError, match="not a finished scoring run"):
        run(str(folder / "one"), small_model, tmp_path / "run", previous=str(folder / "one"))
    with pytest.raises(OutputError, match="is the earlier run itself; score into a folder of its own"):
        run(str(folder / "one"), small_model, Path(first.output), previous=first.output)
    assert not (tmp_path / "run").exists()
    command = ["score", "--catalog", str(folder / "one"), "--model", small_model, "--output", str(tmp_path / "run")]
    assert main([*command, "--previous", first.output, "--trust", "luck"]) == 2
    assert "--trust is 'luck'; expected one of etag, content, uri" in capsys.readouterr().err
