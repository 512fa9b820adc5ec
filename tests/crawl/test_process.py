"""The real crawl process against the demo shop, over HTTP."""

import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from atlas_ray.crawl.process import main
from atlas_ray.crawl.spider import QUEUED_PER_SLOT
from atlas_ray.demo.shop import ODD, RECOVERING, WITHOUT_PICTURES, Shop, ShopProduct, draw_shop, serve_shop
from atlas_ray.io.addresses import is_public
from tests.crawl.runs import end, report, rows, start

pytestmark = pytest.mark.long

PRODUCTS = [
    ShopProduct(
        title=f"Thing {number} & “old”",
        description=f"The {number}th of its kind",
        price=10 + number / 4,
        breadcrumb=("Men", "Shirts") if number % 2 else ("Women", "Ethnic Wear", "Sarees"),
        picture=b"\xff\xd8\xff",
    )
    for number in range(40)
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("shop"))
    draw_shop(folder, PRODUCTS)
    return folder


def start_demo(shop: Shop, folder: Path, *flags: str) -> "subprocess.Popen[str]":
    shop.write_stores(str(folder / "stores.yaml"))
    return start(folder, "demo", *flags)


def test_pictures_that_the_robots_file_forbids_are_left(tmp_path: Path) -> None:
    draw_shop(str(tmp_path / "shop"), PRODUCTS[:4])
    with (tmp_path / "shop" / "robots.txt").open("a") as rules:
        rules.write("\nDisallow: /pictures/3.jpg\n")
    with serve_shop(str(tmp_path / "shop")) as shop:
        end(start_demo(shop, tmp_path, "--allow-private", shop.place))
    found = {row["url"].removeprefix(shop.url): row for row in rows(tmp_path, "products")}
    assert found["/product/1.html"]["image_urls"] == [f"{shop.url}/pictures/1.jpg"]
    assert found["/product/3.html"]["image_urls"] == []
    assert found["/product/3.html"]["forbidden_image_urls"] == [f"{shop.url}/pictures/3.jpg"]


def test_the_whole_shop(drawn: str, tmp_path: Path) -> None:
    with serve_shop(drawn) as shop, serve_shop(drawn) as neighbour:
        shop.neighbour = neighbour.url
        end(start_demo(shop, tmp_path, "--allow-private", shop.place))
    assert neighbour.requests == []
    found = {row["url"].removeprefix(shop.url): row for row in rows(tmp_path, "products")}
    assert found.keys() == {f"/product/{number}.html" for number in range(40)}
    for number, product in enumerate(PRODUCTS):
        row = found[f"/product/{number}.html"]
        assert (row["title"], row["description"]) == (product.title, product.description)
        assert (row["price"], tuple(row["breadcrumb"])) == (product.price, product.breadcrumb)
        pictures = [] if number == 2 else [f"{shop.url}/pictures/{number}.jpg"]
        assert row["image_urls"] == pictures
    assert [path for path, row in found.items() if row["noimageai"]] == [WITHOUT_PICTURES]
    assert Counter(row["origins"]["title"] for row in found.values()) == {
        "json-ld": 10, "microdata": 10, "opengraph": 10, "selector": 10,
    }  # fmt: skip

    failed = {row["message"].partition(": ")[0].removeprefix(shop.url): row for row in rows(tmp_path, "quarantine")}
    assert {path: row["error_code"] for path, row in failed.items()} == ODD
    assert "169.254.169.254" in failed["/odd/metadata.html"]["message"]
    assert all((row["stage"], row["image_id"]) == ("crawl", -1) for row in failed.values())

    summary = report(tmp_path)
    assert summary["complete"]
    assert summary["outcomes"]["duplicate"] == 2
    assert sum(summary["outcomes"].values()) == summary["urls"]
    assert summary["products"] == 40

    asked = Counter(shop.requests)
    assert asked["/robots.txt"] == 1
    assert asked[RECOVERING] == asked["/odd/broken.html"] == asked["/odd/slow.html"] == 2
    assert not {"/odd/forbidden.html", "/account/", "/"} & asked.keys()


def test_nothing_is_asked_of_a_private_shop_that_is_not_named(drawn: str, tmp_path: Path) -> None:
    with serve_shop(drawn) as shop:
        end(start_demo(shop, tmp_path, "--allow-private", "127.0.0.1:9,localhost"))
    assert shop.requests == []
    assert report(tmp_path)["outcomes"] == {"forbidden_address": 2}


def test_a_name_that_resolves_to_a_private_address(drawn: str, tmp_path: Path) -> None:
    """The machine's own name stands for one whose owner points it at a private network."""
    name = socket.gethostname().lower()
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(name, 80)}
    except socket.gaierror:
        found = set()
    if not found or any(is_public(str(ip)) for ip in found):
        pytest.skip(f"this machine's name {name!r} resolves to no private address")
    with serve_shop(drawn) as shop:
        shop.url = shop.url.replace("127.0.0.1", name)
        end(start_demo(shop, tmp_path, "--allow-private", shop.place))
    assert shop.requests == []
    for row in rows(tmp_path, "quarantine"):
        assert row["error_code"] == "forbidden_address"
        assert "resolves to the private address" in row["message"]


