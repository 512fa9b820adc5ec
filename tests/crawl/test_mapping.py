from pathlib import Path

import pytest

from atlas_ray.crawl.mapping import BreadcrumbMapping
from atlas_ray.errors import ConfigError
from atlas_ray.taxonomy import Taxonomy

TAXONOMY = Taxonomy(
    [("Women", "Sarees"), ("Women", "Shoes"), ("Men", "Shoes"), ("Men", "Jeans"), ("Toys",)], name="small"
)
TABLE = """store,breadcrumb_prefix,category_path
*,Clothing > Women,Women > Sarees

,Clothing > Women > Shoes,Women > Shoes
mine,clothing >  WOMEN,Women > Shoes > Boots
"""


@pytest.mark.parametrize(
    ("store", "breadcrumb", "path"),
    [
        ("other", ("Clothing", "women", "Silk"), ("Women", "Sarees")),
        ("other", ("Clothing", "Women", " shoes ", "Red"), ("Women", "Shoes")),  # the longest beginning
        ("Mine", ("Clothing", "Women"), ("Women", "Shoes")),  # the shop's own row; Boots is below a leaf
        ("other", ("Clothing",), None),
        ("other", ("men", "JEANS"), ("Men", "Jeans")),
        ("other", ("Sale", "Men", "Jeans"), ("Men", "Jeans")),
        ("other", ("Men", "Jeans", "Slim"), ("Men", "Jeans")),
        ("other", ("Toys", "Men", "Jeans"), None),  # begins with one leaf, ends in another
        ("other", ("Shoes",), None),
        ("other", (), None),
    ],
)
def test_map(tmp_path: Path, store: str, breadcrumb: tuple[str, ...], path: tuple[str, ...] | None) -> None:
    (tmp_path / "map.csv").write_text(TABLE)
    assert BreadcrumbMapping.read(str(tmp_path / "map.csv"), TAXONOMY).map(store, breadcrumb) == path


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_a_table_of_another_country(tmp_path: Path, separator: str, encoding: str) -> None:
    lines = ["Category path@Store@Breadcrumb prefix", "Women > Shoes@*@Caf\u00e9 > Schuhe\u00a0Damen"]
    (tmp_path / "map.csv").write_bytes("\r".join(lines).replace("@", separator).encode(encoding))
    mapping = BreadcrumbMapping.read(str(tmp_path / "map.csv"), TAXONOMY)
    assert mapping.map("any", ("Cafe\u0301", "Schuhe Damen")) == ("Women", "Shoes")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("*,Hats,Women > Hats", "line 6: 'Women > Hats' is not, and is not below, a leaf of the taxonomy 'small'"),
        ("*,Hats,Women", "line 6: 'Women' is not"),
        ("*,Hats > ,Toys", "line 6: empty or padded name ''"),
        ("MINE,Clothing>Women,Toys", "line 6: 'Clothing>Women' means something else in line 5"),
        ("*,Hats", "line 6: 2 cells"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: str, message: str) -> None:
    file = tmp_path / "map.csv"
    file.write_text(TABLE + row + "\n")
    with pytest.raises(ConfigError) as error:
        BreadcrumbMapping.read(str(file), TAXONOMY)
    assert str(error.value).startswith(f"{file}, {message}")


def test_a_path_below_a_leaf_collapses() -> None:
    mapping = BreadcrumbMapping(TAXONOMY)
    assert mapping.collapse(("Men", "Shoes", "Boots")) == ("Men", "Shoes")
    assert mapping.collapse(("Men",)) is None
