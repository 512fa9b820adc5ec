"""What several tests of training build on."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.schemas import IMAGES, PRODUCTS


@pytest.fixture(scope="session")
def described(catalog: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The drawn catalogue with descriptions; of some products the picture, the title or all is missing."""
    folder = tmp_path_factory.mktemp("described") / "tables"
    products = pq.read_table(Path(catalog) / "products").to_pylist()
    images = pq.read_table(Path(catalog) / "images").to_pylist()
    bare = {products[number]["product_id"] for number in (3, 5)}
    for number, product in enumerate(products):
        path = product["category_path"]
        product["description"] = f"<p>Made of cotton &amp; {'wool' if path else ''} {' '.join(path or ())}</p>"
        if number % 5 == 4:
            product["description"] = None
    products[5] |= {"title": " ", "description": ""}
    for name, table, schema in (
        ("products", products, PRODUCTS),
        ("images", [row for row in images if row["product_id"] not in bare], IMAGES),
    ):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(table, schema=schema), folder / name / "0.parquet")
    (folder / "taxonomy.json").write_bytes((Path(catalog) / "taxonomy.json").read_bytes())
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a small sentence encoder."""
    from tests.support.sentences import make_sentence_folder  # of the extra text, which other tests do without

    folder = tmp_path_factory.mktemp("sentences") / "encoder"
    make_sentence_folder(folder)
    return str(folder)
