"""Scoring for real: a local Ray, pictures and tables in S3 and on disk."""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.cli.main import main
from atlas_ray.errors import ArtifactError, AuditError, CatalogError, ConfigError, OutputError, TaxonomyError
from atlas_ray.io import storage
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.checkpoint import recover
from atlas_ray.schemas import CATEGORIZED, PREDICTIONS, QUARANTINE
from atlas_ray.scoring.run import FOLDERS, score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.taxonomy import Taxonomy
from tests.conftest import SHOP_COLUMNS
from tests.support.parts import make_artifact, rows

pytestmark = pytest.mark.usefixtures("local_ray")


def run(catalog: str, model: str, output: Path | str, **fields: Any) -> RunReport:
    predictor = PredictorConfig(precision="float32", batch_size=8, **fields.pop("predictor", {}))
    return score(ScoreConfig(catalog=catalog, model=model, output=str(output), predictor=predictor, **fields))


def same(one: Any, other: Any) -> bool:
    """Tell whether two tables are equal, probabilities to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-5)
    return bool(one == other)


@pytest.fixture(scope="session")
def scored(catalog: str, small_model: str, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    output = tmp_path_factory.mktemp("scored") / "run"
    report = run(catalog, small_model, output)
    assert report.counts["input"] == 117
    return output


def test_every_picture_and_every_product_has_its_row(scored: Path, catalog: str) -> None:
    predictions, quarantine, products = (rows(scored, name) for name in ("predictions", "quarantine", "products"))
    images = rows(catalog, "images")
    assert sorted(row["image_id"] for row in predictions + quarantine) == [row["image_id"] for row in images]
    assert [row["product_id"] for row in products] == [row["product_id"] for row in rows(catalog, "products")]
    assert sorted(row["error_code"] for row in quarantine) == [
        "empty", "not_found", "too_many_pixels", "truncated", "unsupported_format",
    ]  # fmt: skip
    assert {row["error_code"]: row["stage"] for row in quarantine}["not_found"] == "fetch"
    assert {row["error_code"]: row["stage"] for row in quarantine}["truncated"] == "decode"
    assert all(row["message"] for row in quarantine)
    for name, schema in (("predictions", PREDICTIONS), ("quarantine", QUARANTINE), ("products", CATEGORIZED)):
        files = [file for file in (scored / name).iterdir() if file.suffix == ".parquet"]
        assert files
        assert all(pq.read_schema(file).equals(schema) for file in files)
    picture = predictions[0]
    assert picture["sha256"] == hashlib.sha256(Path(picture["image_uri"]).read_bytes()).hexdigest()
    by_product = {row["product_id"]: row for row in products}
    for row in predictions:
        product = by_product[row["product_id"]]
        assert product["category_path"] == row["category_path"]
        assert product["probability"] == pytest.approx(row["probability"], abs=1e-6)
        assert product["level_probabilities"] == pytest.approx(row["level_probabilities"], abs=1e-6)


def test_the_account_is_written(scored: Path, small_model: str) -> None:
    account = json.loads((scored / "run.json").read_text())
    assert account["counts"] == {
        "products": 117, "products_categorized": 112, "input": 117, "scored": 112, "carried": 0, "filtered": 0,
        "quarantined": 5, "repeated_input_rows": 0,
    }  # fmt: skip
    assert account["identity"]["model_id"] == json.loads((Path(small_model) / "model.json").read_text())["id"]
    assert account["seconds"]["first_read_to_last_write"] > 0
    assert account["quarantined_by_code"]["not_found"] == 1
    assert not (scored / "checkpoint").exists()


def test_a_finished_run_is_left_alone(scored: Path, catalog: str, small_model: str) -> None:
    before = {file: file.stat().st_mtime_ns for file in scored.rglob("*")}
    report = run(catalog, small_model, scored)
    assert report.already_done
    assert report.counts["scored"] == 112
    assert {file: file.stat().st_mtime_ns for file in scored.rglob("*")} == before


@pytest.mark.parametrize(("limit", "code"), [("0.05", 0), ("0.01", 3)])
def test_too_much_quarantine_is_an_exit_code(
    scored: Path, catalog: str, small_model: str, limit: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", "--catalog", catalog, "--model", small_model, "--output", str(scored)]
    assert main([*command, "--precision", "float32", "--max-quarantine-fraction", limit]) == code
    assert ("4.3% of the pictures are in quarantine, over 1.0%" in capsys.readouterr().err) == (code == 3)


def test_a_run_names_its_taxonomy_from_any_folder(
    catalog: str, small_model: str, garments: Taxonomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Taxonomy(garments.leaves[:3], name="few")
    (tmp_path / "few.json").write_bytes(few.to_json().encode())
    monkeypatch.chdir(tmp_path)
    report = run(os.path.relpath(catalog), small_model, "run", taxonomy="few.json")
    assert report.run["config"]["taxonomy"] == str(tmp_path / "few.json")
    assert report.run["identity"]["taxonomy_id"] == few.id
    answers = {tuple(row["category_path"]) for row in rows(tmp_path / "run", "products") if row["category_path"]}
    assert answers
    assert answers <= set(few.leaves)


def test_two_models_or_taxonomies_never_mix(
    scored: Path, catalog: str, small_model: str, garments: Taxonomy, tmp_path: Path
) -> None:
    make_artifact(str(tmp_path / "other"), garments, seed=9)
    with pytest.raises(OutputError, match="holds a run with model_id = "):
        run(catalog, str(tmp_path / "other"), scored)
    with pytest.raises(OutputError, match="holds a run with taxonomy_id = "):
        run(catalog, small_model, scored, within="Women")
    with pytest.raises(OutputError, match="holds a run with top_k = 5"):
        run(catalog, small_model, scored, predictor={"top_k": 2})


@pytest.mark.slow  # few runs have such a stage
def test_a_decoding_stage_of_its_own_gives_the_same(
    scored: Path, catalog: str, small_model: str, tmp_path: Path
) -> None:
    run(catalog, small_model, tmp_path / "run", decode_stage="stage", workers=2)
    for name in ("predictions", "products"):
        assert same(rows(tmp_path / "run", name), rows(scored, name))
    codes = [
        [(row["image_id"], row["error_code"]) for row in rows(folder, "quarantine")]
        for folder in (scored, tmp_path / "run")
    ]
    assert codes[0] == codes[1]


def test_everything_in_s3(shop: str, small_model: str, scored: Path, s3: str, tmp_path: Path) -> None:
    client = boto3.client("s3")
    for file in Path(shop).parent.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "shop", f"all/shop/{file.relative_to(Path(shop).parent)}")
    for file in Path(small_model).iterdir():
        client.upload_file(str(file), "shop", f"all/model/{file.name}")
    import_catalog(
        ImportConfig(source=f"{s3}/all/shop/products.jsonl", output=f"{s3}/all/catalog", columns=SHOP_COLUMNS)
    )
    report = run(f"{s3}/all/catalog", f"{s3}/all/model", f"{s3}/all/run", rows_per_file=20)
    assert report.counts["scored"] == 112
    assert report.run["quarantined_by_code"]["not_found"] == 1
    place = storage.locate(f"{s3}/all/run/products")
    found = pq.read_table(place.path, filesystem=place.filesystem).sort_by("product_id").to_pylist()
    here = rows(scored, "products")
    for row in (*found, *here):
        row["image_uri"] = row["image_uri"] and row["image_uri"].rpartition("/")[2]
    assert same(found, here)


def halfway(tmp_path: Path, scored: Path, catalog: str) -> Path:
    """A run stopped between two files: half committed, one written but not committed, and what others left."""
    output = tmp_path / "run"
    shutil.copytree(scored, output, ignore=shutil.ignore_patterns("run.json", "products", "predictions", "quarantine"))
    predictions = pq.read_table(scored / "predictions").sort_by("image_id")
    quarantine = pq.read_table(scored / "quarantine")
    for name in ("predictions", "quarantine", "checkpoint"):
        (output / name).mkdir()
    pq.write_table(quarantine, output / "quarantine" / "old_000001.parquet")
    pq.write_table(predictions.slice(0, 60), output / "predictions" / "old_000001.parquet")
    pq.write_table(predictions.slice(60, 20), output / "predictions" / "old_000002.parquet")
    committed = pa.concat_tables([predictions.slice(0, 60).select(["image_id"]), quarantine.select(["image_id"])])
    pq.write_table(committed, output / "checkpoint" / "old_000001.parquet")
    pq.write_table(committed, output / "checkpoint" / "old_000001.pending.parquet")  # a move cut in two
    pending = predictions.slice(60, 20).select(["image_id"])
    pq.write_table(pending, output / "checkpoint" / "old_000002.pending.parquet")
    # No commit names these: a dead attempt's, whose pending file is gone, and a file cut off.
    pq.write_table(predictions.slice(30, 50), output / "predictions" / "dead_000001.parquet")
    pq.write_table(quarantine, output / "quarantine" / "dead_000001.parquet")
    (output / "predictions" / ".dead_000002.parquet.1.2.partial").write_bytes(b"PAR1")
    return output


def test_a_stopped_run_goes_on(scored: Path, catalog: str, small_model: str, tmp_path: Path) -> None:
    output = halfway(tmp_path, scored, catalog)
    report = run(catalog, small_model, output)
    assert report.run["resumed_from"] == 65
    assert (output / "predictions" / "old_000001.parquet").exists()
    left = {file.name for name in ("predictions", "quarantine") for file in (output / name).iterdir()}
    assert not {name for name in left if name.startswith((".", "dead", "old_000002"))}
    for name in ("predictions", "quarantine", "products"):
        assert same(rows(output, name), rows(scored, name))


def test_recovery_undoes_only_what_was_not_committed(scored: Path, catalog: str, tmp_path: Path) -> None:
    output = halfway(tmp_path, scored, catalog)
    assert recover(str(output), FOLDERS) == 4
    assert recover(str(output), FOLDERS) == 0
    assert [file.name for file in (output / "checkpoint").iterdir()] == ["old_000001.parquet"]


def test_a_lost_picture_fails_the_run(scored: Path, catalog: str, small_model: str, tmp_path: Path) -> None:
    output = halfway(tmp_path, scored, catalog)
    everything = pq.read_table(Path(catalog) / "images", columns=["image_id"])
    pq.write_table(everything, output / "checkpoint" / "old_000001.parquet")  # claims what is not there
    with pytest.raises(AuditError) as error:
        run(catalog, small_model, output)
    assert "pictures do not balance" in str(error.value)
    assert not (output / "run.json").exists()


def test_mistakes_are_told_before_anything_starts(
    catalog: str, small_model: str, tmp_path: Path, garments: Taxonomy
) -> None:
    output = tmp_path / "run"
    with pytest.raises(CatalogError, match="no images table"):
        run(str(tmp_path), small_model, output)
    with pytest.raises(ArtifactError, match="not a complete model folder"):
        run(catalog, str(tmp_path), output)
    with pytest.raises(TaxonomyError, match="'Kids' is not in the taxonomy"):
        run(catalog, small_model, output, within="Kids")
    with pytest.raises(OutputError, match=r"is the catalogue itself|holds a model or a catalogue"):
        run(catalog, small_model, catalog)
    with pytest.raises(ConfigError, match="decode_stage is 'gpu'"):
        run(catalog, small_model, output, decode_stage="gpu")
    assert not output.exists()
    (tmp_path / "odd" / "images").mkdir(parents=True)
    pq.write_table(pa.table({"id": [1]}), tmp_path / "odd" / "images" / "a.parquet")
    with pytest.raises(CatalogError, match="no column 'product_id'"):
        run(str(tmp_path / "odd"), small_model, output)


def shape_of(output: Path) -> dict[str, Any]:
    """Return the columns and the number of rows of a run's tables, and the fields and counts of its account."""
    account = json.loads((output / "run.json").read_text())
    tables = {place.name: pq.read_table(place) for place in sorted(output.iterdir()) if [*place.glob("*.parquet")]}
    return {
        "files": sorted(place.name for place in output.iterdir() if place.is_file()),
        "tables": {
            name: {"rows": len(table), "columns": [described(field) for field in table.schema]}
            for name, table in tables.items()
        },
        "run": sorted(account),
        **{f"run.{name}": sorted(account[name]) for name in ("config", "identity", "seconds")},
        "counts": account["counts"],
        "quarantined_by_code": account["quarantined_by_code"],
    }


def described(field: pa.Field) -> str:
    """Return a column's name and type as all versions of Arrow write them."""
    kind = str(field.type).replace("item: ", "element: ").replace(f" ('{field.name}')", "")
    return f"{field.name}: {kind}" + ("" if field.nullable else " not null")


def test_a_run_has_the_shape_that_was_kept(scored: Path) -> None:
    """Compare a run with `kept_run.json`. Without the file the test writes it, and fails once."""
    file = Path(__file__).parent / "kept_run.json"
    found = shape_of(scored)
    if not file.exists():
        file.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"{file} was written anew; look at what differs, and run the test again")
    assert found == json.loads(file.read_text()), f"if the change is meant, delete {file} and run the test twice"
