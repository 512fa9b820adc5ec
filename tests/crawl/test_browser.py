import asyncio
import socket
from pathlib import Path

import pytest

from atlas_ray.crawl.browser import CheckedProxy, find_chromium
from atlas_ray.crawl.process import main
from atlas_ray.demo.shop import ShopProduct, draw_shop, serve_shop
from atlas_ray.errors import ConfigError
from atlas_ray.io.addresses import AddressRule
from tests.crawl.runs import end, rows, start

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("shop"))
    draw_shop(folder, [product(f"Thing {number}") for number in range(2)])
    return folder


def product(title: str) -> ShopProduct:
    return ShopProduct(title=title, description="", price=1, breadcrumb=("Men",), picture=b"")


def test_where_there_is_no_chromium(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PATH has none of chromium, chromium-browser, google-chrome"):
        find_chromium({"PATH": str(tmp_path)})
    with pytest.raises(ConfigError, match="CHROMIUM_PATH is '/nowhere'"):
        find_chromium({"CHROMIUM_PATH": "/nowhere"})
    (tmp_path / "chromium-browser").write_text("#!/bin/sh\n")
    (tmp_path / "chromium-browser").chmod(0o755)
    assert find_chromium({"PATH": str(tmp_path)}) == str(tmp_path / "chromium-browser")


def test_the_crawl_does_not_begin_without_one(
    drawn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHROMIUM_PATH", "/nowhere")
    with serve_shop(drawn) as shop:
        shop.write_stores(str(tmp_path / "stores.yaml"))
        command = ["--stores", str(tmp_path / "stores.yaml"), "--store", "demo-app", "--job", str(tmp_path / "job")]
        assert main([*command, "--output", str(tmp_path / "out")]) == 2
    assert "CHROMIUM_PATH is '/nowhere'" in capsys.readouterr().err
    assert shop.requests == []


def test_the_browsers_proxy_connects_to_checked_addresses_only(drawn: str) -> None:
    async def ask(port: int, head: str, then: str = "") -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}\r\n\r\n".encode())
        if then:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.write(f"{then}\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.decode()

    with serve_shop(drawn) as shop:

        async def run() -> None:
            proxy = CheckedProxy(AddressRule(frozenset({shop.place})))
            await proxy.start()
            got = await ask(proxy.port, f"GET {shop.url}/index.html HTTP/1.1\r\nProxy-Connection: keep-alive")
            assert "A demo shop" in got
            get = "GET /robots.txt HTTP/1.0"
            assert "Disallow" in await ask(proxy.port, f"CONNECT {shop.place} HTTP/1.1", get)
            for head in (
                "GET http://169.254.169.254/ HTTP/1.1", "GET http://localhost/ HTTP/1.1", "GET / HTTP/1.1", "x",
                f"CONNECT 127.0.0.1:{proxy.port} HTTP/1.1", "GET http://no.such.name.invalid/ HTTP/1.1",
            ):  # fmt: skip
                assert (await ask(proxy.port, head)).startswith("HTTP/1.1 403")

        asyncio.run(run())
    assert shop.requests == ["/index.html", "/robots.txt"]


def test_pages_that_need_a_browser(drawn: str, tmp_path: Path) -> None:
    try:
        find_chromium()
    except ConfigError as error:
        pytest.skip(str(error))
    with serve_shop(drawn) as shop, serve_shop(drawn) as neighbour:
        # A name tells nothing of where it leads; only the proxy can refuse it.
        shop.neighbour = neighbour.url.replace("127.0.0.1", socket.gethostname().lower())
        shop.write_stores(str(tmp_path / "stores.yaml"))
        end(start(tmp_path, "demo-app", "--allow-private", shop.place, "--timeout-s", "30"))
    assert {row["title"] for row in rows(tmp_path, "products")} == {"Thing 0", "Thing 1"}
    assert [row["error_code"] for row in rows(tmp_path, "quarantine")] == ["forbidden_by_robots"]
    # The pages' scripts have asked for these.
    assert "/odd/other-port.html" in shop.requests
    assert neighbour.requests == []
    assert "/odd/forbidden.html" not in shop.requests
