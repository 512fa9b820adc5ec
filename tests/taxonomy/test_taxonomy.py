import json
import time
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_ray.errors import TaxonomyError
from atlas_ray.formats import text_files
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie, format_path, parse_path, read_taxonomy

names = st.text(st.characters(codec="utf-8", exclude_characters=">", min_codepoint=33), min_size=1, max_size=4)
clean = names.filter(lambda name: name == name.strip())
path_sets = st.sets(st.lists(clean, min_size=1, max_size=4).map(tuple), min_size=1, max_size=20)


def write(tmp_path: Path, name: str, text: str | bytes) -> str:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def test_the_atlas_paths_ship_with_the_package() -> None:
    atlas = read_taxonomy("atlas-52")
    assert len(atlas.leaves) == 52
    assert atlas.count_by_level() == [2, 6, 52]
    trie = compile_trie(atlas, Vocabulary.of(atlas))
    assert trie.inner_count == 9


def test_a_repeated_name_stays_two_paths_and_one_token() -> None:
    atlas = read_taxonomy("atlas-52")
    jackets = [path for path in atlas.leaves if path[-1] == "Jackets"]
    assert jackets == [("Men", "Ethnic Wear", "Jackets"), ("Men", "Western Wear", "Jackets")]
    vocabulary = Vocabulary.of(atlas)
    assert vocabulary.tokens.count("Jackets") == 1
    assert vocabulary.encode(jackets[0]) != vocabulary.encode(jackets[1])


@pytest.mark.long
@given(path_sets)
def test_the_id_is_that_of_the_set_of_paths(paths: set[tuple[str, ...]]) -> None:
    one = Taxonomy(sorted(paths), name="a", version="1")
    other = Taxonomy(sorted(paths, reverse=True), name="b")
    assert one.id == other.id
    assert Taxonomy.from_json(one.to_json(), source="memory").id == one.id
    assert Taxonomy([*sorted(paths), ("new-name",) * 6], name="a").id != one.id


@pytest.mark.long
@given(path_sets)
def test_the_trie_holds_every_leaf_and_nothing_else(paths: set[tuple[str, ...]]) -> None:
    taxonomy = Taxonomy(sorted(paths), name="t")
    vocabulary = Vocabulary.of(taxonomy)
    trie = compile_trie(taxonomy, vocabulary)
    for row, leaf in enumerate(taxonomy.leaves):
        tokens = trie.leaf_tokens[row]
        assert [vocabulary.tokens[token] for token in tokens[tokens > 0]] == list(leaf)
        node = 0
        for token in tokens[tokens > 0]:  # walk down from the root
            children = np.arange(trie.first_child[node], trie.first_child[node] + trie.child_count[node])
            (node,) = children[trie.token[children] == token]
        assert trie.leaf[node] == row
    assert (trie.leaf >= 0).sum() == len(taxonomy.leaves)


def test_within_narrows_and_names_the_choices() -> None:
    atlas = read_taxonomy("atlas-52")
    ethnic = atlas.within(parse_path("Women > Ethnic Wear"))
    assert len(ethnic.leaves) == 9
    assert all(path[:2] == ("Women", "Ethnic Wear") for path in ethnic.leaves)
    with pytest.raises(TaxonomyError, match=r"'Women > Footwear' is not in the taxonomy.*below 'Women' it has"):
        atlas.within(("Women", "Footwear"))


def test_a_name_without_a_token_is_refused_by_name() -> None:
    atlas = read_taxonomy("atlas-52")
    other = Taxonomy([("Men", "Footwear")], name="other")
    with pytest.raises(TaxonomyError, match="no token for 'Footwear'"):
        compile_trie(other, Vocabulary.of(atlas))


