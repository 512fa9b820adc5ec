"""What the crawl makes of real robots.txt files, the odd ones among them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import pytest
from scrapy.robotstxt import ProtegoRobotParser

from tests.crawl.runs import end, report, start
from tests.support.servers import WebServer

pytestmark = pytest.mark.long

AGENT = "atlas_ray"
# Whether the front page and a product page may be asked for. HTML, nothing and bytes that are no UTF-8
# hold no rules, so all is allowed; a byte order mark is skipped; a lone CR ends a line.
ODD = {
    "ecommerce/shop.advanceautoparts.com": ("/", "/p/1", True, True),  # HTML
    "ecommerce/shop.nordstrom.com": ("/", "/s/1", True, True),  # HTML
    "ecommerce/www.shoprite.com": ("/", "/sitecore/1", True, False),  # byte order mark
    "odd/alight.com": ("/", "/p/1", True, True),  # HTML
    "odd/avaaz.org": ("/", "/p/1", True, True),  # zero bytes
    "odd/book.goindigo.in": ("/", "/p/1", True, True),  # HTML
    "odd/caniuse.com": ("/", "/p/1", True, True),  # zero bytes
    "odd/cdbaby.com": ("/", "/Cart/1", True, False),  # CR
    "odd/en.wikipedia.org": ("/", "/w/index.php", True, False),  # byte order mark
    "odd/internetbanking.suncorpbank.com.au": ("/", "/p/1", True, True),  # HTML, not UTF-8
    "odd/www.analog.com": ("/", "/Analog_Root/1", True, False),  # CR
}


def parse(path: Path) -> ProtegoRobotParser:
    return ProtegoRobotParser(path.read_bytes(), None)


@pytest.mark.parametrize("name", ODD)
def test_odd_files(test_data: Path, name: str) -> None:
    front, product, front_allowed, product_allowed = ODD[name]
    parser = parse(test_data / "robots" / f"{name}.robots.txt")
    host = Path(name).name
    assert parser.allowed(f"https://{host}{front}", AGENT) is front_allowed
    assert parser.allowed(f"https://{host}{product}", AGENT) is product_allowed


def test_every_file_is_read(test_data: Path) -> None:
    files = sorted((test_data / "robots").glob("*/*.robots.txt"))
    assert len(files) == 23
    assert all(parse(path).allowed("https://shop.example/", AGENT) for path in files)
    delays = {path.name: parse(path).crawl_delay("bingbot") for path in files}
    assert {name: delay for name, delay in delays.items() if delay} == {"www.mlbshop.com.robots.txt": 10.0}


@contextmanager
def shop(folder: Path, status: int, robots: str, starts: int = 1) -> Iterator[list[tuple[float, str]]]:
    """Serve a listing with four products that are none; give the requests with their time."""
    asked: list[tuple[float, str]] = []
    listing = "".join(f"<a href='/{number}'>{number}</a>" for number in range(4))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((time.monotonic(), self.path))
            is_robots = self.path == "/robots.txt"
            time.sleep(0.5 if is_robots else 0)
            self.send_response(status if is_robots else 200)
            self.send_header("Content-Type", "text/plain" if is_robots else "text/html")
            self.end_headers()
            self.wfile.write((robots if is_robots else f"<html>{listing}</html>").encode())

        def log_message(self, *_: object) -> None: ...

    with WebServer(("127.0.0.1", 0), Handler) as server:
        place = f"127.0.0.1:{server.server_port}"
        urls = [f"http://{place}/?{number}" for number in range(starts)]
        store = {"name": "s", "start_urls": urls, "product_links": "a::attr(href)", "delay_s": 0}
        (folder / "stores.yaml").write_text(json.dumps(store))
        end(start(folder, "s", "--allow-private", place))
        yield asked


def test_a_robots_file_that_fails_allows_nothing(tmp_path: Path) -> None:
    with shop(tmp_path, 503, "") as asked:
        assert {path for _, path in asked} == {"/robots.txt"}
    assert report(tmp_path)["outcomes"] == {"server_error": 1}


def test_a_robots_file_that_is_not_there_allows_all(tmp_path: Path) -> None:
    with shop(tmp_path, 404, "User-agent: *\nDisallow: /") as asked:
        assert len(asked) == 6
    assert report(tmp_path)["outcomes"] == {"not_a_product": 4, "listing": 1}


def test_all_requests_that_wait_for_a_robots_file_obey_it(tmp_path: Path) -> None:
    with shop(tmp_path, 200, "User-agent: *\nDisallow: /", starts=6) as asked:
        assert [path for _, path in asked] == ["/robots.txt"]
    assert report(tmp_path)["outcomes"] == {"forbidden_by_robots": 6}


def test_the_crawl_delay_is_kept(tmp_path: Path) -> None:
    with shop(tmp_path, 200, "User-agent: *\nCrawl-delay: 0.8\nDisallow: /3") as asked:
        times = [moment for moment, path in asked if path != "/robots.txt"]
    assert len(times) == 4
    assert all(later - earlier > 0.75 for earlier, later in pairwise(times))
    assert report(tmp_path)["outcomes"] == {"not_a_product": 3, "forbidden_by_robots": 1, "listing": 1}
