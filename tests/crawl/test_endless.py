"""Listings without end, at a real server."""

import json
from pathlib import Path

from tests.crawl.runs import end, report, rows, start
from tests.support.wire import WireServer, whole

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