GOOD = {
    "levels.csv": "level_1,level_2,images\nA,B,3\nA,C,4\nD,,1\n",
    "levels from the bottom.csv": "Level 2,Level 1\nB,A\nC,A\n,D\n",
    "google without its first line.txt": "1 - A\n2 - A > B\n7 - A > C\n8 - D\n",
    "shopify without its first line.txt": "gid://s/a : A\ngid://s/a-1 : A > B\ngid://s/a-2 : A > C\ngid://s/d : D\n",
    "parents of a shop.csv": "id,parent_id,name\n5,0,A\n6,5,B\n7,5,C\n8,NULL,D\n",
    "entities.txt": "A &gt; B\nA &amp;gt; C\nD\n",
    "paths.csv": "category_path\nA > B\nA > C\nD\n",
    "a path by another name.csv": "Path,id,images\nA > B,7,1\nA > C,8,2\nD,9,3\n",
    "nodes with what their path is elsewhere.csv": "id,parent_id,name,path\n3,1,C,a/c\n1,,A,a\n2,1,B,a/b\n4,,D,d\n",
    "adjacency.csv": "id,parent_id,name\n3,1,C\n1,,A\n2,1,B\n4,,D\n",
    "paths.txt": "A > B\nA > C\nD\n",
    "google.txt": "# Google_Product_Taxonomy_Version: 2021-09-21\n1 - A\n2 - A > B\n3 - A > C\n9 - D\n",
    "shopify.txt": "# Shopify Product Taxonomy - Categories: 2025-08\n\n"
    "gid://shopify/TaxonomyCategory/a    : A\ngid://shopify/TaxonomyCategory/a-1  : A > B\n"
    "gid://shopify/TaxonomyCategory/a-2  : A > C\ngid://shopify/TaxonomyCategory/d    : D\n",
    "atlas.json": '{"images": [{"sentences": [{"tokens": ["A", "B"]}]}, {"sentences": [{"tokens": ["A", "C"]}]},'
    '{"sentences": [{"tokens": ["A", "B"]}]}, {"sentences": [{"tokens": ["D"]}]}]}',
}


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_gives_the_same_taxonomy(tmp_path: Path, name: str) -> None:
    taxonomy = read_taxonomy(write(tmp_path, name, GOOD[name]))
    assert set(taxonomy.leaves) == {("A", "B"), ("A", "C"), ("D",)}
    assert taxonomy.version == {"google.txt": "2021-09-21", "shopify.txt": "2025-08"}.get(name, "")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "level_1,level_2\nA,B\nA,B\n", "line 3: 'A > B' stands already in line 2"),
        ("a.csv", "level_1,level_2\n,B\n", "line 2: level 1 is empty here and in the row above"),
        ("a.csv", "level_1,level_2,level_3\nA,B,C\nA,,\n,,D\n", "line 4: level 2 is empty here and in the row above"),
        ("a.csv", "level_1,level_2,level_3\nA,,C\n", "line 2: empty or padded name ''"),
        ("a.csv", "level_1,level_2\nA,B\n,B\n", "line 3: 'A > B' stands already in line 2"),
        ("a.csv", "level_1,level_2\nA,B > C\n", "line 2: the name 'B > C' holds the separator"),
        ("a.csv", "level_1,level_2\nA,B,C\n", "line 2: 3 cells where the header has 2"),
        ("a.csv", "size,color\nA,B\n", "line 1: no known column in ['size', 'color']; expected some of level_1"),
        ("a.csv", "id,name\n1,A\n", "line 1: the columns are ['id', 'name']; expected level_1"),
        ("a.csv", 'level_1,level_2\nA,"B\nA,C\n', "line 2: a quote that opens a cell and is not closed"),
        ("a.csv", "id,parent_id,name\n1,2,A\n2,1,B\n", "line 2: a cycle: 1 -> 2 -> 1"),
        ("a.csv", "id,parent_id,name\n1,7,A\n", "line 2: the parent_id '7' is the id of no row"),
        ("a.csv", "id,parent_id,name\n1,,A\n1,,B\n", "line 3: the id '1' stands already in line 2"),
        (
            "a.txt",
            "# Google_Product_Taxonomy_Version: 1\n1 - A\n1 - B\n",
            "line 3: the id '1' stands already in line 2",
        ),
        ("a.txt", "A > B\nA >  > C\n", "line 2: empty or padded name ''"),
        ("a.txt", "# Shopify Product Taxonomy - Categories: 1\nA > B\n", "line 2: expected 'gid://... : A > B'"),
        ("a.txt", "", "no category path in it"),
        ("a.txt", b"A > B\nA > \xff\x81\n", "line 2: not UTF-8"),
        ("a.txt", b"A > B\nA > \0\n", "a binary file"),
        ("a.csv", b"PK\x03\x04", "a spreadsheet or zip file; save its sheet as a CSV in UTF-8"),
        ("a.json", '{"mappings": []}', "JSON of another kind"),
        ("a.json", '{"images": [{"sentences": [{}]}]}', "line 1: not an image of an Atlas catalogue"),
        ("a.json", '{"paths": [["A"]], "name": "n", "version": "", "id": "0"}', "the file was changed"),
        ("a.json", '{"paths": [["A"], ["B"]], "name": "n", "version": "", "ids": ["1"]}', "not a taxonomy.json"),
        (
            "a.json",
            '{"paths": [["A"], ["B"]], "name": "n", "version": "", "ids": ["1", 2]}',
            "the id 2 is something else than text",
        ),
        ("a.json", '{"paths": [["A"], ["B"]], "name": "n", "version": "", "ids": ["1", "1"]}', "have the same id '1'"),
        ("a.json", '{"images": [', "not JSON"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    source = write(tmp_path, name, text)
    with pytest.raises(TaxonomyError) as error:
        read_taxonomy(source)
    assert str(error.value).startswith(source)
    assert reason in str(error.value)


NO_TAXONOMY = {
    "Makefile": ("PYTHON ?= python3\n\ntest: check\n\tpytest -n 2 2>&1\n", "none of its 3 lines has a '>'"),
    "page.txt": ("<!doctype html>\n<p>Women > Sarees</p>\n", "looks like HTML or XML"),
    "run.sh": ("#!/bin/sh\ncat a > b\ncat c > d\n", "looks like a script"),
    "typed.py": ("def f(a: int) -> str:\n    return a > 3\n\ndef g() -> int:\n    pass\n", "only 1 of its 4 lines"),
    "change.diff": ("diff --git a/x b/x\n> new\n> newer\n", "looks like a patch"),
    "slashes.txt": ("Women/Ethnic Wear/Sarees\nWomen/Ethnic Wear/Kurtas\n", "between '/', where '>' is expected"),
    "arrows.txt": ("Women » Sarees\nWomen » Kurtas\nMen » Shirts\n", "between '»', where '>' is expected"),
    "slashes.csv": ("category_path\nWomen/Ethnic/Sarees\nWomen/Ethnic/Kurtas\n", "between '/', where '>' is expected"),
    "bars.csv": ("category_path;id\nMen|Shirts;1\nMen|Shoes;2\n", "between '|', where '>' is expected"),
    "names.txt": ("Sarees\nKurtas\nShirts\n", "a tree of one level is a CSV with the column level_1"),
    "settings.yaml": ("# Women > Sarees\nname: x\nlist:\n- a\n- b\n", "only 1 of its 5 lines"),
    "letter.txt": ("Dear all,\nprices > 10 are high.\nBest,\nA\n", "only 1 of its 4 lines"),
}


@pytest.mark.parametrize("name", NO_TAXONOMY)
def test_a_text_of_another_kind_is_no_taxonomy(tmp_path: Path, name: str) -> None:
    text, reason = NO_TAXONOMY[name]
    with pytest.raises(TaxonomyError) as error:
        read_taxonomy(write(tmp_path, name, text))
    assert reason in str(error.value)


@pytest.mark.parametrize("text", ["level_1\nA\nB\n", "category_path\nA\nB\n", "level_1,level_2\nA,\nB,\n"])
def test_a_tree_of_one_level_is_a_csv(tmp_path: Path, text: str) -> None:
    assert read_taxonomy(write(tmp_path, "flat.csv", text)).leaves == (("A",), ("B",))


def test_a_text_may_list_every_node_and_names_with_odd_marks(tmp_path: Path) -> None:
    text = "Tops\nTops > Tees/Tanks\nTops>Polos\nShoes & Bags\nShoes & Bags > Heels\n"
    with pytest.raises(TaxonomyError, match="line 5: empty or padded name"):
        read_taxonomy(write(tmp_path, "odd.txt", text.replace("> Heels", ">  > Heels")))
    assert read_taxonomy(write(tmp_path, "nodes.txt", text)).leaves == (
        ("Tops", "Tees/Tanks"),
        ("Tops", "Polos"),
        ("Shoes & Bags", "Heels"),
    )


@pytest.mark.parametrize(
    "rows",
    [
        "Women,Ethnic,Sarees\n,,Kurtas\n,Western,\nMen,,\n,Shirts,Polos\n",  # only what is new
        "Women,,\n,Ethnic,\n,,Sarees\n,,Kurtas\n,Western,\nMen,,\n,Shirts,\n,,Polos\n",  # a node a row
        "Women,Ethnic,Sarees\nWomen,Ethnic,Kurtas\n,Western,\nMen,Shirts,Polos\n",  # here and there
    ],
)
def test_names_of_the_row_above_may_be_left_out(tmp_path: Path, rows: str) -> None:
    taxonomy = read_taxonomy(write(tmp_path, "sparse.csv", f"level_1,level_2,level_3\n{rows}"))
    assert [format_path(path) for path in taxonomy.leaves] == [
        "Women > Ethnic > Sarees",
        "Women > Ethnic > Kurtas",
        "Women > Western",
        "Men > Shirts > Polos",
    ]


NAMED_ALIKE = [("Caf\u00e9", "Cups"), ("Caf\u00e9", "#1 Dad Mugs"), ("#1 Gifts", "Black Mugs")]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("t.txt", ["# our tree", "Caf\u00e9 > Cups", "Caf\u00e9 > #1 Dad Mugs", "#1 Gifts > Black\xa0Mugs"]),
        ("t.txt", ["#1 Gifts > Black Mugs", "", "# and", "#", " Caf\u00e9  >Cups", "Caf\u00e9 > #1  Dad Mugs "]),
        (
            "g.txt",
            ["# Google_Product_Taxonomy_Version: 1", "1 - #1 Gifts > Black Mugs", "2 - Caf\u00e9 > Cups",
             "Caf\u00e9 > #1 Dad Mugs"],
        ),
        (
            "s.txt",
            ["# Shopify Product Taxonomy - Categories: 1", "# Format: {GID} : {Name} > {Name}",
             "gid://1 : #1 Gifts > Black Mugs", "gid://2 : Caf\u00e9 > Cups", "gid://3 : Caf\u00e9 > #1 Dad Mugs"],
        ),
        ("c.csv", ["level_1;level_2", "#1 Gifts;Black Mugs", "Caf\u00e9;Cups", "Caf\u00e9; #1 Dad Mugs"]),
        ("c.tsv", ["Category Path", "#1 Gifts > Black Mugs", "Caf\u00e9 > Cups", "Caf\u00e9 > #1 Dad Mugs"]),
        ("n.csv", ["ID;Parent ID;Name", "1;;Caf\u00e9", "2;1;Cups", "3;1;#1 Dad Mugs", "4;;#1 Gifts",
                   "5;4;Black Mugs"]),
    ],
)  # fmt: skip
def test_names_are_the_same_however_a_file_is_saved(
    tmp_path: Path, name: str, lines: list[str], end: str, encoding: str, form: Literal["NFC", "NFD"]
) -> None:
    if encoding == "cp1252" and form == "NFD":
        return  # has no combining characters
    text = unicodedata.normalize(form, end.join(lines))
    taxonomy = read_taxonomy(write(tmp_path, name, text.encode(encoding)))
    assert set(taxonomy.leaves) == set(NAMED_ALIKE)


