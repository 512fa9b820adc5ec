"""A proxy before an S3 server: a tenth of the requests get 503, one in fifty is cut off; or as it is told.

python -m tests.scoring.faulty TARGET_HOST:PORT LISTEN_PORT
"""

import http.client
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

from tests.support.servers import WebServer

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Faulty(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target = ""
    chance = random.Random(0)
    outages: ClassVar[dict[int, tuple[float, int, str]]] = {}
    """After so many requests of pictures: for how many seconds to refuse all, with which status and error."""
    poisoned: ClassVar[set[str]] = set()
    """Ends of paths that always get 500."""
    lock = threading.Lock()
    pictures = 0
    away_until = 0.0
    refusal = (503, "SlowDown")

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:  # requests are answered side by side
            Faulty.pictures += self.path.endswith(".jpg")
            for after in [after for after in self.outages if after <= self.pictures]:
                away_s, status, error = self.outages.pop(after)
                Faulty.away_until, Faulty.refusal = time.monotonic() + away_s, (status, error)
        if time.monotonic() < self.away_until:
            self.answer(self.refusal[0], [], f"<Error><Code>{self.refusal[1]}</Code></Error>".encode())
            return
        if self.path.endswith(tuple(self.poisoned)):
            self.answer(500, [], b"<Error><Code>InternalError</Code></Error>")
            return
        dice = self.chance.random()
        if dice < 0.10:
            self.answer(503, [("Content-Type", "application/xml")], BUSY)
            return
        upstream = http.client.HTTPConnection(self.target, timeout=30)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        skipped = ("connection", "transfer-encoding", "content-length", "date", "server")
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in skipped]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        upstream.close()
        self.answer(answer.status, headers, data, cut=dice < 0.12, length=length)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

    def answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def faulty(target: str, port: int) -> Iterator[type[Faulty]]:
    """Run the proxy in threads of this process, so that a test can change what it does."""
    Faulty.target, Faulty.pictures, Faulty.away_until = target, 0, 0.0
    with WebServer(("127.0.0.1", port), Faulty):
        yield Faulty


if __name__ == "__main__":
    Faulty.target = sys.argv[1]
    WebServer(("127.0.0.1", int(sys.argv[2])), Faulty).serve_forever()
