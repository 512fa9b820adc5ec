import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.arrays import tagged
from atlas_ray.cli.main import main
from atlas_ray.evaluation.comparison import CHANGED, COMPARED, JOINED, MOVES, compare, compare_block
from atlas_ray.evaluation.pairs import AFTER, BEFORE
from atlas_ray.reports.page import MAX_BYTES
from atlas_ray.schemas import PATH_KEY_SEPARATOR
from tests.support.parts import Page, check_self_contained, picture, scored_run

A, B, C = ["Men", "Shirts"], ["Men", "Shoes"], ["Women", "Sarees"]


def product(name: str, path: list[str] | None, probability: float | None = 0.5, **fields: Any) -> dict[str, Any]:
    """A scored product; `true` is its label."""
    if "true" in fields:
        fields["true_category_path"] = fields.pop("true")
    return {"product_id": name, "category_path": path, "probability": probability, **fields}


def joined(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> pa.Table:
    parts = []
    for kind, items in ((BEFORE, before), (AFTER, after)):
        named = pa.schema([JOINED.field(name) for name in JOINED.names if name != "kind"])
        parts.append(tagged(pa.Table.from_pylist(items, schema=named), kind, JOINED))
    return pa.concat_tables(parts)


def test_products_that_a_model_was_fitted_on_are_not_judged() -> None:
    """A product that changed sides: the first model was trained on what the second catalogue tests."""
    before = [product(name, A, true=A, split="train", fitted=name < "c") for name in "abcd"]
    after = [product(name, B, true=A, split="train" if name == "b" else "test", fitted=False) for name in "abcd"]
    rows = {row["product_id"]: row for row in compare_block(joined(before, after)).to_pylist()}
    assert {name: (row["fitted"], row["labelled"]) for name, row in rows.items()} == {
        "a": (1, 0), "b": (0, 1), "c": (0, 1), "d": (0, 1),
    }  # fmt: skip
    assert [rows[name]["right_before"] for name in "abcd"] == [0, 1, 1, 1]


def test_a_block() -> None:
    before = [
        product("won", A, 0.5, true=B, split="test"),
        product("lost", A, 0.6, true=A, split="test"),
        product("stays", A, 0.9, true=A, split="test"),
        product("stays too", A, 0.7, split="test"),
        product("gone", C),
        product("never", None, None),
        product("corrected", A, true=A, split=None),
        product("silenced", B, 0.4, image_uri="/1"),
    ]
    after = [
        product("won", B, 0.7, true=B, split="test", image_uri="/new"),
        product("lost", B, 0.8, split="test"),  # the label of the first run counts where the second has none
        product("stays", A, 0.5, true=A, split="test"),
        product("stays too", A, 0.3, split="test"),
        product("new", B, 0.1),
        product("never", None, None),
        product("corrected", A, true=C, split="train"),
        product("silenced", None, None),
    ]
    table = compare_block(joined(before, after))
    assert table.schema.names == COMPARED.names
    found = {row["product_id"]: row for row in table.to_pylist() if row["product_id"]}
    a, b = (PATH_KEY_SEPARATOR.join(path) for path in (A, B))
    shown = {name: (row["change"], row["before"], row["after"]) for name, row in found.items()}
    assert shown == {
        "won": ("moved", a, b),
        "lost": ("moved", a, b),
        "gone": ("only_before", PATH_KEY_SEPARATOR.join(C), None),
        "new": ("only_after", None, b),
        "silenced": ("moved", b, None),
    }
    assert [(found[name]["right_before"], found[name]["right_after"]) for name in ("won", "lost")] == [(0, 1), (1, 0)]
    assert found["lost"]["true_category_path"] == A
    assert (found["won"]["image_uri"], found["silenced"]["image_uri"]) == ("/new", "/1")
    assert found["gone"]["labelled"] == found["silenced"]["labelled"] == 0
    stayed = {(row["split"], row["before"]): row for row in table.to_pylist() if row["product_id"] is None}
    assert stayed.keys() == {("test", a), (None, None), ("train", a)}
    both = stayed["test", a]
    assert (both["products"], both["labelled"], both["right_before"], both["right_after"]) == (2, 1, 1, 1)
    assert (both["probability_before"], both["probability_after"]) == pytest.approx((1.6, 0.8))
    corrected = stayed["train", a]
    assert (corrected["relabelled"], corrected["labelled"], corrected["right_after"]) == (1, 1, 0)
    assert sum(row["products"] for row in table.to_pylist()) == 9


def unsure(name: str, leaf: list[str], level: int, probability: float, **fields: Any) -> dict[str, Any]:
    """A product that a target precision made its run answer above the leaf, or not at all."""
    alternatives = [{"category_path": leaf, "probability": probability}]
    above = {"decided_level": level, "alternatives": alternatives}
    return product(name, leaf[:level] or None, 0.98 if level else None, **above, **fields)


def test_leaves_are_compared_where_answers_end_above_them() -> None:
    before = [product(name, A, 0.5, true=A, split="test", decided_level=2) for name in ("above", "undecided", "moves")]
    after = [
        unsure("above", A, 1, 0.75, true=A, split="test"),
        unsure("undecided", A, 0, 0.25, true=A, split="test"),
        unsure("moves", B, 1, 0.5, true=A, split="test"),
    ]
    moved, stayed = compare_block(joined(before, after)).to_pylist()
    assert (stayed["change"], stayed["products"], stayed["labelled"]) == ("same", 2, 2)
    assert (stayed["right_before"], stayed["right_after"], stayed["right_both"]) == (2, 2, 2)
    assert (stayed["probability_before"], stayed["probability_after"]) == (1.0, 1.0)  # sums; the leaves', not 0.98
    assert (stayed["above_before"], stayed["above_after"]) == (0, 2)
    assert (moved["product_id"], moved["after"]) == ("moves", PATH_KEY_SEPARATOR.join(B))
    assert (moved["right_before"], moved["right_after"], moved["above_after"]) == (1, 0, 1)


def test_any_leaf_below_a_label_is_right() -> None:
    men, root = ["Men"], list[str]()
    before = [product("moves", A, true=men), product("leaves", A, true=men), product("root", A, true=root)]
    after = [product("moves", B, true=men), product("leaves", C, true=men), product("root", B, true=root)]
    above = pa.array(["Men", "Women"])
    rows = {
        row["product_id"]: row for row in compare_block(joined(before, after), above_leaves=[above] * 2).to_pylist()
    }
    assert {name: (row["labelled"], row["right_before"], row["right_after"]) for name, row in rows.items()} == {
        "moves": (1, 1, 1), "leaves": (1, 1, 0), "root": (0, 0, 0),
    }  # fmt: skip
    leaf = compare_block(joined(before, after))  # of runs whose taxonomy is not known, a label is one path
    assert [row["right_before"] for row in leaf.to_pylist()] == [0, 0, 0]


def test_runs_of_different_taxonomies_are_judged_by_their_own_labels(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shirts are tops now: who is right about them wins nothing by that."""
    tops = ["Men", "Tops"]
    before = [
        *(product(f"renamed-{n}", A, true=A, split="test") for n in range(5)),
        product("wrong", B, true=A, split="test"),
        product("won", B, true=A, split="test"),
        product("lost", A, true=A, split="test"),
        product("stays", C, true=C, split="test"),
        product("split", B, true=B, split="test"),
        product("without", C, split="test"),
    ]
    after = [
        *(product(f"renamed-{n}", tops, true=tops, split="test") for n in range(5)),
        product("wrong", B, true=tops, split="test"),
        product("won", tops, true=tops, split="test"),
        product("lost", B, true=tops, split="test"),
        unsure("stays", C, 1, 0.5, true=C, split="test"),
        product("split", ["Men", "Sneakers"], split="test"),  # its label has no certain place in the new taxonomy
        product("without", C, split="test"),
    ]
    runs = [
        scored_run(tmp_path / name, items, identity={"catalog": "/c", "model_id": "m", "taxonomy_id": taxonomy})
        for name, items, taxonomy in (("a", before, "old"), ("b", after, "new"))
    ]
    assert main(["compare", *runs, "--output", str(tmp_path / "out")]) == 0
    account = json.loads((tmp_path / "out" / "comparison.json").read_text())
    test = account["accuracy"]["test"]
    assert (test["products"], test["won"], test["lost"], test["difference"]) == (9, 1, 1, 0.0)
    assert (test["before"], test["after"]) == (7 / 9, 7 / 9)
    assert account["unjudged"] == 1
    assert (account["before"]["above_leaf"], account["after"]["above_leaf"]) == (0, 1)
    assert account["products"] == {"same": 3, "moved": 8, "only_before": 0, "only_after": 0}
    changed = {row["product_id"]: row for row in pq.read_table(tmp_path / "out" / "products.parquet").to_pylist()}
    rights = {name: (row["right_before"], row["right_after"]) for name, row in changed.items()}
    assert rights["renamed-0"] == (True, True)
    assert (rights["won"], rights["lost"], rights["split"]) == ((False, True), (True, False), (None, None))
    said = capsys.readouterr().out
    for part in (
        "the runs are of different taxonomies: old and new",
        "each run is judged by its own labels, and a category that was renamed counts as moved",
        "1 products have a label in one run alone, and are left out of the accuracy",
        "1 products after have an answer above their leaf, or none; the leaf is compared",
    ):
        assert part in said
    assert "another label after" not in said
    assert "both are right" in (tmp_path / "out" / "comparison.html").read_text()


def test_runs_of_one_taxonomy_are_judged_by_the_corrected_label() -> None:
    before, after = [product("p", A, true=A), product("q", A)], [product("p", B, true=B), product("q", B, true=B)]
    for own_labels, (right, judged) in ((False, (0, 2)), (True, (1, 1))):
        found = [
            row for row in compare_block(joined(before, after), own_labels=own_labels).to_pylist() if row["products"]
        ]
        assert sum(row["right_before"] for row in found) == right
        assert sum(row["labelled"] for row in found) == judged
        assert sum(row["unjudged"] for row in found) == 2 - judged
        assert sum(row["relabelled"] for row in found) == 1


def test_an_empty_block() -> None:
    assert len(compare_block(joined([], []))) == 0


def test_two_runs(local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few hundred products on Ray, whose counts are known; ids, paths and pictures are hostile."""
    script = "<script>alert(1)</script>"
    wild = [script, "[red]Shirts"]
    image = tmp_path / "a.jpg"
    image.write_bytes(picture(3))
    before, after = [], []
    for n in range(60):  # 60 that stay, right; 30 won; 10 lost; 20 wrong in both
        before.append(product(f"stays-{n}", A, 0.9, true=A, split="test"))
        after.append(product(f"stays-{n}", A, 0.8, true=A, split="test"))
    for n in range(30):
        before.append(product(f"won-{n}", A, 0.4, true=wild, split="test"))
        after.append(product(f"won-{n}", wild, 0.01 * n, true=wild, split="test", image_uri=str(image)))
    for n in range(10):
        before.append(product(f"lost-{n}", A, 0.6, true=A, split="test"))
        after.append(product(f"lost-{n}", B, 0.5, true=A, split="test", image_uri="/nowhere.jpg"))
    for n in range(20):
        before.append(product(f"wrong-{n}", B, 0.6, true=C, split="test"))
        after.append(product(f"wrong-{n}", B, 0.6, true=C, split="test"))
    before += [product(f"gone-{n}", C) for n in range(3)] + [product("silenced", C, 0.5)]
    after += [product(f"{script}-{n}", C) for n in range(2)] + [product("silenced", None, None)]
    one = {"catalog": "/old", "model_id": "m1", "taxonomy_id": "t1"}
    runs = [
        scored_run(tmp_path / "a", before, rows_per_file=40, identity=one),
        scored_run(tmp_path / "b", after[::-1], identity=one | {"model_id": "m2", "taxonomy_id": "t2"}),
    ]
    for run in runs:
        assert main(["evaluate", "--run", run]) == 0
    capsys.readouterr()
    output = tmp_path / "out"
    assert main(["compare", *runs, "--output", str(output)]) == 0

    account = json.loads((output / "comparison.json").read_text())
    assert account["products"] == {"same": 80, "moved": 41, "only_before": 3, "only_after": 2}
    assert account["agreement"] == 80 / 121
    assert account["differs"] == ["model_id", "taxonomy_id"]
    test = account["accuracy"]["test"]
    assert (test["products"], test["won"], test["lost"]) == (120, 30, 10)
    assert (test["before"], test["after"]) == (70 / 120, 90 / 120)
    assert test["difference"] == 20 / 120
    assert 0 < test["low"] < test["difference"] < test["high"]
    assert account["accuracy"].keys() == {"test", "all"}

    moves = pq.read_table(output / "moves.parquet")
    assert moves.schema.equals(MOVES)
    listed = [tuple(row.values()) for row in moves.to_pylist()]
    assert listed[0] == (A, wild, 30, pytest.approx(0.4), pytest.approx(0.145), 30, 0, 30)
    assert listed[1] == (A, B, 10, pytest.approx(0.6), pytest.approx(0.5), 10, 10, 0)
    assert listed[2] == (C, None, 1, pytest.approx(0.5), None, 0, 0, 0)
    changed = pq.read_table(output / "products.parquet")
    assert changed.schema.equals(CHANGED)
    names = {row["product_id"]: row for row in changed.to_pylist()}
    assert len(changed) == len(names) == 41 + 5
    assert names["won-7"]["category_path_after"] == wild
    assert names["won-7"]["probability_before"] == pytest.approx(0.4)

    text = (output / "comparison.html").read_text()
    page = Page(text)
    check_self_contained(text)
    assert len(page.sources) == 6  # the examples of the first move
    shown = "".join(page.text)
    for part in (f"Men > Shirts → {script} > [red]Shirts: 30", "40% → 29%, after is right; won-29", "not_found"):
        assert part in shown
    for part in ("different taxonomies: t1 and t2", "(no answer)", f"{script}-0", "+16.7"):
        assert part in shown
    assert "catalogues" not in shown
    (plot,) = re.findall(r'<svg class="chart".*?</svg>', text)  # A: 70 products, all right before of 100 so answered
    rings, discs = (re.findall(rf'<circle class="{kind}".*?<title>(.*?)</title>', plot) for kind in ("ring", "point"))
    assert [one.partition(":")[0] for one in (*rings, *discs)].count("Men &gt; Shirts") == 2
    assert any("F-score 82.4%, 70 products" in one for one in rings)
    assert any("F-score 92.3%, 70 products" in one for one in discs)
    assert len(text) < MAX_BYTES
    said = capsys.readouterr().out
    assert "80 products stayed (66.1% of those in both runs), 41 moved in 3 ways" in said
    assert f"{script} > [red]Shirts" in said
    assert said.endswith("the second run is right more often on the test split, by 16.7 points\n")


def test_runs_with_nothing_in_common(local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [scored_run(tmp_path / name, [product(name, A, true=A)]) for name in ("a", "b")]
    account = compare(runs[0], runs[1], str(tmp_path / "out"))
    assert account["products"] == {"same": 0, "moved": 0, "only_before": 1, "only_after": 1}
    assert account["agreement"] is None
    assert account["accuracy"] == {}
    assert main(["compare", runs[0], str(tmp_path), "--output", str(tmp_path / "other")]) == 2
    assert f"{tmp_path} is no finished scoring run" in capsys.readouterr().err