def test_a_crawl_goes_on_however_it_was_stopped(drawn: str, tmp_path: Path) -> None:
    with serve_shop(drawn, delay_s=0.05) as shop:
        flags = ("--allow-private", shop.place)

        def stop(by: signal.Signals, after: int) -> None:
            process, seen = start_demo(shop, tmp_path, *flags), len(shop.requests)
            while len(shop.requests) < seen + after:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(by)
            process.communicate(timeout=60)
            assert process.returncode == (-by if by == signal.SIGKILL else 0)

        end(start_demo(shop, tmp_path, *flags, "--max-pages", "6"))
        assert (report(tmp_path)["complete"], sum(report(tmp_path)["outcomes"].values())) == (False, 6)
        stop(signal.SIGKILL, after=3)
        stop(signal.SIGKILL, after=15)
        stop(signal.SIGTERM, after=8)
        assert not report(tmp_path)["complete"]
        end(start_demo(shop, tmp_path, *flags))
        assert report(tmp_path)["complete"]
        asked = len(shop.requests)
        end(start_demo(shop, tmp_path, *flags))  # all is done but what may be better now
        assert set(shop.requests[asked:]) == {"/robots.txt", "/odd/broken.html", "/odd/slow.html"}

    assert sorted(int(Path(row["url"]).stem) for row in rows(tmp_path, "products")) == list(range(40))
    assert Counter(row["error_code"] for row in rows(tmp_path, "quarantine")) == Counter(ODD.values())
    assert "/odd/forbidden.html" not in shop.requests
    # What was finished is not asked for again, but what was under way at a kill is.
    products = Counter(path for path in shop.requests if path.startswith("/product/") and path != RECOVERING)
    assert sum(count - 1 for count in products.values()) <= 2 * QUEUED_PER_SLOT * 4


def test_mistakes(drawn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve_shop(drawn, delay_s=0.2) as shop:
        process = start_demo(shop, tmp_path, "--allow-private", shop.place)
        while not shop.requests:
            assert process.poll() is None
            time.sleep(0.01)
        command = ["--stores", str(tmp_path / "stores.yaml"), "--output", str(tmp_path / "out")]
        for more, text in (
            (["--store", "demo", "--job", str(tmp_path / "job")], "is in use by `crawl`"),
            (["--store", "dmo", "--job", str(tmp_path / "new")], "has no store 'dmo'; it has demo, demo-app"),
            (["--store", "demo", "--job", "x", "--allow-private", "http://x"], "'http://x' names no private place"),
            (["--store", "demo", "--job", "x", "--user-agent", "Mozilla/5.0 (X)"], "robots.txt knows names of"),
        ):
            assert main([*command, *more]) == 2
            said = capsys.readouterr().err
            assert text in said
            assert said.count("\n") == 1
        process.kill()
        process.communicate()
    stores = Path(tmp_path / "stores.yaml")
    stores.write_text(stores.read_text().replace("/category/", "/kategorie/"))
    assert main([*command, "--store", "demo", "--job", str(tmp_path / "job")]) == 2
    assert "use a new folder, or the same settings" in capsys.readouterr().err


def test_a_full_disk_ends_a_crawl_and_it_goes_on_when_there_is_room(
    drawn: str, full_disk: Path, tmp_path: Path
) -> None:
    (full_disk / "others").write_bytes(b"x" * 150 * 1024)
    with serve_shop(drawn) as shop:
        shop.write_stores(str(tmp_path / "stores.yaml"))
        flags = ("--allow-private", shop.place, "--job", str(full_disk / "job"))
        process = start(tmp_path, "demo", *flags)
        _, log = process.communicate(timeout=120)
        assert process.returncode == 1, log
        place = full_disk / "job" / "frontier.sqlite3"
        assert log.splitlines()[-1] == (
            f"crawl: {place}: no space left on its disk; make room, and give the same command again"
        )
        assert "Traceback" not in log
        assert not (tmp_path / "out").exists()
        (full_disk / "others").unlink()
        flags = ("--allow-private", shop.place, "--job", str(tmp_path / "job"))
        shutil.copytree(full_disk / "job", tmp_path / "job")
        end(start(tmp_path, "demo", *flags))
    assert len(rows(tmp_path, "products")) == 40
    assert report(tmp_path)["complete"]


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_frontier_is_told_in_a_line(
    drawn: str, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "frontier.sqlite3").write_bytes(content)
    with serve_shop(drawn) as shop:
        shop.write_stores(str(tmp_path / "stores.yaml"))
        command = ["--stores", str(tmp_path / "stores.yaml"), "--store", "demo", "--job", str(tmp_path / "job")]
        assert main([*command, "--output", str(tmp_path / "out")]) == 1
    assert "frontier.sqlite3: file is not a database; if it is damaged, delete it" in capsys.readouterr().err
    assert shop.requests == []
