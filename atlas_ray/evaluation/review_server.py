"""A server for a review's page on this machine, which saves decisions to `corrections.csv` in the review's folder.

It listens only on loopback. Its address has a secret path, so that neither pages of other sites nor other users of
this machine can use it, and it refuses requests for another host's name, so that no site's name can be pointed at it.
It reads and writes only the page and that file.
"""

import csv
import io
import json
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from atlas_ray.errors import CatalogError, ConfigError, OutputError, RunError, TaxonomyError, UserError
from atlas_ray.evaluation.review import QUEUE
from atlas_ray.formats.spreadsheet import unguarded, write_csv
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.taxonomy import CategoryPath, format_path, parse_path
from atlas_ray.taxonomy.tree import check_path

HOST = "127.0.0.1"
CORRECTIONS = "corrections.csv"
COLUMNS = ("product_id", "corrected_category_path")
MAX_BODY_BYTES = 16 << 20
IDLE_S = 30.0
"""Seconds after which a silent connection is closed."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Corrections:
    """The decisions of a review, in memory and in its file."""

    def __init__(self, folder: str) -> None:
        """Read the review, and earlier decisions.

        Args:
            folder: The folder of a review.

        Raises:
            CatalogError: if there is no review.
            OutputError: if the file holds corrections of another review.
        """
        queue = storage.join(folder, "queue.parquet")
        if not storage.exists(queue):
            raise CatalogError(f"{folder} holds no review; name the scoring run to make one of with --run")
        self._ids = frozenset(open_table(queue, QUEUE, columns=["product_id"]).read()["product_id"].to_pylist())
        self._lock = threading.Lock()
        self.uri = storage.join(folder, CORRECTIONS)
        self.paths: dict[str, CategoryPath] = self._read() if storage.exists(self.uri) else {}

    def _read(self) -> dict[str, CategoryPath]:
        read, number = {}, 1
        try:
            text = storage.read_bytes(self.uri).decode("utf-8-sig")
            for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), 2):  # noqa: B007 - for the error
                product_id, written = (unguarded(row[name]) for name in COLUMNS)
                self._check_id(product_id)
                if written.strip():
                    read[product_id] = parse_path(written)
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error, UserError) as error:
            raise OutputError(
                f"{self.uri}, row {number}: {error}; it was written by something else, or for another review; move it "
                "away first"
            ) from None
        return read

    def _check_id(self, product_id: str) -> None:
        if product_id not in self._ids:
            raise ValueError(f"this review has no product {product_id[:100]!r}")

    def change(self, changes: Any) -> int:
        """Save decisions, each a product's id with a path, or with null to withdraw it; return the number of decisions.

        Raises:
            ValueError, TaxonomyError: for an invalid decision.
            UserError, RunError: if the file cannot be written; then nothing is changed.
        """
        if not isinstance(changes, list):
            raise ValueError("expected a list of changes")
        taken: dict[str, CategoryPath | None] = {}
        for change in changes:
            if not (isinstance(change, list) and len(change) == 2 and isinstance(change[0], str)):
                raise ValueError("expected each change to be a product's id and a path")
            product_id, names = change
            self._check_id(product_id)
            if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise ValueError(f"expected the path of {product_id[:100]!r} to be names, or null")
            if names is not None:
                check_path(tuple(names))
            taken[product_id] = None if names is None else tuple(names)
        with self._lock:
            after = {name: path for name, path in (self.paths | taken).items() if path is not None}
            write_csv(self.uri, COLUMNS, ((name, format_path(path)) for name, path in after.items()))
            self.paths = after
            return len(after)

    def listed(self) -> list[tuple[str, CategoryPath]]:
        """Return each corrected product with its path."""
        with self._lock:
            return list(self.paths.items())


@holding("review --serve", "output")
def serve_review(output: str, started: Callable[[str, str], None], *, port: int = 0) -> None:
    """Serve a review's page until SIGINT, SIGTERM or SIGHUP.

    Args:
        output: The folder of a review.
        started: Called with the page's address and the URI of the corrections, once it answers.
        port: Where to listen; 0: any that is free.

    Raises:
        CatalogError: if the folder holds no review.
        OutputError: if its corrections are not of this review.
        ConfigError: if the port is in use.
    """
    folder = storage.absolute(output)
    corrections = Corrections(folder)
    page = storage.read_bytes(storage.join(folder, "review.html"))
    try:
        server = review_server(page, corrections, port=port)
    except OSError as error:
        raise ConfigError(f"--port {port} cannot be listened on: {error.strerror}; name another one") from None
    with server:
        started(server.address, corrections.uri)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    address = ""


def review_server(page: bytes, corrections: Corrections, *, port: int = 0) -> _Server:
    """Return a server that listens already; `serve_forever` answers.

    Args:
        page: `review.html`.
        corrections: What its decisions go to.
        port: Where to listen; 0: any that is free.
    """
    root = f"/{secrets.token_urlsafe(24)}/"

    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_S
        server_version, sys_version = "atlas_ray", ""

        def do_GET(self) -> None:
            if not self._allowed():
                return
            if self.path == root:
                self._answer(HTTPStatus.OK, page, "text/html; charset=utf-8")
            elif self.path == f"{root}corrections":
                self._say(HTTPStatus.OK, {"file": CORRECTIONS, "corrections": corrections.listed()})
            else:
                self._say(HTTPStatus.NOT_FOUND, {"detail": "no such page"})

        def do_POST(self) -> None:
            if not self._allowed():
                return
            origin = self.headers.get("Origin")
            length = self.headers.get("Content-Length", "")
            if self.path != f"{root}corrections":
                self._say(HTTPStatus.NOT_FOUND, {"detail": "no such page"})
            elif origin not in (None, *(f"http://{host}" for host in self._hosts())):
                self._say(HTTPStatus.FORBIDDEN, {"detail": "a page of another site asks"})
            elif self.headers.get_content_type() != "application/json":
                self._say(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"detail": "expected application/json"})
            elif not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY_BYTES:
                self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"detail": f"expected at most {MAX_BODY_BYTES} bytes"})
            else:
                self._take(self.rfile.read(int(length)))

        def _take(self, body: bytes) -> None:
            try:
                changes = json.loads(body)
                saved = corrections.change(changes.get("changes") if isinstance(changes, dict) else None)
            except (ValueError, TaxonomyError, RecursionError) as error:
                self._say(HTTPStatus.UNPROCESSABLE_ENTITY, {"detail": str(error)[:500]})
            except (UserError, RunError, OSError) as error:
                self._say(HTTPStatus.INTERNAL_SERVER_ERROR, {"detail": str(error)[:500]})
            else:
                self._say(HTTPStatus.OK, {"file": CORRECTIONS, "saved": saved})

        def _hosts(self) -> tuple[str, ...]:
            return tuple(f"{name}:{server.server_port}" for name in (HOST, "localhost"))

        def _allowed(self) -> bool:
            if self.headers.get("Host") in self._hosts():
                return True
            self._say(HTTPStatus.FORBIDDEN, {"detail": "this is another host"})
            return False

        def _say(self, status: HTTPStatus, value: dict[str, Any]) -> None:
            self._answer(status, json.dumps(value).encode(), "application/json")

        def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
            self.close_connection = True  # the unread rest of a request must not be read as the next one
            self.send_response(status)
            for name, value in (HEADERS | {"Content-Type": kind, "Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Write no line a request."""

    server = _Server((HOST, port), Handler)
    server.address = f"http://{HOST}:{server.server_port}{root}"
    return server
