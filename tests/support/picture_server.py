"""An HTTP server of pictures that misbehaves as the path says; it remembers what it was asked for."""

import gzip
import io
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from PIL import Image

from tests.support.servers import WebServer

MIB = 1024 * 1024


def jpeg(number: int, size: tuple[int, int] = (32, 24)) -> bytes:
    """Return a small picture, another one for each number."""
    stream = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256 % 256, 99)).save(stream, "JPEG", comment=str(number))
    return stream.getvalue()


class PictureServer(WebServer):
    """Serves on a loopback address.

    Attributes:
        asked: How often each path was asked for.
        asked_at: When each request came, by the monotonic clock.
        busiest: The most requests at a time.
        delay_s: What each answer takes.
        open: Whether `/later/...` is there.
        robots: The robots.txt, and with which status it comes; `robots_asked` counts the requests of it alone.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.place = f"{host}:{self.server_port}"
        self.url = f"http://{self.place}"
        self.asked: Counter[str] = Counter()
        self.asked_at: list[float] = []
        self.active = self.busiest = 0
        self.delay_s = 0.0
        self.open = False
        self.robots, self.robots_status, self.robots_utf16, self.robots_asked = "", 404, False, 0
        self.closing = threading.Event()
        self.lock = threading.Lock()

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        super().__exit__()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PictureServer

    def do_GET(self) -> None:
        server = self.server
        if self.path == "/robots.txt":
            with server.lock:
                server.robots_asked += 1
            self.answer(server.robots.encode("utf-16" if server.robots_utf16 else "utf-8"), None, server.robots_status)
            return
        with server.lock:
            server.asked[self.path] += 1
            server.asked_at.append(time.monotonic())
            server.active += 1
            server.busiest = max(server.busiest, server.active)
        try:
            time.sleep(server.delay_s)
            what, _, rest = self.path[1:].partition("/")
            getattr(self, f"on_{what.replace('-', '_')}")(rest)
        finally:
            with server.lock:
                server.active -= 1

    def answer(self, body: bytes, kind: str | None = "image/jpeg", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | named).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def on_ok(self, rest: str) -> None:
        self.answer(jpeg(int(rest.partition(".")[0])))

    def on_untyped(self, rest: str) -> None:
        self.answer(jpeg(1), None)

    def on_typed(self, rest: str) -> None:
        self.answer(jpeg(1), unquote(rest))

    def on_page_as_octets(self, rest: str) -> None:
        self.answer(b"<!DOCTYPE html><title>Sold out</title>", "application/octet-stream")

    def on_page_without_end(self, rest: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while not self.server.closing.wait(0.01):
            self.wfile.write(b"<p>Sold out</p>" * 100)

    def on_octets(self, rest: str) -> None:
        self.answer(jpeg(1), "binary/octet-stream")

    def on_status(self, rest: str) -> None:
        self.answer(b"no", "text/plain", int(rest.partition("?")[0]))

    def on_noai(self, rest: str) -> None:
        self.answer(jpeg(1), X_Robots_Tag="noindex, noai")

    def on_later(self, rest: str) -> None:
        if self.server.open:
            self.on_ok(rest)
        else:
            self.on_status("404")

    def on_heals(self, rest: str) -> None:
        """Fail the first time, with a status."""
        if self.server.asked[self.path] == 1:
            self.answer(b"no", "text/plain", int(rest), Retry_After="1")
        else:
            self.answer(jpeg(2))

    def on_resets(self, rest: str) -> None:
        """Close the connection the first time, without an answer."""
        self.close_connection = True
        if self.server.asked[self.path] > 1:
            self.answer(jpeg(3))

    def on_hang(self, rest: str) -> None:
        self.close_connection = True
        self.server.closing.wait(60)

    def on_drip(self, rest: str) -> None:
        """Send a body without an end, a few bytes at a time."""
        self.answer(jpeg(1), Content_Length=str(MIB))
        while not self.server.closing.wait(0.1):
            self.wfile.write(b"drip")

    def on_large(self, rest: str) -> None:
        self.answer(jpeg(1) + bytes(2 * MIB))

    def on_flood(self, rest: str) -> None:
        """Send a body without an end, as fast as it goes, and without a length."""
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.end_headers()
        self.close_connection = True
        body = jpeg(1) + bytes(MIB // 4)
        while not self.server.closing.is_set():
            self.wfile.write(body)

    def on_slow_header(self, rest: str) -> None:
        """Send a picture whose header takes Pillow seconds: fill bytes without an end."""
        self.answer(b"\xff\xd8\xff" + b"\xff" * (4 * MIB))

    def on_says_less(self, rest: str) -> None:
        self.answer(jpeg(1) + bytes(2 * MIB), Content_Length="300", Connection="close")

    def on_says_more(self, rest: str) -> None:
        self.answer(jpeg(1), Content_Length="90000", Connection="close")

    def on_page(self, rest: str) -> None:
        self.answer(b"<!DOCTYPE html><title>Sold out</title>", "text/html; charset=utf-8")

    def on_page_as_jpeg(self, rest: str) -> None:
        self.answer(b"<!DOCTYPE html><title>Sold out</title>")

    def on_empty(self, rest: str) -> None:
        self.answer(b"")

    def on_bomb(self, rest: str) -> None:
        self.answer(gzip.compress(jpeg(1) + bytes(16 * MIB)), Content_Encoding="gzip")

    def on_to(self, rest: str) -> None:
        self.answer(b"", "text/html", 302, Location=unquote(rest))

    def on_loop(self, rest: str) -> None:
        self.answer(b"", "text/html", 301, Location=f"/loop/{len(rest) + 1}")

    def on_wide(self, rest: str) -> None:
        """A header of more pixels than are taken, and nothing behind it."""
        head = jpeg(1)
        at = head.index(b"\xff\xc0") + 5
        self.answer(head[:at] + b"\x27\x10\x27\x10" + head[at + 4 :])

    def on_cut(self, rest: str) -> None:
        self.answer(jpeg(1)[:12])

    def log_message(self, *_: object) -> None:
        """Say nothing."""
