"""The downloader against a real server that misbehaves."""

import asyncio
import io
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from atlas_ray.errors import ItemError, PictureError, StorageError
from atlas_ray.io.addresses import AddressRule, is_public
from atlas_ray.io.downloads import EXTENSIONS, Download, Downloader, picture_kind
from atlas_ray.modalities.picture_files import FORMATS
from tests.support.picture_server import MIB, PictureServer, jpeg
from tests.support.wire import WireServer, whole

KEPT = (
    "/a%27b%3Ac%7Ed.jpg?sig=%2FxY%2B%3D%27&e=1",
    "/v0/b/shop.appspot.com/o/products%2F7.jpg?alt=media",
    "/a.jpg?X-Amz-Credential=AK%2F20260101%2Feu%2Fs3&X-Amz-Signature=0f",
    "/%41%2e%2E/%c3%A9.jpg",
    "/a//b/../c/./d.jpg",
    "/a+b.jpg?q=a+b&c=%20&empty=&x",
    "/100%.jpg?%zz",
    "/(a)[b]{c}|d^e`f\\g\"h<i>'j;k=l,m@n:o!p*q$r~.jpg",
)
"""What comes over the wire as it is written: no escape is added or taken away."""
TARGETS = dict(zip(KEPT, KEPT, strict=True)) | {
    "/two words.jpg?q=two words": "/two%20words.jpg?q=two%20words",
    "/caf\u00e9/\u65e5.jpg?q=\u00fc": "/caf%C3%A9/%E6%97%A5.jpg?q=%C3%BC",
    "?q=%2F": "/?q=%2F",
    "/a.jpg?q#part": "/a.jpg?q",
    "": "/",
}
TYPES = (
    "text/plain", "text/html; charset=utf-8", "application/force-download", "application/octet-stream",
    "binary/octet-stream", "*/*", "image", "jpeg", ";", "application/x-www-form-urlencoded", "image/webp",
)  # fmt: skip
"""What servers call a JPEG file."""


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with PictureServer() as server:
        yield server


def downloader(*servers: PictureServer, **settings: Any) -> Downloader:
    rule = AddressRule(allow_private=frozenset(server.place for server in servers))
    return Downloader(rule=rule, **({"timeout_s": 30.0, "attempts": 2, "max_bytes": MIB} | settings))


def fetched(client: Downloader, urls: Sequence[str]) -> list[Download | ItemError]:
    """Download pictures at the same time; each one or its error, in their order."""

    async def itself(download: Download) -> Download:
        return download

    return client.map(urls, itself)


def code(outcome: Download | ItemError) -> str:
    return outcome.code if isinstance(outcome, ItemError) else outcome.kind


@pytest.mark.long
def test_every_kind_of_answer_has_its_outcome(server: PictureServer) -> None:
    with PictureServer() as other:
        cases = {
            f"{server.url}/{path}": wanted
            for path, wanted in {
                "ok/7.jpg": "JPEG", "untyped/": "JPEG", "octets/": "JPEG", "heals/500": "JPEG", "heals/503": "JPEG",
                "resets/": "JPEG", f"to/{quote('/ok/8.jpg')}": "JPEG",
                "status/404": "not_found", "status/410": "not_found", "status/401": "forbidden",
                "status/403": "forbidden", "status/451": "forbidden", "status/500": "server_error",
                "status/302": "server_error", "status/429": "rate_limited",
                "large/": "too_large", "flood/": "too_large", "bomb/": "too_large", "says-more/": "unreachable",
                **{f"typed/{quote(kind)}": "JPEG" for kind in TYPES},
                "page/": "not_an_image", "page-as-octets/": "not_an_image", "page-as-jpeg/": "not_an_image",
                "empty/": "not_an_image",
                "loop/": "too_many_redirects", "noai/": "noai",
                f"to/{quote('http://169.254.169.254/latest/meta-data/')}": "forbidden_address",
                f"to/{quote(other.url + '/ok/1.jpg')}": "forbidden_address",
                f"to/{quote('file:///etc/passwd')}": "unsupported_uri",
            }.items()
        } | {
            other.url + "/ok/1.jpg": "forbidden_address",
            "http://10.0.0.1/a.jpg": "forbidden_address",
            "http://2130706433/a.jpg": "forbidden_address",
            "http://no-such-shop.invalid/a.jpg": "dns",
            "ftp://shop/a.jpg": "unsupported_uri",
            "http:///a.jpg": "unsupported_uri",
            f"http://{'a' * 70}.example/a.jpg": "unsupported_uri",
            "http://[::1/a.jpg": "unsupported_uri",
        }  # fmt: skip
        with downloader(server) as client:
            outcomes = dict(zip(cases, fetched(client, list(cases)), strict=True))
        assert {url: code(outcome) for url, outcome in outcomes.items()} == cases
        assert not other.asked
    assert all(outcome.message for outcome in outcomes.values() if isinstance(outcome, ItemError))
    redirected = outcomes[f"{server.url}/to/{quote('/ok/8.jpg')}"]
    assert isinstance(redirected, Download)
    assert redirected.final_url == f"{server.url}/ok/8.jpg"
    assert redirected.content == jpeg(8)
    assert redirected.content_type == "image/jpeg"
    assert server.asked["/status/500"] == server.asked["/says-more/"] == 2
    assert server.asked["/status/404"] == server.asked["/large/"] == server.asked["/page/"] == 1


