"""Blocks rewritten, against a plain walk over their rows."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_ray.migration.rows import migrate_labels, migrate_predictions
from atlas_ray.records import CATEGORIZED, PREDICTIONS, PRODUCTS, UNDETERMINED
from atlas_ray.taxonomy import CategoryPath, Taxonomy, compare
from atlas_ray.taxonomy.changes import UNKNOWN, Destination

OLD = Taxonomy([("A", "a"), ("A", "b"), ("A", "c"), ("A", "d"), ("B", "e"), ("B", "f")], name="old")
NEW = Taxonomy([("A", "z"), ("A", "d1"), ("A", "d2"), ("A", "c"), ("B", "g"), ("C", "f", "deep")], name="new")
DESTINATIONS = compare(
    OLD,
    NEW,
    {
        ("A", "a"): (("A", "z"),),
        ("A", "b"): (("A", "z"),),
        ("A", "d"): (("A", "d1"), ("A", "d2")),
        ("B", "e"): (("B", "g"),),
        ("B", "f"): (("C", "f", "deep"),),
    },
).destinations


def prediction(path: CategoryPath | None, probability: float, *others: tuple[CategoryPath, float]) -> dict[str, Any]:
    answered = path is not None
    return {
        "product_id": "p",
        "category_path": path,
        "probability": probability if answered else None,
        "level_probabilities": [1.0] * (len(path) - 1) + [probability] if path else None,
        "alternatives": [{"category_path": other, "probability": p} for other, p in others] if answered else None,
        "outside_probability": 0.25 if answered else None,
        "decided_level": len(path) if path else None,
        "model_id": "m",
        "taxonomy_id": OLD.id,
    }


def migrated(*rows: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    table = pa.Table.from_pylist(list(rows), schema=CATEGORIZED)
    after, lost = migrate_predictions(table, DESTINATIONS, NEW.id)
    assert after.schema.equals(CATEGORIZED)
    assert lost.schema.equals(UNDETERMINED)
    after.validate(full=True)
    return after.to_pylist(), lost.to_pylist()


def test_answers_that_become_one_add_up_and_the_likeliest_is_the_prediction() -> None:
    (row,), lost = migrated(prediction(("A", "c"), 0.375, (("A", "a"), 0.25), (("A", "b"), 0.25), (("A", "d"), 0.125)))
    assert row["category_path"] == ["A", "z"]
    assert row["probability"] == 0.5
    assert row["alternatives"] == [{"category_path": ["A", "c"], "probability": 0.375}]  # where d went is not known
    assert row["level_probabilities"] is None
    assert (row["outside_probability"], row["model_id"], row["taxonomy_id"]) == (0.25, "m", NEW.id)
    assert lost == []


def test_what_has_no_certain_place_is_null_and_listed() -> None:
    rows, lost = migrated(
        prediction(("A", "d"), 0.5, (("A", "a"), 0.5)),
        prediction(None, 0),
        prediction(("K",), 0.5),
        prediction(("B", "e"), 0.5),
    )
    assert [row["category_path"] for row in rows] == [None, None, None, ["B", "g"]]
    empty = ("probability", "level_probabilities", "alternatives", "outside_probability")
    assert all(row[name] is None for row in rows[:3] for name in empty)
    assert [row["taxonomy_id"] for row in rows] == [NEW.id] * 4
    assert lost == [
        {
            "product_id": "p", "category_path": ["A", "d"], "reason": "split", "candidates": [["A", "d1"], ["A", "d2"]],
        },
        {"product_id": "p", "category_path": ["K"], "reason": "unknown", "candidates": []},
    ]  # fmt: skip


def test_level_probabilities_stay_where_levels_hold_what_they_held() -> None:
    same = compare(OLD, OLD).destinations
    table = pa.Table.from_pylist([prediction(("B", "e"), 0.5), prediction(("A", "c"), 0.5)], schema=CATEGORIZED)
    assert migrate_predictions(table, same, OLD.id)[0].equals(table)
    rows, _ = migrated(prediction(("B", "e"), 0.5), prediction(("B", "f"), 0.5), prediction(("A", "c"), 0.5))
    assert [row["level_probabilities"] for row in rows] == [None, None, [1.0, 0.5]]  # f left B; all of A's stay in A


paths = st.sampled_from([*OLD.leaves, ("K",)])
drawn = st.tuples(
    st.none() | paths, st.lists(st.tuples(paths, st.integers(0, 64)), max_size=5, unique_by=lambda x: x[0])
)


@given(st.lists(drawn, max_size=8))
def test_a_block_is_what_its_rows_are(rows: list[tuple[CategoryPath | None, list[tuple[CategoryPath, int]]]]) -> None:
    drawn = [prediction(path, 1.0, *[(other, n / 64) for other, n in others if other != path]) for path, others in rows]
    after, lost = migrated(*drawn)
    undetermined = 0
    for before, row in zip(drawn, after, strict=True):
        path = before["category_path"]
        if path is None or DESTINATIONS.get(path, UNKNOWN).path is None:
            undetermined += path is not None
            assert row["category_path"] is None
            continue
        total: dict[CategoryPath, float] = {}
        for old, probability in [
            (path, 1.0),
            *((o["category_path"], o["probability"]) for o in before["alternatives"]),
        ]:
            new = DESTINATIONS.get(old, UNKNOWN).path
            if new is not None:
                total[new] = total.get(new, 0.0) + probability
        expected = sorted(total.items(), key=lambda item: -item[1])  # stable
        found = [(row["category_path"], row["probability"])]
        found += [(other["category_path"], other["probability"]) for other in row["alternatives"]]
        assert [(tuple(path), p) for path, p in found] == [(path, min(p, 1.0)) for path, p in expected]
    assert len(lost) == undetermined


@pytest.mark.parametrize("schema", [PREDICTIONS, CATEGORIZED])
def test_an_empty_block_stays_empty(schema: pa.Schema) -> None:
    after, lost = migrate_predictions(schema.empty_table(), DESTINATIONS, NEW.id)
    assert after.equals(schema.empty_table())
    assert len(lost) == 0


def test_labels() -> None:
    rows = [{"product_id": str(n), "category_path": path} for n, path in enumerate([("A", "a"), None, ("A", "d"), ()])]
    table = pa.Table.from_pylist(rows, schema=PRODUCTS)
    after, lost = migrate_labels(table, "category_path", {**DESTINATIONS, ("A", "d"): Destination(None, "removed")})
    assert after.schema.equals(PRODUCTS)
    assert after["category_path"].to_pylist() == [["A", "z"], None, None, None]
    assert [(row["product_id"], row["reason"]) for row in lost.to_pylist()] == [("2", "removed"), ("3", "unknown")]
