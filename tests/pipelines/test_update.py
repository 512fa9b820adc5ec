"""Updates of a catalogue: what is done anew and what is gone on with, and once all of it for real."""

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from atlas_ray.catalog.corrections import RelabelConfig, relabel
from atlas_ray.catalog.importer import ImportConfig
from atlas_ray.cli.main import main
from atlas_ray.formats.tables import current
from atlas_ray.pipelines import update as pipeline
from atlas_ray.pipelines.update import newest_run, source_id
from atlas_ray.reports.update import summary
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.tables import open_catalog
from atlas_ray.scoring.settings import ScoreConfig
from tests.support.parts import rows
from tests.support.picture_server import PictureServer

LABELS = ("Men > Western Wear > Shirts", "Women > Ethnic Wear > Sarees")


def write(path: Path, products: Sequence[tuple[str, str]]) -> str:
    """Write a source of products with a picture each, and a label."""
    with path.open("w", newline="") as stream:
        lines = [(name, f"title {name}", uri, LABELS[int(name[1:]) % 2], "") for name, uri in products]
        csv.writer(stream).writerows([("id", "title", "image", "category", "deleted"), *lines])
    return str(path)


class Loop:
    """A catalogue, a folder of runs, and the command that updates them."""

    def __init__(self, folder: Path, model: str, *flags: str) -> None:
        self.folder, self.catalog, self.runs = folder, folder / "catalog", folder / "runs"
        self.command = ["update", "--catalog", str(self.catalog), "--model", model, "--runs", str(self.runs), *flags]

    def begin(self, products: Sequence[tuple[str, str]]) -> None:
        source = write(self.folder / "first.csv", products)
        assert main(["import", source, "--output", str(self.catalog)]) == 0

    def update(self, source: str, *flags: str) -> int:
        return main([*self.command, "--from", source, *flags])

    def account(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.runs / f"{number:05d}" / "update.json").read_text())
        return found


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[ScoreConfig]:
    """What was scored, by a stage that only writes an account; so does the comparison."""
    asked: list[ScoreConfig] = []

    def score(config: ScoreConfig) -> RunReport:
        asked.append(config)
        if len(asked) == 1:
            raise KeyboardInterrupt
        counts = {"input": 2, "scored": 2, "carried": 0, "filtered": 0, "quarantined": 0}
        counts |= {"products": 2, "products_categorized": 2}
        run: dict[str, Any] = {
            "job": "score",
            "finished_at": f"2026-01-0{len(asked)}",
            "counts": counts,
            "quarantined_by_code": {},
        }
        run |= {"identity": {"model_id": "m"}, "seconds": {"total": 1.0}, "resumed_from": 0}
        Path(config.output, "run.json").write_text(json.dumps(run))
        return RunReport(config.output, run)

    def compared(*_: str) -> dict[str, Any]:
        return {"compared": {"same": 1, "moved": 1, "only_before": 0, "only_after": 0}, "moves": []}

    monkeypatch.setattr(pipeline, "score", score)
    monkeypatch.setattr(pipeline, "_compare", compared)
    return asked