def test_a_url_goes_over_the_wire_as_it_is_written() -> None:
    with WireServer(whole(jpeg(1))) as server, Downloader(rule=AddressRule(frozenset({server.place}))) as client:
        for written, wanted in TARGETS.items():
            (outcome,) = fetched(client, [server.url + written])
            assert (code(outcome), server.targets.pop()) == ("JPEG", wanted), written


def test_a_redirect_is_followed_as_it_is_written() -> None:
    with WireServer(whole(jpeg(1))) as server, Downloader(rule=AddressRule(frozenset({server.place}))) as client:
        locations = {server.url + target: target for target in KEPT} | {target: target for target in KEPT}
        locations |= {f"//{server.place}/b%3A?c=%2F": "/b%3A?c=%2F", "b%2Fc.jpg?d=%27": "/from/b%2Fc.jpg?d=%27"}
        locations |= {"../b%7E.jpg": "/b%7E.jpg", "?e=%2F": "/from/a%2Fa?e=%2F", "/caf\u00e9.jpg": "/caf%E9.jpg"}
        for location, wanted in locations.items():
            server.answers["/from/a%2Fa"] = whole(b"", f"Location: {location}", status="302 Found")
            (outcome,) = fetched(client, [f"{server.url}/from/a%2Fa"])
            assert (code(outcome), server.targets.pop()) == ("JPEG", wanted), location
            assert isinstance(outcome, Download)
            assert outcome.final_url == server.url + wanted


def test_only_the_begin_of_what_is_no_picture_is_read(server: PictureServer) -> None:
    with downloader(server, timeout_s=5) as client:
        (outcome,) = fetched(client, [f"{server.url}/page-without-end/"])
    assert code(outcome) == "not_an_image"


def test_no_byte_beyond_the_stated_length_is_taken(server: PictureServer) -> None:
    with downloader(server) as client:
        outcome, after = fetched(client, [f"{server.url}/says-less/", f"{server.url}/ok/8.jpg"])
    # the surplus is refused if it comes together with the picture's end, and never looked at if it comes later
    if isinstance(outcome, Download):
        assert outcome.content == jpeg(1)[:300]
    else:
        assert outcome.code == "unreachable"
    assert isinstance(after, Download)
    assert after.content == jpeg(8)


@pytest.mark.long
def test_what_does_not_end_is_cut_off(server: PictureServer) -> None:
    with downloader(server, timeout_s=0.5) as client:
        outcomes = fetched(client, [f"{server.url}/hang/", f"{server.url}/drip/"])
    assert [code(outcome) for outcome in outcomes] == ["timeout", "timeout"]
    assert server.asked == {"/hang/": 2, "/drip/": 2}


