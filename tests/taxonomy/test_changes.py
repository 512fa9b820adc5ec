import json
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_ray.cli.main import main
from atlas_ray.errors import TaxonomyError
from atlas_ray.taxonomy import (
    CategoryPath,
    Taxonomy,
    TaxonomyChanges,
    compare,
    format_path,
    parse_path,
    read_mapping,
    read_taxonomy,
)
from atlas_ray.taxonomy.changes import KINDS

few_names = st.sampled_from("abcdef")
path_sets = st.sets(st.lists(few_names, min_size=1, max_size=4).map(tuple), min_size=1, max_size=15)


def taxonomy(*paths: str, ids: bool = False) -> Taxonomy:
    """A taxonomy of `A > B` paths, or of `7 A > B` paths with ids."""
    pairs = [path.split(" ", 1) if ids else ("", path) for path in paths]
    return Taxonomy(
        [parse_path(path) for _, path in pairs],
        name="t",
        ids={node_id: parse_path(path) for node_id, path in pairs if node_id},
    )


def became(changes: TaxonomyChanges) -> dict[str, tuple[str, str]]:
    """What became of each path that is not as it was: kind and new paths."""
    return {
        format_path(one.old): (one.kind, "; ".join(map(format_path, one.new)))
        for one in changes.changes
        if one.kind != "unchanged"
    }