@pytest.mark.long
def test_a_stopped_update_goes_on_and_a_finished_one_is_not_done_again(
    small_model: str, scored: list[ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(tmp_path, small_model)
    loop.begin([("P1", "a.jpg"), ("P2", "b.jpg")])
    new = write(tmp_path / "new.csv", [("P2", "c.jpg"), ("P3", "d.jpg")])
    assert loop.update(new) == 1
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    assert loop.update(new) == 0
    out = capsys.readouterr().out
    assert "products: 1 new, 1 changed, 0 removed, 0 the same, 1 not in the source\n" in out
    assert "no earlier run was there to compare with" in out
    assert current(str(loop.catalog)) == str(loop.catalog / "versions" / "00001")
    assert {config.output for config in scored} == {str(loop.runs / "00001")}
    assert {config.catalog for config in scored} == {str(loop.catalog / "versions" / "00001")}

    assert loop.update(new) == 0
    assert f"{loop.runs}/00001 holds this update, finished" in capsys.readouterr().out
    assert len(scored) == 2

    os.utime(new, ns=(1, 1))  # another week's file of the same name
    assert loop.update(new) == 0
    assert (scored[-1].output, scored[-1].previous) == (str(loop.runs / "00002"), str(loop.runs / "00001"))
    assert loop.update(new, "--within", "Men") == 0
    assert loop.update(new, "--within", "Men", "--retry-failed") == 0
    assert [config.previous for config in scored[3:]] == [str(loop.runs / f"0000{n}") for n in (2, 3)]
    assert loop.account(4)["compared"]["moved"] == 1

    # A corrected copy of the catalogue goes on with the same runs.
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(f"product_id,corrected_category_path\nP1,{LABELS[1]}\n")
    copy = str(tmp_path / "copy")
    relabel(RelabelConfig(catalog=str(loop.catalog), corrections=str(corrections), output=copy))
    loop.command[2] = copy
    assert loop.update(new) == 0
    assert scored[-1].catalog == f"{copy}/versions/00001"
    assert (scored[-1].output, scored[-1].previous) == (str(loop.runs / "00005"), str(loop.runs / "00004"))


@pytest.mark.long
def test_a_mistake_changes_nothing(
    small_model: str, scored: list[ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(tmp_path, small_model)
    new = write(tmp_path / "new.csv", [("P1", "http://shop.example/1.jpg")])
    mistakes: list[tuple[Callable[[], Any], str]] = [
        (lambda: None, "holds no catalogue that could be updated; import one with --output"),
        (lambda: loop.begin([("P1", "a.jpg")]), "1 of the first pictures have web addresses"),
        (lambda: loop.command.__setitem__(4, str(tmp_path / "none")), "none: "),
    ]
    for change, message in mistakes:
        change()
        capsys.readouterr()
        assert loop.update(new) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not loop.runs.exists()
        assert current(str(loop.catalog)) == str(loop.catalog)
    assert scored == []


def test_the_newest_run_is_the_one_that_ended_last(tmp_path: Path) -> None:
    assert newest_run(str(tmp_path / "none")) is None
    for name, job, ended in (("z", "score", "2026-01"), ("a", "score", "2026-03"), ("b", "filter", "2026-04")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"job": job, "finished_at": ended}))
    (tmp_path / "unfinished").mkdir()
    assert newest_run(str(tmp_path)) == str(tmp_path / "a")


def test_a_source_is_known_by_its_files(tmp_path: Path) -> None:
    def known(source: Path | str, kind: str = "auto") -> str | None:
        return source_id(ImportConfig(source=str(source), output="o", format=kind))

    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.csv").write_text("id\n1\n")
    before = known(tmp_path / "parts"), known(tmp_path / "parts" / "a.csv")
    assert before == (known(tmp_path / "parts"), known(tmp_path / "parts" / "a.csv"))
    (tmp_path / "parts" / "a.csv").write_text("id\n1\n2\n")
    after = known(tmp_path / "parts"), known(tmp_path / "parts" / "a.csv")
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert known("lake.shop.products", "iceberg") is None


def test_the_summary_says_what_moved() -> None:
    account: dict[str, Any] = {
        "run": "runs/00002", "version": "shop/versions/00002", "previous": "runs/00001", "uncompared": None,
        "products": {"added": 1, "changed": 2, "same": 7, "absent": 3, "removed": 4},
        "compared": {"same": 8, "moved": 2, "only_before": 4, "only_after": 1},
        "moves": [{"from": ["A", "B"], "to": None, "products": 2}],
    }  # fmt: skip
    pictures = {"input": 9, "scored": 3, "carried": 6, "filtered": 0, "quarantined": 0}
    assert summary(account, pictures) == [
        "products: 1 new, 2 changed, 4 removed, 7 the same, 3 not in the source",
        "pictures: 3 scored, 6 carried, 0 filtered, 0 quarantined",
        "moved: 2 of the 10 products in runs/00001 too have another path",
        "  A > B → (no answer): 2",
        "all answers: runs/00002/products, of the catalogue shop/versions/00002",
        "to see what moved: runs/00002/comparison/comparison.html",
        "to review: atlas-ray review --run runs/00002 --output NEW --serve",
    ]
    assert "not compared with runs/00001: why" in summary(account | {"uncompared": "why"}, pictures)


@pytest.mark.usefixtures("local_ray")
def test_two_weeks(small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PictureServer() as server:
        first = [(f"P{n:02d}", f"{server.url}/ok/{n}.jpg") for n in range(10)]
        flags = ["--fetch", str(tmp_path / "pictures"), "--allow-private", server.place, "--trust", "uri"]
        loop = Loop(tmp_path, small_model, *flags, "--precision", "float32")
        write(tmp_path / "raw.csv", first)
        assert main(["import", str(tmp_path / "raw.csv"), "--output", str(tmp_path / "raw")]) == 0
        corrections = tmp_path / "corrections.csv"
        corrections.write_text(f"product_id,corrected_category_path\nP04,{LABELS[1]}\n")
        relabel(RelabelConfig(catalog=str(tmp_path / "raw"), corrections=str(corrections), output=str(loop.catalog)))
        assert loop.update(write(tmp_path / "new.csv", first)) == 0
        splits = {row["product_id"]: row["split"] for row in rows(loop.runs / "00001", "products")}

        # One product comes, one has another picture, and one whose picture is missing.
        second = [*first[1:8], ("P08", f"{server.url}/ok/88.jpg"), ("P10", f"{server.url}/ok/10.jpg")]
        second += [("P11", f"{server.url}/gone/1.jpg")]
        server.asked.clear()
        assert loop.update(write(tmp_path / "new.csv", second), "--full") == 3
    out, error = capsys.readouterr()
    assert "products: 2 new, 1 changed, 2 removed, 7 the same, 0 not in the source\n" in out
    assert "pictures: 2 scored, 7 carried, 0 filtered, 0 quarantined\n" in out
    assert "atlas-ray update: 10.0% of the pictures are in quarantine, over 5.0%\n" in error
    assert set(server.asked) == {"/ok/88.jpg", "/ok/10.jpg", "/gone/1.jpg"}
    run = loop.runs / "00002"
    products = {row["product_id"]: row for row in rows(run, "products")}
    assert products.keys() == {name for name, _ in second}
    assert products["P04"]["true_category_path"] == LABELS[1].split(" > ")
    assert {name: products[name]["split"] for name in splits.keys() & products.keys()} == {
        name: split for name, split in splits.items() if name in products
    }
    compared = loop.account(2)["compared"]
    assert (compared["only_before"], compared["only_after"]) == (2, 2)
    assert compared["same"] + compared["moved"] == 8
    assert (run / "comparison" / "comparison.html").exists()
    assert open_catalog(str(tmp_path / "pictures")).products.rows == 10
