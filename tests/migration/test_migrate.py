"""A scoring run and a catalogue migrated for real: a local Ray, tables on disk and in S3."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, ConfigError, OutputError, TaxonomyError
from atlas_ray.evaluation.paths import evaluate
from atlas_ray.io import storage
from atlas_ray.migration.run import migrate
from atlas_ray.migration.settings import MigrateConfig
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.runs.run_record import RunReport
from atlas_ray.schemas import CATEGORIZED, PREDICTIONS, PRODUCTS, UNDETERMINED
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.taxonomy import CategoryPath, Taxonomy, compare, format_path, read_mapping
from tests.support.parts import rows

pytestmark = pytest.mark.usefixtures("local_ray")
SUFFIXES = ("_migrated", "_undetermined", "_without_path")


@pytest.fixture(scope="module")
def scored(catalog: str, small_model: str, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    output = tmp_path_factory.mktemp("scored") / "run"
    predictor = PredictorConfig(precision="float32", batch_size=8, top_k=8)
    score(ScoreConfig(catalog=catalog, model=small_model, output=str(output), predictor=predictor, rows_per_file=40))
    return output


@pytest.fixture(scope="module")
def versions(garments: Taxonomy, scored: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two versions and a mapping: two leaves become one, and of those predicted less one is split, one renamed."""
    found = [tuple(row["category_path"]) for row in rows(scored, "products") if row["category_path"]]
    by_count = sorted(garments.leaves, key=found.count, reverse=True)
    one, split, other, renamed, *_, gone = by_count
    merged = (*one[:-1], "Merged")
    table = [(split, (*split[:-1], "Long")), (split, (*split[:-1], "Short")), (one, merged), (other, merged)]
    table += [(renamed, (*renamed[:-1], "Renamed")), (gone, ())]
    kept = [leaf for leaf in garments.leaves if leaf not in {old for old, _ in table}]
    new = Taxonomy([*kept, *dict.fromkeys(path for _, path in table if path)], name="new")
    folder = tmp_path_factory.mktemp("versions")
    (folder / "old.json").write_text(garments.to_json())
    (folder / "new.json").write_text(new.to_json())
    lines = ["old_path,new_path", *(f"{format_path(old)},{format_path(path)}" for old, path in table)]
    (folder / "mapping.csv").write_text("\n".join(lines) + "\n")
    return {
        name: str(folder / file)
        for name, file in (("old", "old.json"), ("new", "new.json"), ("mapping", "mapping.csv"))
    }


def destinations(versions: dict[str, str]) -> dict[CategoryPath, CategoryPath | None]:
    old, new = (Taxonomy.from_json(Path(versions[name]).read_text(), source=name) for name in ("old", "new"))
    found = compare(old, new, read_mapping(versions["mapping"])).destinations
    return {path: one.path for path, one in found.items()}


def run(versions: dict[str, Any], output: Path | str, **source: Any) -> RunReport:
    return migrate(MigrateConfig(**(versions | source), output=str(output)))


def test_a_run_keeps_all_its_rows_and_balances(scored: Path, versions: dict[str, str], tmp_path: Path) -> None:
    report = run(versions, tmp_path / "run", run=str(scored))
    counts, became = report.counts, destinations(versions)
    assert counts["products"] == 117
    assert counts["products_without_path"] == 5
    for what in ("products", "predictions", "labels"):
        assert counts[what] == sum(counts[what + suffix] for suffix in SUFFIXES)
        assert counts[f"{what}_migrated"] > 0
        assert sum(report.run["undetermined_by_reason"][what].values()) == counts[f"{what}_undetermined"] > 0
    new = Taxonomy.from_json(Path(versions["new"]).read_text(), source="new")
    assert report.run["identity"]["taxonomy_id"] == new.id
    for table, schema in (("products", CATEGORIZED), ("predictions", PREDICTIONS)):
        before, after = rows(scored, table), rows(tmp_path / "run", table)
        assert len(after) == len(before)
        assert all(pq.read_schema(file).equals(schema) for file in (tmp_path / "run" / table).iterdir())
        for old, row in zip(before, after, strict=True):
            assert row["taxonomy_id"] == new.id
            assert {k: v for k, v in row.items() if k in ("product_id", "image_id", "model_id", "split")} == {
                k: v for k, v in old.items() if k in ("product_id", "image_id", "model_id", "split")
            }
            path = old["category_path"] and became[tuple(old["category_path"])]
            assert (row["category_path"] is None) == (path is None)
            if path is not None:
                listed = [(row["category_path"], row["probability"])]
                listed += [(one["category_path"], one["probability"]) for one in row["alternatives"]]
                assert {tuple(path) for path, _ in listed} <= new.leaf_set
                assert [p for _, p in listed] == sorted((p for _, p in listed), reverse=True)
                # All 8 leaves were listed: what is not lost is all still there.
                lost = sum(o["probability"] for o in old["alternatives"] if became[tuple(o["category_path"])] is None)
                assert sum(p for _, p in listed) == pytest.approx(1 - lost, abs=1e-5)
    products = {row["product_id"]: row for row in rows(scored, "products")}
    rescore = rows(tmp_path / "run", "rescore")
    assert len(rescore) == counts["products_undetermined"]
    assert all(row["category_path"] == products[row["product_id"]]["category_path"] for row in rescore)
    assert {row["reason"]: len(row["candidates"]) for row in rescore}["split"] == 2
    for row in rows(tmp_path / "run", "relabel"):
        assert row["category_path"] == products[row["product_id"]]["true_category_path"]