def test_a_guess_of_the_encoding_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    # At the logger: libraries that ran before in this process may have changed those above it.
    monkeypatch.setattr(text_files.LOGGER, "warning", lambda text, *values: told.append(text % values))
    for encoding, warnings in (("utf-8", 0), ("utf-16", 0), ("latin-1", 1)):
        told.clear()
        read_taxonomy(write(tmp_path, "t.txt", "Caf\u00e9 > Gr\u00f6\u00dfe\n".encode(encoding)))
        assert [text.partition("t.txt: ")[2] for text in told] == [
            "read as Windows-1252, which is a guess; save it in UTF-8 to be sure"
        ] * warnings


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1d"])
def test_line_breaks_of_other_kinds_do_not_end_a_line(tmp_path: Path, mark: str) -> None:
    for name, text in (
        ("t.txt", f"Shoes{mark}Men > Boots\nA > B\n"),
        ("t.csv", f"level_1,level_2\nShoes{mark}Men,Boots\nA,B\n"),
    ):
        assert read_taxonomy(write(tmp_path, name, text)).leaves == (("Shoes Men", "Boots"), ("A", "B"))


def test_two_ids_may_have_one_path(tmp_path: Path) -> None:
    """As in a translation that has one word for two categories."""
    gid = "gid://shopify/TaxonomyCategory/"
    text = (
        "# Shopify Product Taxonomy - Categories: 2025-08\n"
        f"{gid}a : Tiere\n{gid}a-1 : Tiere > Napf\n{gid}a-2 : Tiere > Napf\n{gid}a-3 : Tiere > Leine\n"
    )
    taxonomy = read_taxonomy(write(tmp_path, "de.txt", text))
    assert taxonomy.leaves == (("Tiere", "Napf"), ("Tiere", "Leine"))
    assert taxonomy.ids_of["Tiere", "Napf"] == [f"{gid}a-1", f"{gid}a-2"]
    again = Taxonomy.from_json(taxonomy.to_json(), source="memory")
    assert (again.ids, again.id) == (taxonomy.ids, taxonomy.id)
    assert taxonomy.within(("Tiere", "Napf")).ids_of["Tiere", "Napf"] == [f"{gid}a-1", f"{gid}a-2"]
    with pytest.raises(TaxonomyError, match=r"line 4: the id .*a-1' stands already in line 3"):
        read_taxonomy(write(tmp_path, "twice.txt", text.replace("a-2", "a-1")))