def test_a_name_that_leads_to_a_private_address_is_refused_at_the_connection(server: PictureServer) -> None:
    name = socket.gethostname()
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    except OSError:
        addresses = set()
    if not any(not is_public(address) for address in addresses):
        pytest.skip(f"this machine's name, {name!r}, has no private address")
    AddressRule().check_url(f"http://{name}:{server.server_port}/")  # the text alone is innocent
    with downloader(server) as client:
        (outcome,) = fetched(client, [f"http://{name}:{server.server_port}/ok/1.jpg"])
    assert code(outcome) == "forbidden_address", addresses
    assert not server.asked


@pytest.mark.long
def test_a_server_is_left_alone_as_long_as_it_asks_for(server: PictureServer) -> None:
    with downloader(server, attempts=3) as client:
        assert code(fetched(client, [f"{server.url}/heals/429"])[0]) == "JPEG"
    first, second = server.asked_at
    assert second - first >= 1.0


@pytest.mark.long
def test_a_host_is_asked_no_faster_than_agreed(server: PictureServer) -> None:
    urls = [f"{server.url}/ok/{number}.jpg" for number in range(30)]
    server.delay_s = 0.05
    with downloader(server, per_host_rate=20) as client:
        assert [code(outcome) for outcome in fetched(client, urls)] == ["JPEG"] * 30
    assert server.asked_at[-1] - server.asked_at[0] >= 29 / 20 - 0.05
    assert server.busiest < 10
    server.busiest = 0
    with downloader(server, per_host_concurrency=3) as client:
        fetched(client, urls)
    assert server.busiest == 3


@pytest.mark.long
def test_a_host_that_hangs_costs_little_and_nobody_else(server: PictureServer) -> None:
    with PictureServer("127.0.0.2") as dead:
        urls = [f"{dead.url}/hang/{number}" for number in range(500)]
        urls[250:250] = [f"{server.url}/ok/{number}.jpg" for number in range(50)]
        began = time.monotonic()
        with downloader(server, dead, timeout_s=0.5, attempts=4, per_host_concurrency=4) as client:
            codes = [code(outcome) for outcome in fetched(client, urls)]
        assert time.monotonic() - began < 60  # without giving up: 500 x 4 x 0.5 s / 4 = 250 s
        assert codes[250:300] == ["JPEG"] * 50
        assert set(codes) - {"timeout"} == {"JPEG", "unreachable"}
        assert dead.asked.total() <= 40


