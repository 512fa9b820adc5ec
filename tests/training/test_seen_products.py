"""From one import to the next: what a model was trained on, told wherever it is measured."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.cli.main import main
from atlas_ray.formats.fitted import CALIBRATED, TRAINED
from atlas_ray.runs.run_record import read_run
from tests.support.parts import rows

pytestmark = pytest.mark.usefixtures("local_ray")
SMALL = ("--embedding-dim=8", "--filters=8", "--hidden-dim=8", "--batch-size=64", "--epochs=2", "--dropout=0")
KINDS = ("shirt", "shoe", "saree", "skirt")


def imported(folder: Path, numbers: Sequence[int], top: str = "Top", **settings: Any) -> str:
    folder.mkdir()
    with (folder / "shop.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "image", "title", "category"))
        for number in numbers:
            kind = KINDS[number % len(KINDS)]
            label = top if number % 50 == 49 else f"{top} > {kind}"  # a label above the leaves now and then
            writer.writerow((f"sku-{number}", f"{number}.jpg", f"a {kind} of number {number % 7}", label))
    catalog = str(folder / "catalog")
    import_catalog(ImportConfig(source=str(folder / "shop.csv"), output=catalog, **settings))
    return catalog


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> tuple[Path, list[int], str]:
    """A folder, the products of the second week, and the model of the first one."""
    folder = tmp_path_factory.mktemp("weeks")
    first = imported(folder / "first", range(1200))
    draws = random.Random(3)
    second = [*draws.sample(range(1200), 1150), *range(1200, 1300)]
    draws.shuffle(second)
    model = str(folder / "model")
    assert main(["train", "text", "--catalog", first, "--output", model, "--field", "title", *SMALL]) == 0
    return folder, second, model


def test_nothing_that_was_trained_on_is_tested_a_week_later(
    weeks: tuple[Path, list[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, numbers, model = weeks
    first, second = str(folder / "first" / "catalog"), imported(folder / "second", numbers)
    trained = load_artifact(model).fitted
    assert trained is not None
    products = {row["product_id"]: row for row in rows(first, "products")}
    learned = {name for name, row in products.items() if row["split"] == "train"}
    assert len(trained.products) == len(learned)
    assert (trained.uses(sorted(learned)) == TRAINED).all()
    run = str(folder / "run")
    assert main(["score", "--catalog", second, "--model", model, "--output", run]) == 0
    assert main(["evaluate", "--run", run]) == 0
    told = capsys.readouterr()
    assert "left out of all figures" not in told.err
    assert not (folder / "run" / "evaluation" / "fitted.parquet").exists()
    found = rows(run, "products")
    assert {row["split"] for row in found if row["fitted"]} == {"train"}
    assert sum(row["fitted"] for row in found) > 700

    # What an import by the order of the rows does: told by name, and left out.
    old = imported(folder / "old", numbers, split_exact=True)
    run = str(folder / "old-run")
    assert main(["score", "--catalog", old, "--model", model, "--output", run]) == 0
    leaked = {row["product_id"] for row in rows(run, "products") if row["fitted"] and row["split"] == "test"}
    assert len(leaked) > 100
    assert main(["evaluate", "--run", run]) == 0
    told = capsys.readouterr()
    assert f"{len(leaked)} labelled products of the split 'test' are left out of all figures" in told.err
    listed = pq.read_table(folder / "old-run" / "evaluation" / "fitted.parquet").to_pylist()
    assert {row["product_id"] for row in listed if row["split"] == "test"} == leaked
    tested = {row["product_id"] for row in rows(run, "products") if row["split"] == "test"}
    headline = pq.read_table(folder / "old-run" / "evaluation" / "headline.parquet").to_pylist()
    (measured,) = [row["value"] for row in headline if (row["split"], row["figure"]) == ("test", "products")]
    assert measured == len(tested) - len(leaked)


def test_calibration_says_what_it_was_fitted_on(
    weeks: tuple[Path, list[int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, model = weeks
    first = str(folder / "first" / "catalog")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path(model).iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    assert main(["calibrate", "--model", str(copy), "--catalog", first]) == 0
    assert "was trained on" not in capsys.readouterr().err
    val = [
        row["product_id"] for row in rows(first, "products") if row["split"] == "val" and len(row["category_path"]) > 1
    ]
    fitted = load_artifact(str(copy)).fitted
    assert fitted is not None
    assert (fitted.uses(val) == CALIBRATED).all()
    assert main(["calibrate", "--model", str(copy), "--catalog", first, "--split", "train"]) == 0
    assert "the model was trained on" in capsys.readouterr().err


def test_a_model_of_another_taxonomy(
    weeks: tuple[Path, list[int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = weeks[2]
    other = imported(tmp_path / "other", range(40), top="Elsewhere")
    run = tmp_path / "run"
    assert main(["score", "--catalog", other, "--model", model, "--output", str(run)]) == 2
    told = capsys.readouterr().err
    assert "none of the 4 labels of the catalogue" in told
    assert "'Elsewhere > " in told
    assert "its leaves 'Top > " in told
    assert f"if that is meant, say so with --taxonomy {model}/taxonomy.json" in told
    assert not run.exists()
    for command in (["calibrate", "--model", model], ["train", "text", "--field", "title", "--output", str(run)]):
        flags = ["--taxonomy", f"{model}/taxonomy.json"] if command[0] == "train" else []
        assert main([*command, "--catalog", other, *flags]) == 2
    capsys.readouterr()
    # Some labels are new: told once, on stderr and in run.json, and the run goes on.
    wider = imported(tmp_path / "wider", range(30))
    (table,) = (Path(wider) / "products").glob("*.parquet")
    products = pq.read_table(table)
    paths = [["Top", "hat"] if n < 3 else path for n, path in enumerate(products["category_path"].to_pylist())]
    at = products.column_names.index("category_path")
    pq.write_table(products.set_column(at, products.field(at), [paths]), table)
    (Path(wider) / "taxonomy.json").unlink()
    assert main(["score", "--catalog", wider, "--model", model, "--output", str(run)]) == 0
    told = capsys.readouterr().err
    assert told.count("1 of the 5 labels of the catalogue") == 1
    assert "which 3 of 30 labelled products have" in told
    (note,) = (read_run(str(run)) or {})["notes"]
    assert note in told
    assert main(["evaluate", "--run", str(run)]) == 0
    assert "1 of the 5 labels of its products" in capsys.readouterr().err


def test_labels_above_the_leaves_are_told_when_training(
    weeks: tuple[Path, list[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, model = weeks
    first = str(folder / "first" / "catalog")
    above = sum(row["split"] == "train" and len(row["category_path"]) == 1 for row in rows(first, "products"))
    assert above > 5
    assert (
        main(["train", "text", "--catalog", first, "--output", model, "--field", "title", *SMALL]) == 0
    )  # done before
    assert f"{above} texts are labelled above the leaf; any leaf below their label is right for them" in (
        capsys.readouterr().out
    )
    metrics = load_artifact(model).metrics
    assert (metrics["examples_above_leaf"], metrics["products_without_a_leaf"]) == (above, 0)