@pytest.mark.long
def test_published_files(test_data: Path) -> None:
    folder = test_data / "taxonomies"
    google = read_taxonomy(str(folder / "taxonomy-with-ids.en-US.2019-07-10.txt"))
    assert (google.version, len(google.nodes)) == ("2019-07-10", 5582)
    shopify = read_taxonomy(str(folder / "categories.en.txt"))
    assert (shopify.version, len(shopify.nodes), shopify.depth) == ("2025-08-unstable", 10595, 8)
    vocabulary = Vocabulary.of(shopify)
    started = time.perf_counter()
    compile_trie(shopify, vocabulary)
    assert time.perf_counter() - started < 1.0
    with pytest.raises(TaxonomyError, match="JSON of another kind"):
        read_taxonomy(str(folder / "shopify_2024-10_to_2025-08.json"))


@pytest.mark.parametrize(
    ("name", "ids"),
    [("google.txt", "1 2 3 9"), ("adjacency.csv", "1 2 3 4"), ("shopify.txt", "a a-1 a-2 d"), ("paths.txt", "")],
)
def test_ids_are_kept_beside_the_paths(tmp_path: Path, name: str, ids: str) -> None:
    taxonomy = read_taxonomy(write(tmp_path, name, GOOD[name]))
    paths = [("A",), ("A", "B"), ("A", "C"), ("D",)]
    prefix = "gid://shopify/TaxonomyCategory/" if name == "shopify.txt" else ""
    assert taxonomy.ids == {prefix + node_id: path for path, node_id in zip(paths, ids.split(), strict=bool(ids))}
    assert taxonomy.id == Taxonomy(paths, name="t").id
    assert Taxonomy.from_json(taxonomy.to_json(), source="memory").ids == taxonomy.ids
    assert ("ids" in json.loads(taxonomy.to_json())) == bool(ids)
    assert set(taxonomy.within(("A", "B")).ids.values()) <= {("A",), ("A", "B")}


