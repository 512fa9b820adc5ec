"""A server that keeps each request line as it came, byte by byte."""

import socketserver
from collections.abc import Mapping

from tests.support.servers import BlockServer


class WireServer(BlockServer):
    """Answers on a loopback address.

    Attributes:
        targets: What was asked for, as it stood in the request lines; robots.txt is left out.
        robots: The answer to a request for robots.txt.
        answers: Whole answers by target; any other target gets `default`.
    """

    def __init__(self, default: bytes, answers: Mapping[str, bytes] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.default, self.answers = default, dict(answers or {})
        self.place = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.place}"
        self.targets: list[str] = []
        self.robots = whole(b"", status="404 Not Found")


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