def write(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_two_categories_of_one_path_are_followed_by_their_ids() -> None:
    twice = Taxonomy(
        [("A", "x"), ("A", "y")], name="t", ids={"1": ("A",), "2": ("A", "x"), "3": ("A", "x"), "4": ("A", "y")}
    )
    apart = taxonomy("1 A", "2 A > bowl", "3 A > cup", "4 A > y", ids=True)
    assert became(compare(twice, apart)) == {"A > x": ("split", "A > bowl; A > cup")}
    assert became(compare(apart, twice)) == {"A > bowl": ("merged", "A > x"), "A > cup": ("merged", "A > x")}
    assert became(compare(twice, twice)) == {}


@pytest.mark.parametrize("ids", [True, False])
def test_leaves_that_stop_and_begin_are_told(ids: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = ["1 A", "2 A > x", "3 A > y", "4 A > y > s", "5 B", "6 C", "7 C > z", "8 D", "9 D > n", "12 D > o"]
    new = ["1 A", "2 A > x", "10 A > x > t", "3 A > y", "5 B", "6 C", "7 C > z", "8 E", "9 E > n", "12 E > o"]
    new += ["11 E > n > m"]
    before, after = ([line if ids else line.split(" ", 1)[1] for line in lines] for lines in (old, new))
    changes = compare(taxonomy(*before, ids=ids), taxonomy(*after, ids=ids))
    assert changes.stopped_leaves == ((("A", "x"), ("A", "x")), (("D", "n"), ("E", "n")))  # D was renamed E
    assert changes.began_leaves == ((("A", "y"), ("A", "y")),)
    for name, one in (("old.json", changes.old), ("new.json", changes.new)):
        write(tmp_path, name, one.to_json())
    files = [str(tmp_path / name) for name in ("old.json", "new.json", "changes.json")]
    assert main(["taxonomy", "diff", *files[:2], "--output", files[2]]) == 0
    shown = capsys.readouterr().out
    assert "2 paths stopped being leaves:\n  A > x\n  D > n -> E > n\n" in shown
    assert "1 path is a leaf now:\n  A > y\n" in shown
    written = json.loads((tmp_path / "changes.json").read_text())
    assert written["stopped_being_leaves"][1] == {"old_path": ["D", "n"], "new_path": ["E", "n"]}
    assert written["began_being_leaves"] == [{"old_path": ["A", "y"], "new_path": ["A", "y"]}]


def test_ids_tell_what_names_cannot() -> None:
    old = taxonomy("1 A", "2 A > x", "3 A > y", "4 A > z", "5 B", ids=True)
    new = taxonomy("1 A", "3 A > x", "2 A > w", "5 C", "9 C > z", "8 A > z", ids=True)
    changes = compare(old, new)
    assert changes.by_id
    assert became(changes) == {
        "A > x": ("renamed", "A > w"),  # its path is another category's now
        "A > y": ("renamed", "A > x"),
        "B": ("renamed", "C"),
    }
    assert {format_path(one.old): one.source for one in changes.changes}["A > z"] == "path"  # the id is gone
    assert changes.added == (("C", "z"),)


def test_without_ids_only_what_is_alike_alone_is_matched() -> None:
    old = taxonomy(
        "A > B > x", "A > B > y", "A > C > Other", "A > D > Other", "A > E > only", "A > F", "K > m", "K > n"
    )
    new = taxonomy(
        "A > B2 > x", "A > B2 > y", "A > Q > Other", "A > R > Other", "G > only", "A > F2", "L > K > m", "L > K > n"
    )
    changes = compare(old, new)
    assert became(changes) == {
        "A > B": ("renamed", "A > B2"),
        "A > B > x": ("renamed", "A > B2 > x"),
        "A > B > y": ("renamed", "A > B2 > y"),
        "A > C": ("removed", ""),  # Q or R: who knows
        "A > C > Other": ("removed", ""),
        "A > D": ("removed", ""),
        "A > D > Other": ("removed", ""),
        "A > E": ("removed", ""),
        "A > E > only": ("moved", "G > only"),
        "A > F": ("removed", ""),  # a leaf under another name may be another category
        "K": ("moved", "L > K"),
        "K > m": ("moved", "L > K > m"),
        "K > n": ("moved", "L > K > n"),
    }
    follows = {format_path(one.old) for one in changes.changes if one.follows}
    assert follows == {"A > B > x", "A > B > y", "A > C > Other", "A > D > Other", "K > m", "K > n"}


def test_a_mapping_wins_over_ids_and_guesses(tmp_path: Path) -> None:
    old = taxonomy("1 A", "2 A > x", "3 A > y", "4 A > z", "5 A > v", "6 A > w", ids=True)
    new = taxonomy("1 A", "2 A > x2", "7 A > p", "8 A > q", "4 A > z", "5 A > v", "6 A > w", ids=True)
    rows = "old_path,new_path\nA > x,A > z\nA > y,A > p\nA > y,A > q\nA > v,\nA > w,A > z\nB > gone,A > z\n"
    changes = compare(old, new, read_mapping(write(tmp_path, "m.csv", rows)))
    assert became(changes) == {
        "A > x": ("merged", "A > z"),
        "A > y": ("split", "A > p; A > q"),
        "A > v": ("removed", ""),
        "A > w": ("merged", "A > z"),
    }
    assert changes.added == (("A", "x2"), ("A", "v"), ("A", "w"))
    assert changes.unused == (("B", "gone"),)
    destinations = changes.destinations
    assert destinations["A", "x"].path == destinations["A", "z"].path == ("A", "z")
    assert (destinations["A", "y"].path, destinations["A", "y"].reason) == (None, "split")
    assert destinations["A", "y"].candidates == (("A", "p"), ("A", "q"))
    with pytest.raises(TaxonomyError, match=r"leads 'A > x' to 'A > nowhere', which the taxonomy 't' does not have"):
        compare(old, new, {("A", "x"): (("A", "nowhere"),)})


def test_a_leaf_with_paths_below_it_is_no_answer_any_more() -> None:
    changes = compare(taxonomy("A > x", "A > y"), taxonomy("A > x > 1", "A > x > 2", "A > y"))
    assert became(changes) == {}
    assert changes.destinations["A", "x"].reason == "not_a_leaf"
    assert changes.destinations["A", "x"].candidates == (("A", "x"),)
    assert changes.destinations["A",].path == ("A",)  # it never was one
    assert changes.label_destinations["A", "x"].path == ("A", "x")  # any leaf below it is right


def test_a_label_above_the_leaf_stays_where_all_below_it_went() -> None:
    """B was renamed whole; of A one leaf went to C, so that a product of A may be there."""
    old = taxonomy("A > x", "A > y", "B > K > m", "B > K > n", "C > z")
    new = taxonomy("A > x", "C > y", "Q > K > m", "Q > K > n", "C > z")
    destinations = compare(old, new).label_destinations
    assert destinations["B",].path == ("Q",)
    assert destinations["B", "K"].path == ("Q", "K")
    assert (destinations["A",].path, destinations["A",].reason) == (None, "regrouped")
    assert destinations["A",].candidates == (("A",), ("C", "y"))
    assert destinations["C",].path == ("C",)  # it gained a leaf, and lost none
    assert destinations["A", "y"].path == ("C", "y")


def mappings(old: Taxonomy, new: Taxonomy) -> st.SearchStrategy[dict[CategoryPath, tuple[CategoryPath, ...]]]:
    targets = st.lists(st.sampled_from(new.nodes), max_size=2, unique=True).map(tuple)
    return st.dictionaries(st.sampled_from(old.nodes), targets, max_size=6)


@pytest.mark.long
@given(path_sets, st.booleans())
def test_a_taxonomy_does_not_differ_from_itself(paths: set[CategoryPath], with_ids: bool) -> None:
    one = Taxonomy(sorted(paths), name="old")
    if with_ids:
        one = Taxonomy(one.nodes, name="old", ids={str(n): path for n, path in enumerate(one.nodes)})
    other = Taxonomy(reversed(one.nodes), name="new", ids=one.ids)
    changes = compare(one, other)
    assert became(changes) == {}
    assert changes.added == ()
    assert all(changes.destinations[path].path == path for path in one.nodes)
    assert all(changes.destinations[path].same_levels for path in one.nodes)


def test_what_a_guess_took_is_not_followed_to() -> None:
    old = Taxonomy([("c", "a"), ("b", "a", "a", "b")], name="old")
    changes = compare(old, Taxonomy([("a", "a")], name="new"))
    reached = [target for one in changes.changes for target in one.new]
    assert len(reached) == len(set(reached))


@pytest.mark.long
@given(path_sets, path_sets, st.data())
def test_every_path_is_accounted_for_once(
    before: set[CategoryPath], after: set[CategoryPath], data: st.DataObject
) -> None:
    old, new = Taxonomy(sorted(before), name="old"), Taxonomy(sorted(after), name="new")
    mapping = data.draw(st.one_of(st.just({}), mappings(old, new)))
    changes = compare(old, new, mapping)
    assert tuple(one.old for one in changes.changes) == old.nodes
    reached = Counter(target for one in changes.changes for target in one.new)
    assert reached.keys() | set(changes.added) == set(new.nodes)
    assert reached.keys().isdisjoint(changes.added)
    counts = changes.count()
    assert sum(counts[kind]["leaves"] for kind in KINDS) == len(old.leaves)
    for one in changes.changes:
        assert (len(one.new) == 0) == (one.kind == "removed")
        assert (len(one.new) > 1) == (one.kind == "split")
        assert (one.new == (one.old,)) == (one.kind == "unchanged")
        assert one.kind != "merged" or reached[one.new[0]] > 1
    if not mapping:  # what is guessed is one to one, and a path that both have is itself
        assert set(reached.values()) <= {1}
        assert all(one.kind == "unchanged" for one in changes.changes if one.old in set(new.nodes))
    assert json.loads(changes.to_json())["counts"] == counts


@given(path_sets, st.integers(0, 5))
def test_ids_find_every_category_again(paths: set[CategoryPath], seed: int) -> None:
    draws = random.Random(seed)
    old = Taxonomy(sorted(paths), name="old")
    image: dict[CategoryPath, CategoryPath] = {(): ()}
    for path in old.nodes:  # new names, and any node may go to the top
        name = f"{path[-1]}{len(image)}"
        image[path] = (name,) if draws.random() < 0.2 else (*image[path[:-1]], name)
    ids = {str(number): path for number, path in enumerate(old.nodes)}
    old = Taxonomy(old.nodes, name="old", ids=ids)
    new = Taxonomy(
        [image[path] for path in old.nodes], name="new", ids={node_id: image[path] for node_id, path in ids.items()}
    )
    changes = compare(old, new)
    assert all(one.new == (image[one.old],) for one in changes.changes)
    assert changes.added == ()


@pytest.mark.long
@given(path_sets, path_sets, st.data())
def test_a_level_is_the_same_where_it_holds_the_same_leaves(
    before: set[CategoryPath], after: set[CategoryPath], data: st.DataObject
) -> None:
    old, new = Taxonomy(sorted(before), name="old"), Taxonomy(sorted(after), name="new")
    changes = compare(old, new, data.draw(mappings(old, new)))
    held: defaultdict[tuple[str, CategoryPath], set[CategoryPath]] = defaultdict(set)
    for one in changes.changes:
        if one.old in old.leaf_set:
            for path, side in [(one.old, "old"), *((target, "new") for target in one.new)]:
                for level in range(1, len(path) + 1):
                    held[side, path[:level]].add(one.old)
    split = {one.old for one in changes.changes if len(one.new) > 1}
    for leaf in old.leaves:
        found = changes.destinations[leaf].path
        if found is not None:
            pairs = [(held["old", leaf[:level]], held["new", found[:level]]) for level in range(1, len(leaf) + 1)]
            same = len(found) == len(leaf) and all(one == other for one, other in pairs)
            assert same or not changes.destinations[leaf].same_levels
            if not any(one & split for one, _ in pairs):  # what was split may lead out of a level, too
                assert changes.destinations[leaf].same_levels == same


@pytest.mark.long
@given(path_sets, path_sets, st.data())
def test_an_ancestor_is_the_node_that_holds_the_same_leaves(
    before: set[CategoryPath], after: set[CategoryPath], data: st.DataObject
) -> None:
    old, new = Taxonomy(sorted(before), name="old"), Taxonomy(sorted(after), name="new")
    changes = compare(old, new, data.draw(mappings(old, new)))
    leads = [(one.old, target) for one in changes.changes if one.old in old.leaf_set for target in one.new or [()]]
    images = {one.old: one.new for one in changes.changes}
    for leaf in old.leaves:
        found = changes.destinations[leaf]
        if found.path is None:
            continue
        assert len(found.ancestors) == len(leaf) - 1
        for level, names in enumerate(found.ancestors, 1):
            node = leaf[:level]
            same = [
                found.path[:size]
                for size in range(1, len(found.path))
                if all((a[:level] == node) == (b[:size] == found.path[:size]) for a, b in leads)
            ]
            assert found.path[:names] in same if names else not same
            assert names in (0, len(found.path) - 1) or images[node] == (found.path[:names],) or (
                found.path[: names + 1] not in same
            )  # fmt: skip


def test_an_ancestor_follows_its_leaves() -> None:
    old = taxonomy("A > K > a", "A > K > b", "A > L > c", "A > L > d", "B > e", "B > f", "C > g", "C > h")
    new = taxonomy("T > A > K2 > a", "T > A > K2 > b", "T > A > L > c", "B > d", "B > e", "B > f", "C > h")
    found = compare(old, new, {("A", "K"): (("T", "A", "K2"),), ("A",): (("T", "A"),)}).destinations
    assert found["A", "K", "a"].ancestors == (0, 3)  # A lost d, and K is all in T > A > K2
    assert found["A", "L", "c"].ancestors == (0, 0)
    assert found["A", "L", "d"].path == ("B", "d")
    assert found["A", "L", "d"].ancestors == (0, 0)
    assert found["B", "e"].ancestors == (0,)  # d came
    assert found["C", "h"].ancestors == (0,)  # g was removed
    lifted = compare(taxonomy("A > x", "A > y"), taxonomy("T > A > x", "T > A > y")).destinations
    assert lifted["A", "x"].ancestors == (2,)  # T holds the same, and A is what A became
    drawn: dict[CategoryPath, tuple[CategoryPath, ...]] = {("A", name): (("F", "G", name),) for name in "xy"}
    mapped = compare(taxonomy("A > x", "A > y"), taxonomy("F > G > x", "F > G > y", "A > z"), drawn).destinations
    assert mapped["A", "x"].ancestors == (2,)  # A itself is another one now, what it held is not


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("m.csv", "old,new\nA,B\n", "no known column in ['old', 'new']; expected some of old_path, new_path"),
        ("m.csv", "old_path,new\nA,B\n", "the columns are ['old_path', 'new']; expected old_path, new_path"),
        ("m.csv", "old_path,new_path\nA,B\nA >  > C,B\n", "line 3: empty or padded name ''"),
        ("m.csv", "old_path,new_path\nA\n", "line 2: 1 cells where the header has 2"),
        ("m.csv", 'old_path,new_path\n"A,B\n', "line 2: a quote that opens a cell and is not closed"),
        ("m.csv", "old_path,new_path\n", "no old path in it"),
        ("m.json", "[", "not a mapping as Shopify publishes them"),
        ("m.json", '{"mappings": [{"rules": []}, {"rules": []}]}', "expected one entry of 'mappings'"),
        ("m.json", '{"mappings": [{"rules": [{"input": {"category": "a"}}]}]}', "rule 1: not a mapping"),
        (
            "m.json",
            '{"mappings": [{"rules": [{"input": {"category": {"full_name": 7}}, "output": {"category": []}}]}]}',
            "rule 1: full_name is 7",
        ),
    ],
)
def test_what_is_wrong_with_a_mapping_is_said(tmp_path: Path, name: str, text: str, reason: str) -> None:
    source = write(tmp_path, name, text)
    with pytest.raises(TaxonomyError) as error:
        read_mapping(source)
    assert str(error.value).startswith(source)
    assert reason in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_a_mapping_of_another_country(tmp_path: Path, separator: str, encoding: str) -> None:
    lines = ["New Path@OLD_PATH@note", "Caf\u00e9 > Cups@Coffee  >  Cups@", "@Tea@"]
    (tmp_path / "m.csv").write_bytes("\r\n".join(lines).replace("@", separator).encode(encoding))
    assert read_mapping(str(tmp_path / "m.csv")) == {("Coffee", "Cups"): (("Caf\u00e9", "Cups"),), ("Tea",): ()}


