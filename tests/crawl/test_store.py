from pathlib import Path

import pytest

from atlas_ray.crawl.store import StartUrl, read_stores
from atlas_ray.errors import ConfigError

SHOP = """
name: shoes
start_urls:
  - https://www.shoes.example/women
  - {url: "https://outlet.example/men", category_path: "Men > Shoes"}
product_links: a.tile
fields: {price: ".price::text"}
delay_s: 0.5
"""


def test_one_shop_in_yaml(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    (store,) = read_stores(str(file))
    assert store.start_urls == (
        StartUrl("https://www.shoes.example/women"),
        StartUrl("https://outlet.example/men", ("Men", "Shoes")),
    )
    assert store.allowed_domains == ("shoes.example", "outlet.example")
    assert (store.product_links, store.fields, store.delay_s) == ("a.tile", {"price": ".price::text"}, 0.5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("delay_s: 0.5", "delay: 0.5", "'shoes': no field 'delay'; did you mean 'delay_s'?"),
        ("delay_s: 0.5", "delay_s: -1", "delay_s is -1; expected 0.0 to 3600.0"),
        ("delay_s: 0.5", "render: 1", "render is 1; expected true or false"),
        ("name: shoes", "", "shop 1: name is missing"),
        ("name: shoes", "name: Home/Living", "name is 'Home/Living'; expected up to 100 characters, without /"),
        ("name: shoes", "name: ..", "name is '..'; expected"),
        ("name: shoes", "name: ' '", "name is ' '; expected"),
        ("a.tile", "'svg|a'", "product_links is 'svg|a', no CSS selector"),
        ("a.tile", "'a..tile'", "product_links is 'a..tile', no CSS selector"),
        (".price::text", ".price::nothing()", "fields.price is '.price::nothing()', no CSS selector"),
        ("price:", "prise:", "fields holds 'prise'; did you mean 'price'?"),
        ("https://www.shoes.example/women", "www.shoes.example", "'www.shoes.example'; expected an http(s) address"),
        ("Men > Shoes", "Men > > Shoes", "empty or padded name ''"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP.replace(old, new))
    with pytest.raises(ConfigError) as error:
        read_stores(str(file))
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


def test_several_shops_have_names_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "shops.yaml"
    file.write_text("stores:\n- {name: a, start_urls: https://a.example}\n- {name: b, start_urls: https://b.example}\n")
    assert [store.name for store in read_stores(str(file))] == ["a", "b"]
    file.write_text(file.read_text().replace("name: b", "name: a"))
    with pytest.raises(ConfigError, match="the shop 'a' is listed twice"):
        read_stores(str(file))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_of_another_country(tmp_path: Path, separator: str, encoding: str) -> None:
    lines = ["taxonomy@b\u00fccher.example@second", "Men > Caf\u00e9@https://a.example/x?a=1@https://b.example/y"]
    file = tmp_path / "urls.csv"
    file.write_bytes("\r".join(lines).replace("@", separator).encode(encoding))
    first, second = read_stores(str(file))
    assert (first.name, first.start_urls) == (
        "b\u00fccher.example",
        (StartUrl("https://a.example/x?a=1", ("Men", "Caf\u00e9")),),
    )
    assert second.start_urls == (StartUrl("https://b.example/y", ("Men", "Caf\u00e9")),)


def test_the_atlas_csv(tmp_path: Path) -> None:
    file = tmp_path / "urls.csv"
    file.write_text(
        "Taxonomy,first,second,third\n"
        'Men-> Western Wear-> Jeans,https://first.example/jeans,"https://second.example/a\n https://second.example/b",\n'
        "\nWomen > Sarees,https://first.example/sarees,,\n"
    )
    first, second = read_stores(str(file))
    jeans, sarees = ("Men", "Western Wear", "Jeans"), ("Women", "Sarees")
    assert first.start_urls == (
        StartUrl("https://first.example/jeans", jeans),
        StartUrl("https://first.example/sarees", sarees),
    )
    assert second.start_urls == tuple(StartUrl(f"https://second.example/{page}", jeans) for page in "ab")
    file.write_text("Taxonomy,first\nMen,nonsense\n")
    with pytest.raises(ConfigError, match="line 2, column first: 'nonsense'"):
        read_stores(str(file))
    file.write_text("Taxonomy,first,first\nMen,,\n")
    with pytest.raises(ConfigError, match="a column stands twice"):
        read_stores(str(file))
    file.write_text("Taxonomy,first\nMen,\n")
    with pytest.raises(ConfigError, match="no shop has an address"):
        read_stores(str(file))