@pytest.mark.parametrize("text", ["id;Full Path\n7;A > B\n;A > C\nx1; D \n", "level_1,level_2,ID\nA,B,7\n,C,\nD,,x1\n"])
def test_a_column_of_ids_beside_a_path(tmp_path: Path, text: str) -> None:
    assert read_taxonomy(write(tmp_path, "a.csv", text)).ids == {"7": ("A", "B"), "x1": ("D",)}
    with pytest.raises(TaxonomyError, match="line 4: the id '7' stands already in line 2"):
        read_taxonomy(write(tmp_path, "a.csv", text.replace("x1", "7")))


def test_the_tree_is_drawn() -> None:
    taxonomy = Taxonomy([("A", "B", "C"), ("A", "D"), ("E",)], name="t")
    assert list(taxonomy.lines()) == ["A", "├─ B", "│  └─ C", "└─ D", "E"]
    assert format_path(("A", "B")) == "A > B"


@pytest.mark.parametrize(
    ("name", "text", "path"),
    [
        ("a.csv", "category_path\nBags &amp; Belts > Caf&eacute;\n", ("Bags & Belts", "Café")),
        ("a.csv", "level_1,level_2\nBags &amp; Belts,R&B\n", ("Bags & Belts", "R&B")),
        ("a.csv", "id,parent_id,name\n1,,Bags &#38; Belts\n0,1,B\n", ("Bags & Belts", "B")),
        ("a.txt", "Sewing &notions > Q&A\n", ("Sewing &notions", "Q&A")),
        ("a.txt", "1 - Women > Tops\n1 - Women > Skirts\n", ("1 - Women", "Tops")),
    ],
)
def test_entities_and_numbers_in_names(tmp_path: Path, name: str, text: str, path: tuple[str, ...]) -> None:
    assert read_taxonomy(write(tmp_path, name, text)).leaves[0] == path


def test_an_id_that_stands_twice_is_refused_without_the_first_line_too(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match="line 3: the id '2' stands already in line 2"):
        read_taxonomy(write(tmp_path, "a.txt", "1 - A\n2 - A > B\n2 - A > C\n"))
