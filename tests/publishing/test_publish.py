"""Runs published to real Iceberg and Delta tables, on local disk and in S3, also by processes that are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.utils.config import Config

from atlas_ray.cli.main import main
from atlas_ray.errors import OutputError
from atlas_ray.io import storage, stores
from atlas_ray.runtime.job import Job
from atlas_ray.schemas import CATEGORIZED
from tests.publishing.runs import SAREES, SHIRTS, answer, shop_run

PRODUCTS = [
    answer(f"p{number}", SHIRTS if number % 2 else SAREES, number / 8, attributes=[("colour", f"c{number}")],
           alternatives=[{"category_path": ["A"], "probability": 0.125}])
    for number in range(7)
]  # fmt: skip


class Warehouse:
    """A place for tables of both kinds."""

    def __init__(self, root: str, folder: Path) -> None:
        self.root = root
        self.environment = {
            "PYICEBERG_CATALOG__WARE__TYPE": "sql",
            "PYICEBERG_CATALOG__WARE__URI": f"sqlite:///{folder}/catalog.db",
            "PYICEBERG_CATALOG__WARE__WAREHOUSE": root if stores.is_object(root) else f"file://{root}",
        }

    def name(self, kind: str) -> str:
        return "iceberg:ware.shop.products" if kind == "iceberg" else f"delta:{self.root}/delta"

    def catalog(self) -> Catalog:
        where = {"s3.endpoint": os.environ.get("AWS_ENDPOINT_URL", ""), "s3.region": "us-east-1"}
        return load_catalog("ware", **(where if stores.is_object(self.root) else {}))

    def read(self, kind: str) -> pa.Table:
        if kind == "iceberg":
            found = self.catalog().load_table("shop.products").scan().to_arrow()
            for name in ("labels", "other_labels"):  # pyiceberg reads a null list of records as an empty one
                there = pc.greater(pc.list_value_length(found[name]), 0)
                column = pc.if_else(there, found[name], None)
                found = found.set_column(found.column_names.index(name), name, column)
            return found
        return self.delta().to_pyarrow_table()

    def versions(self, kind: str) -> int:
        """How many commits changed the rows."""
        if kind == "iceberg":
            catalog = self.catalog()
            return len(catalog.load_table("shop.products").snapshots()) if catalog.table_exists("shop.products") else 0
        return sum(one["operation"] in ("WRITE", "CREATE TABLE") for one in self.delta().history())

    def delta(self) -> DeltaTable:
        options = stores.store_of("s3").options() if stores.is_object(self.root) else {}
        uri = self.name("delta").removeprefix("delta:")
        return DeltaTable(uri if stores.is_object(self.root) else f"file://{uri}", storage_options=options)

    def files(self, kind: str) -> list[str]:
        if kind == "iceberg":
            tasks = self.catalog().load_table("shop.products").scan().plan_files()
            return sorted(task.file.file_path.removeprefix("file://") for task in tasks)
        return sorted(uri.removeprefix("file://") for uri in self.delta().file_uris())


def use(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    for name, value in warehouse.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
    return warehouse


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    if request.param == "local":
        (tmp_path / "warehouse").mkdir()
        return use(Warehouse(str(tmp_path / "warehouse"), tmp_path), monkeypatch)
    root = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return use(Warehouse(root, tmp_path), monkeypatch)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    (tmp_path / "warehouse").mkdir()
    return use(Warehouse(str(tmp_path / "warehouse"), tmp_path), monkeypatch)


def put(run: str, uri: str) -> str:
    """Copy a run into the warehouse's store."""
    for name, _ in storage.walk(run):
        storage.write_bytes(f"{uri}/{name}", (Path(run) / name).read_bytes())
    return uri


def published(run: str, warehouse: Warehouse, kind: str, *flags: str) -> int:
    return main(["publish", "--run", run, "--table", warehouse.name(kind), *flags])


def ids(table: pa.Table) -> list[str]:
    return sorted(table["product_id"].to_pylist())


KINDS = pytest.mark.parametrize("kind", ["iceberg", "delta"])


