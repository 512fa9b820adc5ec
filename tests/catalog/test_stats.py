from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser

from atlas_ray.catalog.repeats import Repeats, Sample
from atlas_ray.catalog.stats import TOO_SHORT, CatalogStats, StatsConfig, catalog_stats, tell_languages
from atlas_ray.cli.main import main
from atlas_ray.io import storage
from atlas_ray.reports.catalog_page import histogram
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids
from tests.support.parts import Page, check_self_contained

ENGLISH = "A light summer dress made of soft cotton with short sleeves"
GERMAN = "Ein leichtes Sommerkleid aus weicher Baumwolle mit kurzen Ärmeln"
HOSTILE = "<script>alert(1)</script>"


def product(product_id: str, path: list[str] | None, **more: Any) -> dict[str, Any]:
    row = {"product_id": product_id, "category_path": path, "title": ENGLISH, "split": "train" if path else None}
    return row | {"image_uris": [f"{product_id}.jpg"]} | more


SHIRTS, DRESSES, RARE = ["Men", "Shirts"], ["Women", "Dresses"], ["Women", HOSTILE]
ROWS = [
    *(product(f"s{number}", SHIRTS, price=10.0 + number, currency="EUR", store="one") for number in range(25)),
    product("d1", DRESSES, image_uris=["d1.jpg", "s1.jpg"], title=GERMAN, category_paths=[DRESSES, SHIRTS]),
    product("d2", DRESSES, split="test", title="", description=GERMAN, brand="B", price=5.0),
    product("r1", RARE, split="test", image_uris=[]),
    product("u1", None, title="XL", image_uris=None, sku=HOSTILE),
    product("u1", None, title=None, image_uris=["s1.jpg"]),
]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("stats") / "catalog")
    for number, start in enumerate((0, 13)):
        rows = ROWS[start : start + 13] if not start else ROWS[start:]
        storage.write_table(f"{uri}/products/{number}.parquet", pa.Table.from_pylist(rows, schema=PRODUCTS))
    pairs = [(row["product_id"], name) for row in ROWS for name in row["image_uris"] or ()]
    ids, uris = [one for one, _ in pairs], [name for _, name in pairs]
    columns = {name: pa.nulls(len(ids), IMAGES.field(name).type) for name in IMAGES.names}
    columns |= {"image_id": image_ids(ids, uris), "product_id": ids, "image_uri": uris}
    storage.write_table(f"{uri}/images/0.parquet", pa.table(columns, schema=IMAGES))
    return uri


@pytest.fixture(scope="module")
def stats(described: str) -> CatalogStats:
    return catalog_stats(StatsConfig(catalog=described, output="unused.html"))


@pytest.mark.long
def test_paths_have_their_products_pictures_and_splits(stats: CatalogStats) -> None:
    assert (stats.products, stats.labelled, stats.pictures) == (30, 28, 29)
    counts = {one.path: (one.products, one.pictures, dict(one.splits)) for one in stats.paths}
    assert counts == {
        ("Men", "Shirts"): (25, 25, {"train": 25}),
        ("Women", "Dresses"): (2, 3, {"train": 1, "test": 1}),
        ("Women", HOSTILE): (1, 0, {"test": 1}),
    }
    assert [one.products for one in stats.paths] == [25, 2, 1]


@pytest.mark.long
def test_labels_modalities_and_what_is_missing_are_counted(stats: CatalogStats) -> None:
    assert stats.labels == {0: 2, 1: 27, 2: 1}
    assert stats.images == {0: 2, 1: 27, 2: 1}
    assert stats.missing == {
        "title": 2, "description": 29, "image_uris": 2, "price": 4, "brand": 29, "sku": 29, "availability": 30,
        "category_path": 2, "split": 2,
    }  # fmt: skip
    assert stats.modalities == {
        ("title", "picture"): 26, ("description", "picture"): 1, ("title",): 2, ("picture",): 1,
    }  # fmt: skip
    assert stats.stores == {"one": 25}


@pytest.mark.long
def test_repeats_languages_and_prices_are_told(stats: CatalogStats) -> None:
    assert stats.repeated_ids.share == pytest.approx(2 / 30)
    assert stats.repeated_pictures.share == pytest.approx(3 / 29)  # s1.jpg of three products
    assert (stats.repeated_pictures.most, stats.repeated_titles.most) == (3, 26)
    assert stats.languages == {"en": 26, "de": 2, TOO_SHORT: 2}
    (euro, other) = stats.prices
    assert (euro.currency, euro.products, euro.smallest, euro.largest) == ("EUR", 25, 10.0, 34.0)
    assert euro.quartiles == (16.0, 22.0, 28.0)
    assert (other.currency, other.products, other.smallest) == ("(none)", 1, 5.0)


