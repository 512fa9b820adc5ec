"""Servers of tests, which answer from threads of this process while their `with` block runs."""

import socketserver
import threading
from http.server import HTTPServer
from typing import Self


class BlockServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server that answers while its `with` block runs."""

    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    request_queue_size = 128

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that go away."""


class WebServer(BlockServer, HTTPServer):
    """A server of HTTP that answers while its `with` block runs."""
