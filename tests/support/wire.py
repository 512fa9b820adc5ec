"""A server that keeps each request line as it came, byte by byte."""

import socketserver
import threading
from collections.abc import Mapping
from typing import Self


class WireServer(socketserver.ThreadingTCPServer):
    """Answers on a loopback address while its `with` block runs.

    Attributes:
        targets: What was asked for, as it stood in the request lines; robots.txt is left out.
        robots: The answer to a request for robots.txt.
        answers: Whole answers by target; any other target gets `default`.
    """

    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False

    def __init__(self, default: bytes, answers: Mapping[str, bytes] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.default, self.answers = default, dict(answers or {})
        self.place = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.place}"
        self.targets: list[str] = []
        self.robots = whole(b"", status="404 Not Found")

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that go away."""


class _Handler(socketserver.StreamRequestHandler):
    server: WireServer

    def handle(self) -> None:
        target = self.rfile.readline().decode("latin-1").removeprefix("GET ").rpartition(" HTTP/")[0]
        while self.rfile.readline().strip():
            pass
        if target == "/robots.txt":
            self.wfile.write(self.server.robots)
            return
        self.server.targets.append(target)
        self.wfile.write(self.server.answers.get(target, self.server.default))


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer, after which the connection ends."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