@pytest.mark.long
def test_languages_of_shops_are_known() -> None:
    hindi, french = "लाल रंग की सूती साड़ी किनारी के साथ", "Robe légère en coton doux à manches courtes"
    assert tell_languages([hindi, french, ENGLISH, GERMAN, "42 / XL"]) == {
        "hi": 1, "fr": 1, "en": 1, "de": 1, TOO_SHORT: 1,
    }  # fmt: skip


def test_a_part_of_many_values_tells_the_share_of_all() -> None:
    values = [f"v{number}" for number in range(20_000)] + [f"v{number}" for number in range(0, 20_000, 4)]
    whole, part = Repeats(), Repeats(2_000)
    for found in (whole, part):
        for start in range(0, len(values), 1_000):
            found.add(values[start : start + 1_000])
    assert whole.is_exact
    assert whole.share == pytest.approx(0.4)
    assert not part.is_exact
    assert part.share == pytest.approx(0.4, abs=0.04)
    assert Repeats().share is None


def test_a_sample_does_not_depend_on_the_order() -> None:
    ids = [f"p{number}" for number in range(1_000)]
    samples = []
    for order in (ids, ids[::-1]):
        sample = Sample(50)
        for start in range(0, 1_000, 300):
            sample.add(order[start : start + 300], order[start : start + 300])
        samples.append(sorted(sample.rows.tolist()))
    assert samples[0] == samples[1]
    assert len(set(samples[0])) == 50


def test_the_histogram_has_each_path_once() -> None:
    assert histogram([1, 1, 4, 5, 20]) == [("1", 2), ("2–4", 1), ("5–9", 1), ("10–19", 0), ("20–49", 1)]
    sizes = np.random.default_rng(0).integers(1, 10**8, 500).tolist()
    assert sum(count for _, count in histogram(sizes)) == 500


@pytest.mark.long
def test_the_page_says_it_in_words_and_runs_no_text_of_the_catalogue(
    described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out" / "stats.html"
    assert main(["catalog", "stats", "--catalog", described, "--output", str(page)]) == 0
    verdict = "30 products with 29 pictures; 93.3% are labelled, in 3 category paths"
    assert capsys.readouterr().out == f"{verdict}\n  {page}\n"
    text = page.read_text()
    check_self_contained(text)
    words = " ".join(Page(text).text)
    for sentence in (
        verdict, "The largest path, Men > Shirts, has 89.3% of the labelled products; 2 paths of 3 have fewer than 20.",
        "1 path without a product in train", "Of the products 6.7% have no picture, 6.7% have no title",
        "10.3% of the pictures stand more than once", "are told apart by their addresses",
    ):  # fmt: skip
        assert sentence in words
    assert "of a sample in English" in words
    assert HOSTILE in words
    assert HOSTILE not in text


def test_a_catalogue_without_labels_and_an_empty_one_have_a_page(tmp_path: Path, s3: str) -> None:
    for name, rows in (("unlabelled", ROWS[-2:]), ("empty", [])):
        table = pa.Table.from_pylist(rows, schema=PRODUCTS)
        storage.write_table(f"{s3}/stats/{name}/products/0.parquet", table)
        page = f"{s3}/stats/{name}.html"
        assert main(["catalog", "stats", "--catalog", f"{s3}/stats/{name}", "--output", page]) == 0
        expected = "none is labelled" if rows else "No product, so that there is nothing to tell"
        text = storage.read_bytes(page).decode()
        assert expected in text
        assert "of a sample in" not in text  # of texts too short to tell


@pytest.mark.parametrize("width", [1280, 375])
def test_the_page_fits_and_its_tables_sort(described: str, tmp_path: Path, browser: Browser, width: int) -> None:
    assert main(["catalog", "stats", "--catalog", described, "--output", str(tmp_path / "stats.html")]) == 0
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(f"file://{tmp_path}/stats.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paths = page.locator("section", has_text="Category paths").locator("table")
    first = paths.locator("tbody tr").first.locator("td").first
    assert first.inner_text() == "Men > Shirts"
    paths.locator("th button").nth(1).click()
    paths.locator("th button").nth(1).click()
    assert first.inner_text() == f"Women > {HOSTILE}"
    page.close()