@pytest.fixture(scope="module")
def unsure(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a target precision leaves it: leaves, answers above them and undecided products."""
    output = tmp_path_factory.mktemp("unsure") / "run"
    shutil.copytree(scored, output)
    for file in (output / "products").iterdir():
        items = pq.read_table(file).to_pylist()
        for number, row in enumerate(items):
            path, level = row["category_path"], number % 4
            if path is None or level == len(path):
                continue
            leaf = {"category_path": path, "probability": row["probability"]}
            row |= {"category_path": path[:level] or None, "decided_level": level}
            row["probability"] = row["level_probabilities"][level - 1] if level else None
            row["alternatives"] = [leaf, *row["alternatives"]]
        pq.write_table(pa.Table.from_pylist(items, schema=CATEGORIZED), file)
    return output


@pytest.fixture
def moving(garments: Taxonomy, scored: Path, versions: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A version in which the leaf that is predicted most has left its ancestors, and the next one is split."""
    found = [tuple(row["category_path"]) for row in rows(scored, "products") if row["category_path"]]
    first, second, *kept = sorted(garments.leaves, key=found.count, reverse=True)
    table = [(first, ("Kids", *first[1:])), (second, (*second[:-1], "Long")), (second, (*second[:-1], "Short"))]
    (tmp_path / "new.json").write_text(Taxonomy([*kept, *(path for _, path in table)], name="new").to_json())
    lines = ["old_path,new_path", *(f"{format_path(old)},{format_path(path)}" for old, path in table)]
    (tmp_path / "mapping.csv").write_text("\n".join(lines) + "\n")
    return versions | {"new": str(tmp_path / "new.json"), "mapping": str(tmp_path / "mapping.csv")}


@pytest.mark.parametrize(("name", "levels"), [("versions", {0, 1, 2, 3}), ("moving", {0, 3})])
def test_a_run_with_a_target_precision_keeps_all_its_rows(
    request: pytest.FixtureRequest, scored: Path, unsure: Path, tmp_path: Path, name: str, levels: set[int]
) -> None:
    versions = request.getfixturevalue(name)
    wanted = run(versions, tmp_path / "leaves", run=str(scored)).run
    report = run(versions, tmp_path / "run", run=str(unsure))
    counts, reasons = report.counts, dict(report.run["undetermined_by_reason"]["products"])
    regrouped = reasons.pop("regrouped", 0)
    assert (regrouped > 0) == (name == "moving")
    assert reasons == wanted["undetermined_by_reason"]["products"]  # leaves are what has a place or has none
    assert counts["products_without_path"] == wanted["counts"]["products_without_path"] == 5
    assert counts["products_migrated"] + regrouped == wanted["counts"]["products_migrated"]
    listed = {row["product_id"] for row in rows(tmp_path / "run", "rescore")}
    before = pq.read_table(unsure / "products").sort_by("product_id")
    seen = set()
    for old, new, leaf in zip(
        before.to_pylist(), rows(tmp_path / "run", "products"), rows(tmp_path / "leaves", "products"), strict=True
    ):
        if old["decided_level"] is None:
            continue
        assert (new["decided_level"] is None) == (new["product_id"] in listed) == (new["alternatives"] is None)
        if new["decided_level"] is not None:
            seen.add(new["decided_level"])
            assert new["decided_level"] == old["decided_level"]  # no category went to another level
            assert (new["category_path"] or []) == leaf["category_path"][: new["decided_level"]]
    assert seen == levels
    leaves, cut = (evaluate(str(tmp_path / name))["all"] for name in ("leaves", "run"))
    assert cut.answered < leaves.answered
    assert leaves.exact - regrouped / cut.products <= cut.exact <= leaves.exact
    assert 0 < cut.calibration_error < 0.5


def test_the_same_taxonomy_changes_nothing_of_a_run_with_a_target_precision(
    unsure: Path, versions: dict[str, str], tmp_path: Path
) -> None:
    run(versions | {"new": versions["old"], "mapping": None}, tmp_path / "run", run=str(unsure))
    for file in (unsure / "products").iterdir():
        assert pq.read_table(tmp_path / "run" / "products" / file.name).equals(pq.read_table(file))


def test_a_migrated_run_is_evaluated(
    scored: Path, versions: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--{name}={file}" for name, file in versions.items()]
    command = ["taxonomy", "migrate", "--run", str(scored), *flags, "--output", str(tmp_path / "run")]
    assert main(command) == 0
    assert "rescore lists the products without a certain place" in capsys.readouterr().out
    assert main(["evaluate", "--run", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    labels = sum(row["true_category_path"] is not None for row in rows(tmp_path / "run", "products"))
    assert metrics["all"]["products"] == labels > 0
    capsys.readouterr()
    assert main(command) == 0
    assert "holds this migration already" in capsys.readouterr().out


def test_labels_of_a_catalogue_in_s3(catalog: str, versions: dict[str, str], s3: str, tmp_path: Path) -> None:
    for name, _ in storage.walk(catalog):
        storage.write_bytes(f"{s3}/migrate/catalog/{name}", storage.read_bytes(storage.join(catalog, name)))
    report = run(versions, f"{s3}/migrate/new", catalog=f"{s3}/migrate/catalog")
    for name, _ in storage.walk(f"{s3}/migrate/new"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(storage.read_bytes(f"{s3}/migrate/new/{name}"))
    became = destinations(versions)
    before, after = rows(catalog, "products"), rows(tmp_path, "products")
    assert pq.read_table(tmp_path / "products").schema.equals(PRODUCTS)
    for old, row in zip(before, after, strict=True):
        path = old["category_path"] and became[tuple(old["category_path"])]
        assert row == old | {"category_path": list(path) if path else None}  # a split stays for the label to come
    relabel = rows(tmp_path, "relabel")
    assert pq.read_table(tmp_path / "relabel").schema.equals(UNDETERMINED)
    lost = [row["product_id"] for row in before if row["category_path"] and not became[tuple(row["category_path"])]]
    assert sorted(row["product_id"] for row in relabel) == sorted(lost)
    assert report.counts["labels_undetermined"] == len(lost) > 0
    assert rows(tmp_path, "images") == rows(catalog, "images")
    assert (tmp_path / "taxonomy.json").read_text() == Path(versions["new"]).read_text()


def test_nothing_changes_where_the_taxonomy_does_not(scored: Path, versions: dict[str, str], tmp_path: Path) -> None:
    same = {"old": versions["old"], "new": versions["old"]}
    migrate(MigrateConfig(**same, run=str(scored), output=str(tmp_path / "run")))
    for table in ("products", "predictions"):
        for file in (tmp_path / "run" / table).iterdir():
            assert pq.read_table(file).equals(pq.read_table(scored / table / file.name))
    assert rows(tmp_path / "run", "rescore") == rows(tmp_path / "run", "relabel") == []


def test_mistakes(scored: Path, catalog: str, versions: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match="nothing to migrate"):
        run(versions, output)
    with pytest.raises(ConfigError, match="both --run and --catalog"):
        run(versions, output, run=str(scored), catalog=catalog)
    with pytest.raises(CatalogError, match="is no finished scoring run"):
        run(versions, output, run=str(tmp_path))
    with pytest.raises(CatalogError, match="is no finished scoring run"):
        run(versions, output, run=catalog)  # its run.json is of an import
    with pytest.raises(CatalogError, match="no products table"):
        run(versions, output, catalog=str(tmp_path))
    with pytest.raises(OutputError, match="migrate into a folder of its own"):
        run(versions, scored, run=str(scored))
    with pytest.raises(OutputError, match=r"holds run\.json of another origin"):
        run(versions, catalog, run=str(scored))
    with pytest.raises(TaxonomyError, match=r"is of the taxonomy .* already"):
        run({"old": versions["new"], "new": versions["old"]}, output, run=str(scored))
    assert not output.exists()


@pytest.mark.parametrize("damage", ["footer", "page"])
def test_a_damaged_table_is_named(
    scored: Path, versions: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    shutil.copytree(scored, tmp_path / "run")
    *_, last = sorted((tmp_path / "run" / "predictions").iterdir())
    data = last.read_bytes()
    last.write_bytes(data[:-40] if damage == "footer" else data[:4] + bytes(200) + data[204:])
    flags = [f"--{name}={file}" for name, file in versions.items()]
    command = ["taxonomy", "migrate", "--run", str(tmp_path / "run"), *flags, "--output", str(tmp_path / "out")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"atlas-ray taxonomy: {last}: cannot be read as Parquet")
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "run.json").exists()
    assert (tmp_path / "out").exists() == (damage == "page")  # a footer is read before any work starts
