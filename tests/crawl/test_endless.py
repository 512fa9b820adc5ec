"""Listings without end, at a real server."""

import json
from pathlib import Path

import pytest

from tests.crawl.runs import end, report, rows, start
from tests.support.wire import WireServer, whole

pytestmark = pytest.mark.long

TYPE = "Content-Type: text/html"
PRODUCT = b"""<html><script type="application/ld+json">
{"@type": "Product", "name": "A coat", "sku": "1", "image": "/a.jpg",
 "offers": {"@type": "Offer", "price": "9.50", "priceCurrency": "EUR"}}
</script><h1>A coat</h1></html>"""


class Endless(WireServer):
    """Every listing leads to the same product and to a next page."""

    def __init__(self) -> None:
        super().__init__(b"", {"/product": whole(PRODUCT, TYPE)})
        for page in range(60):
            links = f"<a class=p href=/product>p</a><a class=n href=/list?page={page + 1}>n</a>"
            self.answers[f"/list?page={page}"] = whole(f"<html>{links}</html>".encode(), TYPE)


def test_a_listing_without_end_is_left_and_told(tmp_path: Path) -> None:
    with Endless() as server:
        store = {"name": "s", "start_urls": [f"{server.url}/list?page=0"], "product_links": "a.p", "next_page": "a.n"}
        (tmp_path / "stores.yaml").write_text(json.dumps(store | {"delay_s": 0, "max_idle_pages": 7}))
        end(start(tmp_path, "s", "--allow-private", server.place))
    assert 8 <= len([target for target in server.targets if target.startswith("/list")]) <= 12
    told = report(tmp_path)
    assert told["complete"]
    assert (told["products"], told["outcomes"]["no_new_products"]) == (1, 1)
    (row,) = rows(tmp_path, "quarantine")
    assert row["error_code"] == "no_new_products"
    assert "pages in a row without a new product" in row["message"]


LISTING = "<a class=p href='{0}'>p</a><a class=p href='{1}'>q</a><a class=n href='{2}'>n</a>"


@pytest.mark.parametrize("kind", ["tracked", "missing", "no products"])
def test_addresses_that_lead_to_nothing_new_do_not_keep_a_listing_alive(tmp_path: Path, kind: str) -> None:
    canonical = PRODUCT.replace(b"<html>", b"<html><link rel=canonical href='/product'>")
    answer = {
        "tracked": whole(canonical, TYPE),
        "missing": whole(b"", status="404 Not Found"),
        "no products": whole(b"<html><h1>Sorry</h1></html>", TYPE),
    }[kind]
    with WireServer(answer) as server:
        for page in range(80):
            text = LISTING.format(f"/product?at={page}", f"/product?at={page}&b", f"/list?page={page + 1}")
            server.answers[f"/list?page={page}"] = whole(f"<html>{text}</html>".encode(), TYPE)
        store = {"name": "s", "start_urls": [f"{server.url}/list?page=0"], "product_links": "a.p", "next_page": "a.n"}
        (tmp_path / "stores.yaml").write_text(json.dumps(store | {"delay_s": 0, "max_idle_pages": 7}))
        end(start(tmp_path, "s", "--allow-private", server.place))
    assert 8 <= len([target for target in server.targets if target.startswith("/list")]) <= 20
    told = report(tmp_path)
    assert told["complete"]
    assert told["outcomes"]["no_new_products"] == 1
    assert told["products"] == (kind == "tracked")


def test_a_listing_of_what_another_one_lists_is_followed_to_what_it_alone_has(tmp_path: Path) -> None:
    with WireServer(b"") as server:
        for page in range(12):
            for name in ("a", "b"):
                following = f"<a class=n href='/{name}?page={page + 1}'>n</a>" if page < 11 else ""
                number = page if page < 11 or name == "a" else 99
                text = f"<html><a class=p href='/{name}/{number}'>p</a>{following}</html>"
                server.answers[f"/{name}?page={page}"] = whole(text.encode(), TYPE)
                link = f"<html><link rel=canonical href='/product/{number}'>".encode()
                server.answers[f"/{name}/{number}"] = whole(PRODUCT.replace(b"<html>", link), TYPE)
        starts = [f"{server.url}/{name}?page=0" for name in ("a", "b")]
        store = {"name": "s", "start_urls": starts, "product_links": "a.p", "next_page": "a.n"}
        (tmp_path / "stores.yaml").write_text(json.dumps(store | {"delay_s": 0, "max_idle_pages": 4}))
        end(start(tmp_path, "s", "--allow-private", server.place))
    assert {row["url"].rpartition("/")[2] for row in rows(tmp_path, "products")} == {*map(str, range(12)), "99"}
    assert "no_new_products" not in report(tmp_path)["outcomes"]