@pytest.mark.long
def test_google_changed_is_told_by_ids_and_by_names(test_data: Path, tmp_path: Path) -> None:
    published = (test_data / "taxonomies" / "taxonomy-with-ids.en-US.2019-07-10.txt").read_text()
    changed = published.replace("> Bird Supplies", "> All for Birds").replace("Cat Supplies > Cat Beds", "Cat Beds")
    lines = [line for line in changed.splitlines() if not line.endswith("> Dog Beds")]
    old = read_taxonomy(write(tmp_path, "old.txt", published))
    new = read_taxonomy(write(tmp_path, "new.txt", "\n".join(lines) + "\n999999 - Animals & Pet Supplies > Robots\n"))
    bare = compare(Taxonomy(old.nodes, name="old"), Taxonomy(new.nodes, name="new"))
    for by_id, changes in ((True, compare(old, new)), (False, bare)):
        assert changes.by_id == by_id
        counts = {kind: row["paths"] for kind, row in changes.count().items()}
        below = sum("Bird Supplies" in path for path in old.nodes)
        assert below > 5
        assert counts == {
            "unchanged": len(old.nodes) - below - 2, "renamed": below, "moved": 1, "merged": 0, "split": 0,
            "removed": 1, "added": 1,
        }  # fmt: skip
        assert changes.added == (("Animals & Pet Supplies", "Robots"),)


