"""Blocks rewritten, against a plain walk over their rows."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_ray.migration.rows import migrate_labels, migrate_predictions
from atlas_ray.runs.leaves import find_leaves
from atlas_ray.schemas import CATEGORIZED, PREDICTIONS, PRODUCTS, UNDETERMINED
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


def decided(level: int, sure: float, *leaves: tuple[CategoryPath, float]) -> dict[str, Any]:
    """A row that ends above its leaf, or is undecided at level 0; the leaf is the first alternative."""
    (leaf, probability), *_ = leaves
    return prediction(leaf, probability, *leaves) | {
        "category_path": leaf[:level] or None,
        "probability": sure if level else None,
        "level_probabilities": [sure] * max(level, 1) + [probability] * (len(leaf) - max(level, 1)),
        "decided_level": level,
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


def test_an_answer_above_its_leaf_follows_it() -> None:
    (row, other), lost = migrated(
        decided(1, 0.96875, (("A", "c"), 0.375), (("A", "a"), 0.25), (("A", "b"), 0.25), (("B", "e"), 0.125)),
        decided(1, 0.96875, (("A", "c"), 0.96875)),
    )
    assert lost == []
    # The ancestor keeps its probability: its leaves are in it already, and add up among themselves alone.
    assert (row["category_path"], row["probability"], row["decided_level"]) == (["A"], 0.96875, 1)
    listed = [(one["category_path"], one["probability"]) for one in row["alternatives"]]
    assert listed == [(["A", "z"], 0.5), (["A", "c"], 0.375), (["B", "g"], 0.125)]
    assert row["level_probabilities"] is None  # of another leaf
    assert (row["outside_probability"], row["taxonomy_id"]) == (0.25, NEW.id)
    assert (other["category_path"], other["decided_level"]) == (["A"], 1)
    assert other["alternatives"] == [{"category_path": ["A", "c"], "probability": 0.96875}]
    assert other["level_probabilities"] == [0.96875, 0.96875]


def test_an_answer_above_its_leaf_is_renamed_and_moved_with_it() -> None:
    old = Taxonomy([("A", "K", "a"), ("A", "K", "b"), ("A", "c")], name="old")
    new = Taxonomy([("T", "A", "K2", "a"), ("T", "A", "K2", "b"), ("T", "A", "c"), ("T", "new")], name="new")
    destinations = compare(old, new, {("A",): (("T", "A"),), ("A", "K"): (("T", "A", "K2"),)}).destinations
    leaves = ((("A", "K", "a"), 0.5), (("A", "K", "b"), 0.25))
    rows = [decided(level, 0.75, *leaves) for level in (0, 1, 2)]
    after, lost = migrate_predictions(pa.Table.from_pylist(rows, schema=CATEGORIZED), destinations, new.id)
    assert len(lost) == 0
    found = [(row["category_path"], row["probability"], row["decided_level"]) for row in after.to_pylist()]
    assert found == [(None, None, 0), (["T", "A"], 0.75, 2), (["T", "A", "K2"], 0.75, 3)]
    moved = [["T", "A", "K2", "a"], ["T", "A", "K2", "b"]]
    assert [[one["category_path"] for one in row["alternatives"]] for row in after.to_pylist()] == [moved] * 3
    assert find_leaves(after).paths.to_pylist() == moved[:1] * 3


def test_an_undecided_row_keeps_its_leaves() -> None:
    (row, gone), lost = migrated(
        decided(0, 0.5, (("A", "a"), 0.375), (("B", "e"), 0.25), (("A", "d"), 0.125)),
        decided(0, 0.5, (("A", "d"), 0.375), (("B", "e"), 0.25)),
    )
    assert (row["category_path"], row["probability"], row["decided_level"]) == (None, None, 0)
    assert [one["category_path"] for one in row["alternatives"]] == [["A", "z"], ["B", "g"]]
    assert row["outside_probability"] == 0.25
    assert (gone["decided_level"], gone["alternatives"], gone["level_probabilities"]) == (None, None, None)
    assert [(one["category_path"], one["reason"]) for one in lost] == [(["A", "d"], "split")]


def test_an_answer_above_its_leaf_is_scored_anew_where_it_does_not_hold_what_it_held() -> None:
    rows, lost = migrated(
        decided(1, 0.875, (("B", "f"), 0.5), (("B", "e"), 0.375)),  # moved out
        decided(1, 0.875, (("B", "e"), 0.5), (("A", "d"), 0.25), (("B", "f"), 0.125)),  # another leaf did
        decided(1, 0.875, (("A", "d"), 0.875)),  # split
        decided(1, 0.875, (("K", "k"), 0.875)),
        decided(1, 0.875, (("A", "c"), 0.875)) | {"alternatives": []},  # an older migration lost the leaf
    )
    empty = ("category_path", "probability", "level_probabilities", "alternatives", "decided_level")
    assert all(row[name] is None for row in rows for name in empty)
    assert sorted((one["reason"], one["category_path"], one["candidates"]) for one in lost) == [
        ("regrouped", ["B"], [["B", "g"], ["C", "f", "deep"]]),
        ("regrouped", ["B"], [["C", "f", "deep"], ["B", "g"]]),
        ("split", ["A", "d"], [["A", "d1"], ["A", "d2"]]),
        ("unknown", ["A"], []),
        ("unknown", ["K", "k"], []),
    ]


def test_an_answer_is_scored_anew_where_another_leaf_overtakes_what_it_was_above() -> None:
    old = Taxonomy([("A", "a"), ("A", "b"), ("B", "c"), ("B", "d")], name="old")
    new = Taxonomy([("A", "a"), ("A", "b"), ("B", "z")], name="new")
    merged: dict[CategoryPath, tuple[CategoryPath, ...]] = {("B", name): (("B", "z"),) for name in "cd"}
    destinations = compare(old, new, merged).destinations
    row = decided(1, 0.5, (("A", "a"), 0.375), (("B", "c"), 0.25), (("B", "d"), 0.1875), (("A", "b"), 0.125))
    after, lost = migrate_predictions(pa.Table.from_pylist([row], schema=CATEGORIZED), destinations, new.id)
    assert after["category_path"].to_pylist() == [None]
    assert lost["candidates"].to_pylist() == [[["B", "z"], ["A", "a"], ["A", "b"]]]


paths = st.sampled_from([*OLD.leaves, ("K",)])
drawn = st.tuples(
    st.none() | paths, st.lists(st.tuples(paths, st.integers(0, 64)), max_size=5, unique_by=lambda x: x[0])
)


@pytest.mark.long
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


leaves = st.lists(st.tuples(paths, st.integers(1, 16)), min_size=1, max_size=5, unique_by=lambda x: x[0])


@pytest.mark.long
@given(st.lists(st.tuples(leaves, st.integers(0, 2)), max_size=8))
def test_no_row_is_lost_and_each_leaf_is_what_it_would_be_without_a_target(
    rows: list[tuple[list[tuple[CategoryPath, int]], int]],
) -> None:
    plain, cut = [], []
    for answers, level in rows:
        (leaf, first), *others = [(path, n / 64) for path, n in sorted(answers, key=lambda one: -one[1])]
        plain.append(prediction(leaf, first, *others))
        above = level < len(leaf)
        cut.append(decided(level, 0.96875, (leaf, first), *others) if above else plain[-1])
    wanted, _ = migrated(*plain)
    after, lost = migrated(*cut)
    found = find_leaves(pa.Table.from_pylist(after, schema=CATEGORIZED))
    silent = 0
    for before, one, row, leaf, sure in zip(
        cut, wanted, after, found.paths.to_pylist(), found.probability.to_pylist(), strict=True
    ):
        if leaf is None:
            silent += 1
            assert row["alternatives"] is None
            continue
        assert (leaf, sure) == (one["category_path"], one["probability"])
        others = row["alternatives"][1:] if row["decided_level"] < len(leaf) else row["alternatives"]
        assert others == one["alternatives"]
        assert (row["category_path"] or []) == leaf[: row["decided_level"]]
        assert row["decided_level"] == before["decided_level"] or leaf == row["category_path"]
    assert silent == len(lost)


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
