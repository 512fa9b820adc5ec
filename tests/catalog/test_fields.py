from typing import Any

import pytest

from atlas_ray.catalog.fields import FURTHER, Columns, find_value
from atlas_ray.errors import ConfigError


def found(header: list[str], **chosen: str) -> dict[str, tuple[str, ...]]:
    columns = Columns(chosen).of(dict.fromkeys(header, "x"))
    return {field: names for field, names in columns.items() if names}


SHOPIFY = ["Handle", "Title", "Body (HTML)", "Vendor", "Type", "Tags", "Variant SKU", "Variant Price", "Image Src",
           "Image Position", "Image Alt Text"]  # fmt: skip
WOOCOMMERCE = ["ID", "SKU", "Name", "Short description", "Description", "Sale price", "Regular price", "Categories",
               "Images"]  # fmt: skip
MERCHANT_FEED = ["id", "title", "link", "image_link", "additional_image_link", "price", "google_product_category",
                 "product_type"]  # fmt: skip
SHOPIFY_SINCE_2025 = ["Title", "URL handle", "Description", "Vendor", "Product category", "Type", "SKU", "Price",
                      "Product image URL", "Image position", "Variant image URL"]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        (SHOPIFY, {"product_id": ("Handle", "Variant SKU"), "title": ("Title",), "description": ("Body (HTML)",),
                   "price": ("Variant Price",), "image_uris": ("Image Src",), "image_position": ("Image Position",),
                   "category_path": ("Type",), "brand": ("Vendor",), "sku": ("Variant SKU",)}),
        (SHOPIFY_SINCE_2025, {"product_id": ("URL handle", "SKU"), "title": ("Title",), "description": ("Description",),
                   "price": ("Price",), "image_uris": ("Product image URL", "Variant image URL"),
                   "image_position": ("Image position",), "category_path": ("Product category", "Type"),
                   "brand": ("Vendor",), "sku": ("SKU",)}),
        (WOOCOMMERCE, {"product_id": ("ID", "SKU"), "title": ("Name",), "image_uris": ("Images",),
                       "description": ("Description", "Short description"), "price": ("Sale price", "Regular price"),
                       "category_path": ("Categories",), "sku": ("SKU",)}),
        (MERCHANT_FEED, {"product_id": ("id",), "title": ("title",), "url": ("link",), "image_uris": ("image_link",),
                         FURTHER: ("additional_image_link",), "price": ("price",),
                         "category_path": ("product_type", "google_product_category")}),
        (["Product ID", "product-name", "IMAGE_URL"],
         {"product_id": ("Product ID",), "title": ("product-name",), "image_uris": ("IMAGE_URL",)}),
        (["SKU", "image_2", "image_10", "image_1", "image_1_alt"],
         {"product_id": ("SKU",), "sku": ("SKU",), FURTHER: ("image_1", "image_2", "image_10")}),
        (["id", "image", "Image 2", "Image 3"],
         {"product_id": ("id",), "image_uris": ("image",), FURTHER: ("Image 2", "Image 3")}),
        (["id", "image_1_url", "image_1_path", "image_2_url", "image_2_path"],
         {"product_id": ("id",), FURTHER: ("image_1_url", "image_2_url")}),
        (["title", "Title", "id"], {"product_id": ("id",), "title": ("title",)}),
    ],
)  # fmt: skip
def test_columns_of_common_exports(header: list[str], fields: dict[str, tuple[str, ...]]) -> None:
    assert found(header) == fields


def test_chosen_columns() -> None:
    header = ["id", "Front View", "back", "name, long", "image"]
    assert found(header, title="name, long")["title"] == ("name, long",)
    assert found(header, title="NAME LONG")["title"] == ("name, long",)
    pictures = found(header, image_uris="front_view, back")
    assert pictures[FURTHER] == ("Front View", "back")
    assert "image_uris" not in pictures
    assert found([*header, "front view, back"], image_uris="front view, back")[FURTHER] == ("front view, back",)


def test_a_column_for_each_level() -> None:
    header = ["id", "Main Category", "sub"]
    levels = Columns({"category_path": "main_category, sub, third"})
    assert levels.of(dict.fromkeys(header, "x"))["category_path"] == ("Main Category", "sub", "third")
    with pytest.raises(ConfigError, match=r"no column 'third' in shop\.csv"):
        levels.check("shop.csv", [dict.fromkeys(header, "x")])
    levels.check("shop.jsonl", [dict.fromkeys(header, "x"), {"id": "2", "third": "x"}])


def test_ids_and_categories_come_from_one_column() -> None:
    header = ["Handle", "Variant SKU", "Product Category", "Type"]
    rows = [dict(zip(header, cells, strict=True)) for cells in (["a", "1", "", "Shirts"], ["", "2", "", "Mugs"])]
    columns = Columns({}, rows)
    assert columns.of(rows[0])["category_path"] == ("Type",)
    assert find_value(rows[1], columns.of(rows[1])["product_id"]) is None
    assert find_value(rows[1], Columns({}).of(rows[1])["product_id"]) == ("Variant SKU", "2")


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"category_path": "kategorie"}, r"--map category_path=kategorie: no column 'kategorie' in shop.csv; did you "
                                         r"mean 'Kategorien'\? It has 'sku', 'Kategorien', 'photo'"),
        ({"title": "name"}, r"no column 'name' in shop.csv; it has 'sku'"),
        ({"image_uris": "photo,foto"}, r"no column 'foto' in shop.csv; did you mean 'photo'\?"),
        ({"product_id": "sku", "price": "Preis"}, "--map price=Preis"),
    ],
)  # fmt: skip
def test_unknown_columns_are_refused(chosen: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Columns(chosen).check("shop.csv", [dict.fromkeys(["sku", "Kategorien", "photo"])])


def test_a_column_that_only_a_late_row_has() -> None:
    rows: list[dict[str, Any]] = [{"id": "1"}] * 5000 + [{"id": "2", "Colour Name": "red"}]
    Columns({"title": "colour_name"}).check("shop.jsonl", rows)
    with pytest.raises(ConfigError, match="no column 'colour'"):
        Columns({"title": "colour"}).check("shop.jsonl", rows[:5000])
