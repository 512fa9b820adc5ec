import re
from pathlib import Path
from typing import Any

import pytest

from atlas_ray.catalog.fields import FIELDS
from atlas_ray.catalog.importer import ImportConfig, open_source
from atlas_ray.catalog.preview import Preview, preview
from atlas_ray.cli.main import main

SHOP = """Handle,Title,Type,Variant Price,Image Src,Image Position
shirt,Shirt,Men/Shirts,$10,2.jpg,2
shirt,,,N/A,1.jpg,1
shirt,Hat,,,3.jpg,
mug,Mug,Home/Mugs,5,m.jpg,
"""


def look(source: Path, **settings: Any) -> Preview:
    return preview(open_source(ImportConfig(source=str(source), output="unused", **settings)))


def test_the_first_rows_as_they_would_be_read(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(SHOP)
    found = look(tmp_path / "shop.csv")
    shirt, mug = found.products
    assert [Path(uri).name for uri in shirt["image_uris"]] == ["1.jpg", "2.jpg"]
    assert (shirt["category_path"], mug["category_path"]) == (["Men", "Shirts"], ["Home", "Mugs"])
    assert (found.rows, found.refused) == (4, {"contradicting_rows": 1})
    assert found.reader.unread["price"].count == 1
    assert found.assumed == ["category paths are separated by '/' (assumed; --path-separator says otherwise)"]
    assert look(tmp_path / "shop.csv", path_separator="/").assumed == []


def test_pictures_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(SHOP)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("1.jpg", "2.jpg", "m.jpg"):
        (photos / name).write_bytes(b"x")
    found = look(tmp_path / "shop.csv")
    assert found.warning == (
        f"none of 3 pictures looked at could be opened: {tmp_path}/1.jpg: no such file; relative names are below "
        f"{tmp_path}, another folder is named with --image-base"
    )
    assert look(tmp_path / "shop.csv", image_base=str(photos)).warning is None
    (photos / "2.jpg").unlink()
    found = look(tmp_path / "shop.csv", image_base=str(photos))
    assert found.warning is not None
    assert found.warning.startswith(f"only 2 of 3 pictures looked at could be opened: {photos}/2.jpg: no such file")


def test_a_sample_of_many_pictures(tmp_path: Path) -> None:
    lines = [f"{number},{name}" for number in range(500) for name in ("https://cdn.example/a.jpg", f"{number}.jpg")]
    (tmp_path / "shop.csv").write_text("\n".join(["id,image", *lines]))
    found = look(tmp_path / "shop.csv")
    assert (found.opened, len(found.failures), found.addresses) == (20, 20, 500)


def test_pictures_below_a_web_address(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,image\n1,sub/a.jpg\n2,https://other.example/b.jpg\n3,../c.jpg\n")
    found = look(tmp_path / "shop.csv", image_base="https://cdn.example/x/")
    uris = [uri for product in found.products for uri in product["image_uris"]]
    assert uris == ["https://cdn.example/x/sub/a.jpg", "https://other.example/b.jpg"]
    assert (found.addresses, found.refused) == (2, {"bad_image_uri": 1})


def test_columns_that_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,image,Colour,Tags\n1,a.jpg,red,x\n")
    assert look(tmp_path / "shop.csv").unused == ["Colour", "Tags"]
    assert look(tmp_path / "shop.csv", columns={"title": "Colour"}).unused == ["Tags"]


def test_prices_are_read_as_the_others_are_written(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text('id,image,price\n1,a.jpg,1.299\n2,b.jpg,"12,99"\n3,c.jpg,7\n')
    found = look(tmp_path / "shop.csv")
    assert [product["price"] for product in found.products] == [1299, 12.99, 7]
    assert found.assumed == ["a price of 1.299 is more than a thousand (assumed, as other prices are written)"]


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop.csv").write_text(SHOP)
    command = ["import", str(tmp_path / "shop.csv"), "--output", str(tmp_path / "out")]
    assert main([*command, "--dry-run"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["shop.csv"]
    out, err = capsys.readouterr()
    for text in ("title from 'Title'", "Men > Shirts", "price: 1 could not be read, such as 'N/A', text (line 3)",
                 "separated by '/' (assumed; --path-separator says otherwise)", "contradicting_rows 1, such as line 4",
                 "2 products in the first 4 rows; nothing was written"):  # fmt: skip
        assert text in out
    assert "none of 3 pictures looked at could be opened" in err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--map", "category_path=Typ"], "no column 'Typ' in .*did you mean 'Type'"),
        (["--map", "image_uris=Image Src", "--map", "image_uris=Handle"], "--map image_uris=Image Src,Handle"),
        (["--map", "title=Title", "--map", "title=Handle"], "--map names title twice: 'Title' and 'Handle'"),
        (["--map", "colour=Title"], "'colour' is not a field of a product; expected one of product_id, "),
        (["--image-separator", ""], "--image-separator is empty"),
    ],
)
def test_flags_that_fit_no_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], reason: str
) -> None:
    (tmp_path / "shop.csv").write_text(SHOP)
    assert main(["import", str(tmp_path / "shop.csv"), "--output", str(tmp_path / "out"), *flags]) == 2
    assert not (tmp_path / "out").exists()
    assert re.search(reason, capsys.readouterr().err)


def test_the_help_names_all_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert all(field in out for field in FIELDS)


def test_web_addresses_are_to_be_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop.csv").write_text("id,image\n1,https://cdn.example/a.jpg\n")
    assert main(["import", str(tmp_path / "shop.csv"), "--output", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert f"next: atlas-ray fetch --catalog {tmp_path}/out" in out
    assert err == ""
