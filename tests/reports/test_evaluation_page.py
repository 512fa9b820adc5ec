import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import ArtifactError, StorageError
from atlas_ray.evaluation.paths import NEW_PATHS, TABLES, evaluate
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.reports.page import MAX_BYTES
from atlas_ray.schemas import CATEGORIZED, LABEL_ERRORS
from atlas_ray.taxonomy import Taxonomy
from tests.support.held_files import HeldFiles
from tests.support.parts import Page, check_self_contained, picture

HOSTILE = "<script src=//evil.example/x.js></script>"


@pytest.fixture
def run(tmp_path: Path, garments: Taxonomy, small_model: str) -> str:
    """A run of 40 products, every fourth taken for another path; one without a picture, one undecided."""
    leaves = [list(path) for path in garments.leaves]
    items = []
    for number in range(40):
        file = tmp_path / f"{number}.jpg"
        file.write_bytes(picture(number % 10) if number != 35 else b"broken")
        true, said = leaves[number % 8], leaves[(number % 8 + (number % 4 == 3)) % 8]
        items.append({
            "product_id": f"{number} {HOSTILE}", "true_category_path": true, "category_path": said,
            "probability": 0.5 + number / 100, "level_probabilities": [0.9, 0.8, 0.5 + number / 100][: len(said)],
            "alternatives": [{"category_path": leaves[(number + 3) % 8], "probability": 0.1}],
            "outside_probability": 0.3, "decided_level": len(said), "image_uri": str(file), "split": "test",
            "store": "shop <b>", "price": float(number), "image_size_px": 60 + 10 * number,
            "zoomed_probability": number / 40, "images_unread": number % 2 * 2 if number else None,
        })  # fmt: skip
    items[4] |= {"image_uri": ""}
    items[5] |= {"decided_level": 1, "category_path": items[5]["category_path"][:1], "probability": 0.9}  # type: ignore[index]
    items[5]["alternatives"] = [{"category_path": leaves[5], "probability": 0.5}]
    (tmp_path / "products").mkdir()
    pq.write_table(pa.Table.from_pylist(items, schema=CATEGORIZED), tmp_path / "products" / "a.parquet")
    account = {"identity": {"model_id": load_artifact(small_model).id, "taxonomy_id": garments.id}}
    (tmp_path / "run.json").write_text(json.dumps(account))
    return str(tmp_path)


@pytest.mark.long
def test_the_page_shows_what_went_wrong_and_needs_nothing_else(run: str, small_model: str) -> None:
    metrics = evaluate(run, model=small_model)["test"]
    assert metrics.exact == 0.75  # the one that was answered with an ancestor has its leaf right
    assert metrics.answered == 1.0
    assert metrics.precision == 0.75
    folder = Path(run) / "evaluation"
    text = (folder / "report.html").read_text()
    assert len(text) < MAX_BYTES
    check_self_contained(text)
    page = Page(text)
    said = "".join(page.text)
    assert HOSTILE in said
    assert "The confusions that cost most" in said
    assert "By price" in said
    assert "Where it looked: wrong answers" in said
    assert "Paths that the taxonomy does not have" in said
    assert "not_an_image" in said  # the broken picture of a confusion
    assert "75.0% of 40 test products right; “" in said
    assert len(page.sources) >= 8
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 2 + 1 + 3  # of the whole path, and of three levels
    for name, schema in TABLES.items():
        table = pq.read_table(folder / f"{name}.parquet")
        assert table.schema.equals(schema)
        assert len(table)
    slices = pq.read_table(folder / "slices.parquet").to_pylist()
    (store,) = [row for row in slices if row["split"] == "test" and row["column"] == "store"]
    assert (store["band"], store["products"], store["accuracy"]) == ("shop <b>", 40, 0.75)
    sizes = {row["band"]: row["products"] for row in slices if row["split"] == "test" and row["column"] == "price"}
    assert sizes == {"0 to 1": 1, "1 to 2": 1, "2 to 5": 3, "5 to 10": 5, "10 to 20": 10, "20 to 50": 20}
    read = {row["band"]: row for row in slices if row["split"] == "test" and row["column"] == "images_unread"}
    assert {band: row["products"] for band, row in read.items()} == {
        "(unknown)": 1, "pictures too": 19, "texts alone": 20,
    }  # fmt: skip
    assert read["texts alone"]["accuracy"] == 0.5
    assert "By what was read of the product" in said
    confusions = pq.read_table(folder / "confusions.parquet").to_pylist()
    assert sum(row["products"] for row in confusions if row["split"] == "test") == 10


@pytest.mark.long
def test_new_paths_are_a_table_as_well(run: str, small_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = itertools.cycle([(("Pets", "Leads"), 0.5), (("Pets", "Bowls"), 0.25), (("Pets", "Leads"), 0.75)])
    monkeypatch.setattr(PathPredictor, "propose", lambda _, products: list(itertools.islice(said, len(products))))
    evaluate(run, model=small_model)
    folder = Path(run) / "evaluation"
    assert "Pets > Leads" in (folder / "report.html").read_text().replace("&gt;", ">")
    found = pq.read_table(folder / "new_paths.parquet")
    assert found.schema.equals(NEW_PATHS)
    first, second = found.to_pylist()
    assert (first["split"], first["category_path"], first["probability"]) == ("test", ["Pets", "Leads"], 0.75)
    assert second["category_path"] == ["Pets", "Bowls"]
    assert first["products"] > second["products"] > 0
    assert [len(row["product_ids"]) for row in (first, second)] == [first["products"], second["products"]]
    evaluate(run)
    assert not (folder / "new_paths.parquet").exists()  # no model was asked


def test_likely_label_errors_stand_side_by_side(run: str, tmp_path: Path, garments: Taxonomy) -> None:
    pairs = [
        {"product_id": f"1 {HOSTILE}", "category_path": list(garments.leaves[1]), "other_product_id": "not in the run",
         "other_category_path": list(garments.leaves[2]), "similarity": 0.995},
    ]  # fmt: skip
    embeddings = tmp_path / "embeddings"
    embeddings.mkdir()
    pq.write_table(pa.Table.from_pylist(pairs, schema=LABEL_ERRORS), embeddings / "label_errors.parquet")
    evaluate(run, embeddings=str(embeddings))
    text = (Path(run) / "evaluation" / "report.html").read_text()
    section = Page(text[text.index("Likely label errors") :])
    assert len([tag for tag, _ in section.tags if tag == "figure"]) == 2
    assert len([tag for tag, _ in section.tags if tag == "img"]) == 1
    said = "".join(section.text)
    assert "(99.5% alike)" in said
    assert "no_picture" in said


@pytest.mark.long
def test_few_files_of_pictures_are_held(run: str, small_model: str, held_files: HeldFiles) -> None:
    evaluate(run, model=small_model)
    assert held_files.read >= 39
    assert 1 < held_files.most <= 17  # a group, and the last one looked at


@pytest.mark.long
def test_what_cannot_be_shown(run: str, tmp_path: Path, small_model: str) -> None:
    with pytest.raises(StorageError, match="atlas-ray similar"):
        evaluate(run, embeddings=str(tmp_path / "nowhere"))
    account = json.loads((tmp_path / "run.json").read_text())
    account["identity"]["model_id"] = "0" * 16
    (tmp_path / "run.json").write_text(json.dumps(account))
    with pytest.raises(ArtifactError, match="the run was made with 0000000000000000"):
        evaluate(run, model=small_model)
