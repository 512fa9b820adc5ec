"""What a crawl sends: a page's addresses, as they stand in it."""

import html
import json
from pathlib import Path

import pytest

from tests.crawl.runs import end, start
from tests.support.wire import WireServer, whole

pytestmark = pytest.mark.long

TARGETS = (
    "/a%27b%3Ac%7Ed?sig=%2FxY%2B%3D%27&e=1", "/o/products%2F7?alt=media", "/%41%2e/%c3%A9", "/a//b",
    "/a+b?q=a+b&c=%20&empty=&x", "/(a);k=l,m@n:o!p*q$r~'s", "/?b=2&a=1", "/c?next=http%3A%2F%2Fshop%2F%3Fx%3D1",
)  # fmt: skip


def test_links_are_followed_as_they_are_written(tmp_path: Path) -> None:
    links = "".join(f"<a class=p href='{html.escape(target)}'>x</a>" for target in TARGETS)
    page = whole(f"<html>{links}</html>".encode(), "Content-Type: text/html")
    moved = whole(b"", "Location: /there%27s?sig=%2F%3A%7E", status="302 Found")
    with WireServer(page, {"/o/products%2F7?alt=media": moved}) as server:
        store = {"name": "s", "start_urls": [f"{server.url}/list"], "product_links": "a.p", "delay_s": 0}
        (tmp_path / "stores.yaml").write_text(json.dumps(store))
        end(start(tmp_path, "s", "--allow-private", server.place))
    assert sorted(server.targets) == sorted(["/list", "/there%27s?sig=%2F%3A%7E", *TARGETS])