@pytest.mark.long
def test_shopifys_mapping_leads_to_its_new_version(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = test_data / "taxonomies"
    new = read_taxonomy(str(folder / "categories.en.txt"))
    assert new.ids["gid://shopify/TaxonomyCategory/ap"] == ("Animals & Pet Supplies",)
    file = str(folder / "shopify_2024-10_to_2025-08.json")
    mapping = read_mapping(file)
    assert len(mapping) == 50
    later = {target for targets in mapping.values() for target in targets}
    kept = [path for path in new.nodes if path not in later and new.children.get(path) is None]
    old = Taxonomy([*kept, *mapping], name="2024-10")
    started = time.perf_counter()
    changes = compare(old, new, mapping)
    changes.to_json()
    assert time.perf_counter() - started < 2.0
    for path, (target,) in mapping.items():
        (change,) = [one for one in changes.changes if one.old == path]
        assert change.new == (target,)
        assert change.kind in ("renamed", "moved", "merged")
    counts = changes.count()
    assert counts["removed"]["paths"] == counts["split"]["paths"] == 0
    assert counts["unchanged"]["paths"] == len(old.nodes) - 50
    (tmp_path / "old.json").write_text(old.to_json())
    command = ["taxonomy", "diff", str(tmp_path / "old.json"), str(folder / "categories.en.txt"), "--mapping", file]
    assert main([*command, "--output", str(tmp_path / "changes.json")]) == 0
    assert "Uniforms -> Apparel & Accessories > Clothing > Uniforms & Workwear" in capsys.readouterr().out
    written = json.loads((tmp_path / "changes.json").read_text())
    assert written["counts"] == counts
    assert sum(one["kind"] != "merged" for one in written["changes"]) == 50 - counts["merged"]["paths"]