@pytest.mark.long
def test_a_host_that_says_no_more_than_429_is_given_up(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlas_ray.io.downloads.DEAD_FOR_S", 1.0)
    with downloader(server, attempts=3) as client:
        outcomes = fetched(client, [f"{server.url}/status/429?{number}" for number in range(50)])
    assert {code(outcome) for outcome in outcomes} <= {"rate_limited", "unreachable"}
    assert 50 < sum(server.asked.values()) < 150


def test_pictures_are_used_as_they_come(server: PictureServer) -> None:
    used = []

    async def use(download: Download) -> int:
        if download.content == jpeg(1):
            raise PictureError("corrupt", "not this one")
        used.append(download.final_url)
        async with asyncio.timeout(30):
            while len(used) < 2:  # the others arrive while one is used
                await asyncio.sleep(0.01)
        return len(download.content)

    urls = [f"{server.url}/ok/{number}.jpg" for number in range(3)]
    with downloader(server) as client:
        first, second, third = client.map(urls, use)
        assert isinstance(second, PictureError)
        assert (first, third) == (len(jpeg(0)), len(jpeg(2)))

        async def fail(download: Download) -> None:
            raise StorageError("no room")

        with pytest.raises(StorageError, match="no room"):
            client.map(urls, fail)


def test_the_kinds_taken_are_those_that_are_decoded() -> None:
    assert tuple(EXTENSIONS) == FORMATS
    for kind in FORMATS:
        stream = io.BytesIO()
        Image.new("RGB", (16, 16)).save(stream, kind)
        assert picture_kind(stream.getvalue()) == kind
    for other in (b"", b"<svg xmlns=", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"%PDF-1.7"):
        assert picture_kind(other) is None


def test_the_robots_file_of_each_host_is_asked_for_once_and_obeyed(server: PictureServer) -> None:
    server.robots, server.robots_status = "User-agent: *\nDisallow: /ok/1\nDisallow: /*?private", 200
    with PictureServer("127.0.0.2") as cdn:
        cdn.robots, cdn.robots_status = "User-agent: *\nDisallow: /", 200
        urls = [f"{server.url}/ok/{number}.jpg" for number in range(20)]
        urls += [f"{cdn.url}/ok/{number}.jpg" for number in range(20)]
        urls += [f"{server.url}/to/{quote(cdn.url + '/ok/7.jpg')}", f"{server.url}/ok/7.jpg?private"]
        with downloader(server, cdn, obey_robots=True) as client:
            codes = [code(outcome) for outcome in fetched(client, urls)]
        forbidden = "forbidden_by_robots"
        assert codes == ["JPEG", forbidden, *["JPEG"] * 8, *[forbidden] * 10, *[forbidden] * 20, *[forbidden] * 2]
        assert not cdn.asked
        assert (server.robots_asked, cdn.robots_asked) == (1, 1)
        own = frozenset({cdn.place})
        for ignored, wanted in (
            (own, "JPEG"),
            (frozenset({"127.0.0.2"}), "JPEG"),
            (frozenset({server.place}), forbidden),
        ):
            with downloader(server, cdn, obey_robots=True, ignore_robots=ignored) as client:
                assert code(fetched(client, [f"{cdn.url}/ok/1.jpg"])[0]) == wanted
        assert cdn.robots_asked == 2
        with downloader(server, cdn) as client:  # who asks for one picture that a person names
            assert code(fetched(client, [f"{cdn.url}/ok/1.jpg"])[0]) == "JPEG"


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "wanted"),
    [(404, "JPEG"), (401, "JPEG"), (403, "JPEG"), (410, "JPEG"), (503, "server_error"), (500, "server_error"),
     (429, "rate_limited")],
)  # fmt: skip
def test_a_robots_file_that_fails_is_none_or_allows_nothing_for_now(
    server: PictureServer, status: int, wanted: str
) -> None:
    server.robots, server.robots_status = "User-agent: *\nDisallow: /", status
    with downloader(server, obey_robots=True, attempts=2) as client:
        outcomes = fetched(client, [f"{server.url}/ok/{number}.jpg" for number in range(5)])
    assert {code(outcome) for outcome in outcomes} == {wanted}
    assert server.robots_asked == (1 if wanted == "JPEG" else 2)
    assert server.asked.total() == (5 if wanted == "JPEG" else 0)


@pytest.mark.parametrize("text", ["User-agent: atlas_ray\nDisallow: /ok", "User-agent: *\r\nDisallow: /ok\r\n"])
def test_a_robots_file_in_utf_16_is_read(server: PictureServer, text: str) -> None:
    server.robots, server.robots_status, server.robots_utf16 = text, 200, True
    with downloader(server, obey_robots=True) as client:
        assert code(fetched(client, [f"{server.url}/ok/1.jpg"])[0]) == "forbidden_by_robots"
        assert code(fetched(client, [f"{server.url}/untyped/"])[0]) == "JPEG"


def test_a_robots_file_that_leads_elsewhere_is_held_to_the_same_rules(server: PictureServer) -> None:
    moved = {
        "/real": ("forbidden_by_robots", whole(b"User-agent: *\nDisallow: /")),
        "/robots.txt2": ("JPEG", whole(b"", status="404 Not Found")),
        "http://169.254.169.254/robots.txt": ("forbidden_address", b""),
        server.url + "/ok/1.jpg": ("forbidden_address", b""),
    }
    for location, (wanted, answer) in moved.items():
        with WireServer(whole(jpeg(1)), {location: answer}) as other:
            other.robots = whole(b"", f"Location: {location}", status="301 Moved")
            rule = AddressRule(frozenset({other.place}))
            with Downloader(rule=rule, obey_robots=True, attempts=1) as client:
                assert code(fetched(client, [f"{other.url}/a.jpg"])[0]) == wanted
    assert not server.asked