@pytest.mark.long
@KINDS
def test_a_run_is_one_commit_and_again_is_none(
    warehouse: Warehouse, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A Delta table can refer to what lies below it alone.
    inside = f"{warehouse.root}/delta/runs/monday" if kind == "delta" else f"{warehouse.root}/runs/monday"
    run = put(shop_run(tmp_path / "run", PRODUCTS, catalog=""), inside)
    assert published(run, warehouse, kind) == 0
    said = capsys.readouterr().out
    assert f"7 products of {run} (id " in said
    assert "4 files, by reference" in said
    found = warehouse.read(kind)
    assert (
        found.sort_by("product_id").cast(CATEGORIZED).to_pylist()
        == pa.Table.from_pylist(PRODUCTS, CATEGORIZED).to_pylist()
    )
    assert warehouse.files(kind) == [f"{run}/products/{number:04d}.parquet" for number in (0, 2, 4, 6)]
    again: Any = SimpleNamespace(output=run, retry_failed=True)
    with pytest.raises(OutputError, match=r"is published: a table refers to its files .* --previous"):
        Job("score", again, streams=("predictions",)).finished()
    assert published(run, warehouse, kind) == 0
    assert "already, as version" in capsys.readouterr().out
    assert warehouse.versions(kind) == 1
    assert len(warehouse.read(kind)) == 7


@KINDS
def test_a_run_of_another_store_is_copied(warehouse: Warehouse, kind: str, tmp_path: Path, s3: str) -> None:
    run = shop_run(tmp_path / "run", PRODUCTS, catalog="")
    if not stores.is_object(warehouse.root):
        run = put(run, f"{s3}/{tmp_path.name}/run")
    assert published(run, warehouse, kind) == 0
    assert ids(warehouse.read(kind)) == [row["product_id"] for row in PRODUCTS]
    assert all("/atlas-ray-" in file and file.startswith(warehouse.root) for file in warehouse.files(kind))
    assert not storage.exists(f"{run}/published.json")  # it may be scored again


@pytest.mark.long
@KINDS
def test_a_later_run_replaces_the_rows_and_may_have_a_further_column(
    local: Warehouse, kind: str, tmp_path: Path
) -> None:
    first = shop_run(tmp_path / "first", PRODUCTS, catalog="first")
    second = shop_run(tmp_path / "second", PRODUCTS[:3], catalog="second")
    for file in (tmp_path / "second" / "products").iterdir():
        table = pq.read_table(file)
        pq.write_table(table.append_column("season", pa.array(["summer"] * len(table))), file)
    for run in (first, second):
        assert published(run, local, kind) == 0
    found = local.read(kind)
    assert ids(found) == ["p0", "p1", "p2"]
    assert found["season"].to_pylist() == ["summer"] * 3
    third = shop_run(tmp_path / "third", [answer("new", SHIRTS, 0.5)], catalog="third")
    assert published(third, local, kind, "--mode", "append") == 0
    found = local.read(kind)
    assert dict(zip(found["product_id"].to_pylist(), found["season"].to_pylist(), strict=True)) == {
        "p0": "summer", "p1": "summer", "p2": "summer", "new": None,
    }  # fmt: skip
    assert published(first, local, kind) == 0  # which the table has already, in an earlier version
    assert ids(local.read(kind)) == ["new", "p0", "p1", "p2"]


@pytest.mark.long
@KINDS
def test_an_appended_run_may_bring_a_column(local: Warehouse, kind: str, tmp_path: Path) -> None:
    first = shop_run(tmp_path / "first", PRODUCTS[:1], catalog="first")
    second = shop_run(tmp_path / "second", PRODUCTS[1:2], catalog="second")
    file = tmp_path / "second" / "products" / "0000.parquet"
    pq.write_table(pq.read_table(file).append_column("season", pa.array(["summer"])), file)
    assert published(first, local, kind) == 0
    assert published(second, local, kind, "--mode", "append") == 0
    found = local.read(kind).sort_by("product_id")
    assert found["season"].to_pylist() == [None, "summer"]


POINTS: dict[str, dict[str, str]] = {
    "before anything": dict.fromkeys(("iceberg", "delta"), "atlas_ray.publishing.publish:read_published:before"),
    "in a copy": dict.fromkeys(("iceberg", "delta"), "atlas_ray.publishing.{kind}:pour:within"),
    "when all is copied": dict.fromkeys(("iceberg", "delta"), "atlas_ray.publishing.{kind}:copy_files:after"),
    "before the commit": {
        "iceberg": "pyiceberg.catalog.sql:SqlCatalog.commit_table:before",
        "delta": "atlas_ray.publishing.delta:create_table_with_add_actions:before",
    },
    "after the commit": {
        "iceberg": "pyiceberg.catalog.sql:SqlCatalog.commit_table:after",
        "delta": "atlas_ray.publishing.delta:create_table_with_add_actions:after",
    },
}  # fmt: skip
KILLED = """
import importlib, os, signal, sys
module, name, when = sys.argv[1].split(":")
owner = importlib.import_module(module)
*inner, name = name.split(".")
for one in inner:
    owner = getattr(owner, one)
call = getattr(owner, name)
def killed(*given, **named):
    if when == "after":
        call(*given, **named)
    elif when == "within":
        source, target = given
        target.write(source.read()[:200])
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, killed)
from atlas_ray.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.long
@KINDS
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_publish_is_one_commit_when_it_is_called_again(
    local: Warehouse, kind: str, point: str, tmp_path: Path
) -> None:
    run = shop_run(tmp_path / "run", PRODUCTS, catalog="")
    command = ["publish", "--run", run, "--table", local.name(kind), "--copy"]
    where = POINTS[point][kind].format(kind=kind)
    environment = os.environ | local.environment
    done = subprocess.run(
        [sys.executable, "-c", KILLED, where, *command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert main(command) == 0
    assert local.versions(kind) == 1
    assert ids(local.read(kind)) == [row["product_id"] for row in PRODUCTS]
    assert main(command) == 0
    assert local.versions(kind) == 1


@pytest.mark.long
@KINDS
def test_names_that_an_address_would_change_are_copied(local: Warehouse, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "warehouse" / "delta" / "run #1 50% é?"
    run = shop_run(folder, PRODUCTS, catalog="")
    assert published(run, local, kind) == 0
    assert ids(local.read(kind)) == [row["product_id"] for row in PRODUCTS]
    assert all("/atlas-ray-" in file for file in local.files(kind))


def damage_type(run: Path) -> None:
    file = run / "products" / "0002.parquet"
    table = pq.read_table(file)
    at = table.schema.get_field_index("probability")
    pq.write_table(table.set_column(at, "probability", table["probability"].cast(pa.float64())), file)


def unfinish(run: Path) -> None:
    (run / "run.json").unlink()


@pytest.mark.parametrize(
    ("table", "damage", "reason"),
    [
        ("delta:{root}/t", damage_type, "0002.parquet: a column is of another type than in the contract"),
        ("delta:{root}/t", unfinish, "is no finished scoring run"),
        ("parquet:shop/products", None, "expected iceberg:CATALOG.NAMESPACE.NAME or delta:FOLDER"),
        ("iceberg:ware.products", None, "names no namespace"),
        ("iceberg:other.shop.products", None, "the Iceberg catalog 'other' cannot be opened"),
    ],
)
def test_what_cannot_be_published_is_refused_in_a_line(
    local: Warehouse,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    table: str,
    damage: Callable[[Path], Any] | None,
    reason: str,
) -> None:
    run = shop_run(tmp_path / "run", PRODUCTS, catalog="")
    if damage:
        damage(Path(run))
    assert main(["publish", "--run", run, "--table", table.format(root=local.root)]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.long
@KINDS
def test_a_column_of_another_type_than_the_tables_is_refused(
    local: Warehouse, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, season in enumerate(("summer", 2)):
        run = shop_run(tmp_path / f"run-{number}", PRODUCTS[:1], catalog=str(number))
        file = Path(run) / "products" / "0000.parquet"
        pq.write_table(pq.read_table(file).append_column("season", pa.array([season])), file)
        assert published(run, local, kind) == 2 * number
    assert "does not take the run" in capsys.readouterr().err
    assert local.read(kind)["season"].to_pylist() == ["summer"]


def test_a_run_that_was_made_anew_is_another_one(local: Warehouse, tmp_path: Path) -> None:
    run = shop_run(tmp_path / "run", PRODUCTS[:2], catalog="")
    assert published(run, local, "delta") == 0
    shutil.rmtree(Path(run) / "products")
    (Path(run) / "run.json").unlink()
    os.rmdir(run)
    shop_run(tmp_path / "run", PRODUCTS[2:4], catalog="another")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["identity"] == {"catalog": "another"}
    assert published(run, local, "delta") == 0
    assert ids(local.read("delta")) == ["p2", "p3"]
