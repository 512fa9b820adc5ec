"""The endpoint as a process of its own, over HTTP."""

import base64
import csv
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from PIL import Image

from atlas_ray.artifacts import load_artifact
from atlas_ray.cli.main import main
from atlas_ray.client import Categorized, Client
from atlas_ray.errors import ItemError, ServiceError
from atlas_ray.io.storage import write_bytes
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.serving.access import new_token
from atlas_ray.taxonomy import Taxonomy, format_path
from tests.support.endpoint import Endpoint, endpoint
from tests.support.parts import make_artifact, make_fused, picture
from tests.support.picture_server import PictureServer
from tests.support.servers import WebServer

pytestmark = pytest.mark.ray

TOKEN, LINE = new_token("tests")
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
TIMEOUT_S = 12  # a machine may be busy with other tests
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        (found / f"{number}.jpg").write_bytes(picture(number))
    return found


@pytest.fixture(scope="module")
def running(small_model: str, folder: Path, s3: str, garments: Taxonomy) -> Iterator[Endpoint]:
    other = folder.parent / "other"
    make_artifact(str(other), Taxonomy(garments.leaves[:3], name="few"), seed=1)
    tokens = folder.parent / "tokens"
    tokens.write_text(f"{LINE}\n")
    with endpoint(
        f"--model=garments={small_model},few={other},fused={make_fused(folder.parent, garments)}",
        f"--tokens-file={tokens}",
        f"--image-prefixes={folder},{s3}/serving",
        f"--request-timeout-s={TIMEOUT_S}",
        "--max-pictures=8",
        "--max-body-mib=2",
        "--batch-size=4",
        "--precision=float32",
    ) as started:
        yield started


def post(running: Endpoint, path: str = "/v1/categorize", **arguments: Any) -> requests.Response:
    return requests.post(running.url + path, headers=HEADERS, timeout=60, **arguments)


def results(answer: requests.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def uploads(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"{number}.jpg", content)) for number, content in enumerate(contents)]


def test_the_answers_are_those_of_the_predictor(running: Endpoint, small_model: str) -> None:
    contents = [picture(number) for number in range(6)]
    contents[2] = b"junk"
    found = results(post(running, files=uploads(*contents)))
    artifact = load_artifact(small_model)
    table, _ = PathPredictor(artifact, PredictorConfig(precision="float32"))(contents)
    for number, (result, row) in enumerate(zip(found, table.to_pylist(), strict=True)):
        assert result["name"] == f"{number}.jpg"
        if number == 2:
            assert result["error"]["code"] == "not_an_image"
            continue
        assert result["category_path"] == row["category_path"]
        assert result["probability"] == pytest.approx(row["probability"], abs=1e-4)
        assert result["level_probabilities"] == pytest.approx(row["level_probabilities"], abs=1e-4)
        assert len(result["alternatives"]) == 4
        assert (result["model_id"], result["taxonomy_id"]) == (artifact.id, artifact.taxonomy.id)


def test_a_part_of_the_taxonomy_fewer_paths_and_where_it_looked(running: Endpoint, garments: Taxonomy) -> None:
    node = garments.leaves[-1][:1]
    data = {"within": format_path(node), "top_k": "2", "explain": "true"}
    (result,) = results(post(running, files=uploads(picture(1)), data=data))
    assert tuple(result["category_path"][:1]) == node
    assert len(result["alternatives"]) == 1
    assert len(result["attention"]) == len(result["category_path"])
    for overlay in (*result["attention"], result["picture"]):
        kind, _, encoded = overlay.partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert image.get_format_mimetype() == kind.removeprefix("data:")
            assert image.mode == ("RGBA" if kind.endswith("png") else "RGB")
            if kind.endswith("png"):
                assert max(image.getchannel("A").tobytes()) > 150


def test_objects_are_read_by_the_endpoint(running: Endpoint, folder: Path, s3: str) -> None:
    write_bytes(f"{s3}/serving/1.jpg", picture(1))
    uris = [
        f"{folder}/1.jpg",
        f"{s3}/serving/1.jpg",
        f"{s3}/serving/none.jpg",
        f"{folder}/../tokens",
        "http://10.0.0.1/",
    ]
    found = results(post(running, json={"image_uri": uris}))
    assert [result.get("error", {}).get("code") for result in found] == [
        None, None, "not_found", "forbidden_uri", "forbidden_uri",
    ]  # fmt: skip
    assert [result["name"] for result in found] == uris
    assert found[0]["category_path"] == found[1]["category_path"]
    (one,) = results(post(running, json={"image_uri": uris[0], "top_k": 1}))
    assert one["alternatives"] == []


def test_several_models_by_name(running: Endpoint, garments: Taxonomy) -> None:
    def get(path: str) -> Any:
        return requests.get(running.url + path, headers=HEADERS, timeout=30).json()

    assert get("/v1/models") == {"models": ["garments", "few", "fused"]}
    assert get("/v1/model")["name"] == "garments"
    few = get("/v1/models/few")
    metrics = few.pop("metrics")
    assert metrics["val_loss"] > 0
    assert all(isinstance(value, int | float) for value in metrics.values())
    told = json.dumps([few, metrics, get("/v1/model"), get("/v1/models/fused"), get("/openapi.json")])
    assert "/tmp" not in told
    assert "settings" not in metrics
    assert get("/v1/models/few/taxonomy")["category_paths"] == [list(path) for path in garments.leaves[:3]]
    assert len(get("/v1/taxonomy")["category_paths"]) == len(garments.leaves)
    (result,) = results(post(running, "/v1/models/few/categorize", files=uploads(picture(0))))
    assert result["model_id"] == few["model_id"]


@pytest.mark.parametrize(
    ("arguments", "status", "code", "said"),
    [
        ({"data": b"x", "headers": {}}, 415, "unsupported_media_type", "expected multipart/form-data"),
        ({"json": {}}, 422, "invalid_request", "0 products"),
        ({"json": {"image_uri": []}}, 422, "invalid_request", "0 products; a request has 1 to 8"),
        ({"json": {"image_uri": ["/a"] * 9}}, 413, "too_large", "9 products; a request has 1 to 8"),
        ({"json": {"image_uri": ["/a", 5]}}, 422, "invalid_request", "image_uri.1: Input should be a valid string"),
        ({"json": {"image_uri": [1] * 600_000}}, 413, "too_large", "more than max_pictures can need"),
        ({"files": uploads(b"x"), "data": {"image_uri": "/a"}}, 422, "invalid_request", "image_uri"),
        ({"json": {"image_uri": "/a", "topk": 1}}, 422, "invalid_request", "topk"),
        ({"files": uploads(b"x"), "data": {"top_k": "none"}}, 422, "invalid_request", "top_k"),
        ({"files": uploads(*[b"x"] * 9)}, 413, "too_large", "more than 8 products"),
        ({"files": uploads(picture(0)), "data": {"within": "Hats > Caps"}}, 422, "unknown_category", "Hats"),
        ({"path": "/v1/models/none/categorize", "files": uploads(b"x")}, 404, "unknown_model", "garments, few, fused"),
        ({"path": "/v2/categorize"}, 404, "not_found", "/v2/categorize"),
        ({"path": "/v1/model"}, 405, "method_not_allowed", "POST"),
        ({"path": "/page/..%2f..%2fapi.py"}, 404, "not_found", ""),
        ({"files": uploads(bytes(3 * 1024 * 1024))}, 413, "too_large", "2097152"),
        ({"data": iter([FORM, *[bytes(1024 * 1024)] * 50])}, 413, "too_large", "2097152"),
    ],
)  # fmt: skip
def test_refusals_have_a_code_and_a_sentence(
    running: Endpoint, arguments: dict[str, Any], status: int, code: str, said: str
) -> None:
    arguments = dict(arguments)
    headers = HEADERS | {"Content-Type": "application/octet-stream"} if "headers" in arguments else HEADERS
    if "data" in arguments and not isinstance(arguments["data"], (dict, bytes)):
        headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=x"}
    arguments.pop("headers", None)
    answer = requests.post(
        running.url + arguments.pop("path", "/v1/categorize"), headers=headers, timeout=60, **arguments
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["code"], document["status"]) == (code, status)
    assert said in document["detail"]
    assert requests.get(f"{running.url}/readyz", timeout=30).status_code == 200


def test_nothing_but_health_is_open(running: Endpoint) -> None:
    for path in ("/", "/docs", "/openapi.json", "/page/page.js", "/v1/models", "/v1/model", "/v1/taxonomy", "/x"):
        assert requests.get(running.url + path, timeout=30).status_code == 401, path
        assert requests.get(running.url + path, headers={"Authorization": "Bearer x"}, timeout=30).status_code == 401
    assert requests.post(f"{running.url}/v1/categorize", files=uploads(picture(0)), timeout=30).status_code == 401
    assert requests.get(f"{running.url}/healthz", timeout=30).json() == {"status": "ok"}
    assert requests.get(f"{running.url}/", auth=("me", TOKEN), timeout=30).status_code == 200
    paths = requests.get(f"{running.url}/openapi.json", headers=HEADERS, timeout=30).json()["paths"]
    assert {"/v1/categorize", "/v1/models/{name}/categorize", "/v1/taxonomy", "/readyz"} <= paths.keys()


def test_texts_alone_from_the_command_line(
    running: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    ask = ["categorize", "--url", running.url, "--token-file", str(tmp_path / "token"), "--model", "fused"]
    titles = [f"{number} [red] shirts" for number in range(18)]  # more than one request
    assert main([*ask, *(flag for title in titles for flag in ("--title", title))]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "[red] shirts" in line]
    assert [line.split()[1] for line in rows] == [str(number) for number in range(18)]
    assert all(" > " in line for line in rows)
    assert main([*ask, "--description", ""]) == 3
    assert "nothing_to_go_by" in capsys.readouterr().out
    for flags, reason in (
        ([], "nothing to ask about: name pictures, or give a --title or a --description"),
        (["--title", "a", "--description", "b", "--description", "c"], "--description stands 2 times for 1 products"),
        (["x.jpg", "--title", "a", "--title", "b"], "--title stands 2 times for 1 products"),
    ):
        assert main([*ask, *flags]) == 2
        assert reason in capsys.readouterr().err


def test_titles_and_descriptions(running: Endpoint, folder: Path) -> None:
    artifact = load_artifact(str(folder.parent / "fused"))
    predictor = PathPredictor(artifact, PredictorConfig(precision="float32"))
    titles = ["A red shirt", None, None]
    descriptions = ["<b>blue</b> saree", "blue", None]
    contents = [picture(0), None, None]
    wanted, _ = predictor(contents, {"title": titles, "description": descriptions})
    uris = [str(folder / "0.jpg"), None, None]
    with Client(running.url, TOKEN) as client:
        found = client.categorize_uris(uris, titles=titles, descriptions=descriptions, model="fused")
        assert client.model("fused")["reads"] == ["picture", "title", "description"]
        (by_form,) = client.categorize([picture(0)], titles=titles[:1], descriptions=descriptions[:1], model="fused")
        (by_title,) = client.categorize([b"no picture"], titles=["red"], model="fused")
        (ignored,) = client.categorize([picture(0)], titles=["red"], model="garments")
        only_texts = client.categorize_uris([], titles=["red", "blue"], model="fused")
        many = client.categorize([picture(0)] * 20, titles=["red"] * 20, descriptions=["blue"] * 20, model="fused")
    for row, one in zip(wanted.to_pylist()[:2], found[:2], strict=True):
        assert isinstance(one, Categorized)
        assert list(one.category_path) == row["category_path"]
        assert one.probability == pytest.approx(row["probability"], abs=1e-3)
    assert isinstance(found[2], ItemError)
    assert found[2].code == "nothing_to_go_by"
    assert isinstance(by_form, Categorized)
    assert isinstance(found[0], Categorized)
    assert by_form.probability == pytest.approx(found[0].probability, abs=1e-3)
    assert isinstance(by_title, Categorized)
    assert (by_title.picture_error or "").startswith("not_an_image: ")
    assert isinstance(ignored, Categorized)
    assert [isinstance(one, Categorized) for one in only_texts] == [True, True]
    assert [isinstance(one, Categorized) for one in many] == [True] * 20
    (alone,) = results(post(running, "/v1/models/fused/categorize", json={"title": "red shirt"}))
    assert alone["name"] == "product 1"
    assert "picture_error" not in alone
    (explained,) = results(
        post(
            running, "/v1/models/fused/categorize", files=uploads(picture(0)), data={"title": "red", "explain": "true"}
        )
    )
    assert len(explained["attention"]) == len(explained["category_path"])
    refused = post(running, "/v1/models/fused/categorize", json={"image_uri": uris, "title": ["one"]})
    assert (refused.status_code, refused.json()["detail"]) == (422, "title: 1 texts for 3 products")
    long = results(post(running, "/v1/models/fused/categorize", json={"title": "red " * 100_000}))
    assert long[0]["category_path"]


def test_a_body_that_does_not_end_is_cut_off(running: Endpoint) -> None:
    place = urlsplit(running.url)
    assert place.hostname
    with socket.create_connection((place.hostname, place.port or 80), timeout=30) as connection:
        head = f"POST /v1/categorize HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode())
        started = time.monotonic()
        connection.settimeout(0.3)
        answer = b""
        while not answer and time.monotonic() - started < TIMEOUT_S + 10:
            connection.sendall(b" ")
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")
    assert TIMEOUT_S - 1 < time.monotonic() - started < TIMEOUT_S + 5


def test_strange_pictures(running: Endpoint, test_data: Path) -> None:
    with (test_data / "odd_images" / "images.csv").open(newline="") as stream:
        kinds = {row["file"]: row["expected"] for row in csv.DictReader(stream)}
    for name, expected in kinds.items():
        content = (test_data / "odd_images" / name).read_bytes()
        if len(content) > 1024 * 1024:
            continue
        (result,) = results(post(running, files=uploads(content)))
        assert ("error" in result) != ("category_path" in result)
        if expected != "policy":
            assert ("error" in result) == (expected == "must_reject"), name


def test_the_client_and_its_command(running: Endpoint, folder: Path) -> None:
    with Client(running.url, TOKEN) as client:
        good, bad = client.categorize([folder / "1.jpg", b"junk"], top_k=2)
        assert isinstance(good, Categorized)
        assert len(good.alternatives) == 1
        assert isinstance(bad, ItemError)
        assert bad.code == "not_an_image"
        (again,) = client.categorize_uris([f"{folder}/1.jpg"])
        assert isinstance(again, Categorized)
        assert again.category_path == good.category_path
        assert again.category_path in client.taxonomy()
        with pytest.raises(ServiceError, match=r"answers 422: .*'Hats'"):
            client.categorize([folder / "1.jpg"], within="Hats")
    with Client(running.url) as stranger, pytest.raises(ServiceError, match="answers 401: send a known token"):
        stranger.model()

    def command(*arguments: str, token: str = TOKEN) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "atlas_ray", "categorize", f"--url={running.url}", *arguments]
        environment = os.environ | {"ATLAS_RAY_TOKEN": token}
        return subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment)

    done = command(f"{folder}/1.jpg", str(running.log))
    assert done.returncode == 3
    assert format_path(good.category_path) in done.stdout
    assert "not_an_image" in done.stdout
    done = command(*[f"{folder}/1.jpg"] * 16, f"{folder}/none.jpg")
    assert (done.returncode, "No such file" in done.stderr) == (2, True)
    assert done.stdout.count(format_path(good.category_path)) == 16  # what was answered before is not lost
    assert "Traceback" not in done.stderr
    done = command(f"{folder}/1.jpg", token="")
    assert done.returncode == 2
    assert "give the token with --token-file FILE, or in ATLAS_RAY_TOKEN" in done.stderr


def test_the_example_asks(running: Endpoint, folder: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "examples" / "ask_endpoint.py"

    def example(*arguments: str, token: str = TOKEN) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, str(script), running.url, *arguments]
        return subprocess.run(
            line, capture_output=True, text=True, timeout=60, env=os.environ | {"ATLAS_RAY_TOKEN": token}
        )

    done = example(f"{folder}/1.jpg", str(running.log))
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert (done.returncode, [row[0] for row in rows]) == (1, [f"{folder}/1.jpg", str(running.log)])
    assert " > " in rows[0][1]
    assert rows[1][1].startswith("not_an_image: ")
    done = example(f"{folder}/1.jpg", token="")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert running.url in done.stderr


def test_what_is_too_large_for_one_request_is_asked_in_parts(running: Endpoint, folder: Path) -> None:
    large = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (540, 540, 3), np.uint8)
        large.append(folder / f"large-{number}.png")
        Image.fromarray(pixels).save(large[-1])
        assert 0.8 < large[-1].stat().st_size / 2**20 < 1
    uris = [str(path) for path in large]
    refused = post(running, json={"image_uri": uris})  # the endpoint would hold more than a request may bring
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "with the objects that it names" in refused.json()["detail"]
    with Client(running.url, TOKEN) as client:
        by_uri = client.categorize_uris(uris, top_k=1)
        by_file = client.categorize(large, top_k=1)
        (alone,) = client.categorize([bytes(3 * 2**20)])
    assert [one.category_path for one in by_uri if isinstance(one, Categorized)] == [
        one.category_path for one in by_file if isinstance(one, Categorized)
    ]
    assert len(by_uri) == len(by_file) == 3
    assert isinstance(alone, ItemError)
    assert alone.code == "too_large"


class _Busy(BaseHTTPRequestHandler):
    """Refuses a few times, and says how long to wait."""

    refusals: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        status = self.refusals.pop(0) if self.refusals else 200
        body = b'{"name": "m"}' if status == 200 else b"{}"
        self.send_response(500 if status == 555 else status)
        if status == 429:
            self.send_header("Retry-After", "2")
        if status == 555:
            self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def test_the_client_waits_as_long_as_it_is_told() -> None:
    with WebServer(("127.0.0.1", 0), _Busy) as server:
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            _Busy.refusals[:] = [429]
            started = time.monotonic()
            assert client.model() == {"name": "m"}
            assert 1.9 < time.monotonic() - started < 10
            _Busy.refusals[:] = [500, 503, 502]
            assert client.model() == {"name": "m"}
            _Busy.refusals[:] = [555]  # the endpoint's own: it would fail again
            with pytest.raises(ServiceError, match="answers 500"):
                client.model()
            with pytest.raises(ServiceError, match="3 titles for 1 products"):
                client.categorize([b""], titles=["a", "b", "c"])
            _Busy.refusals[:] = [429] * 9
        with Client(f"http://127.0.0.1:{server.server_port}", attempts=1) as once, pytest.raises(ServiceError):
            once.model()


def test_what_would_come_too_late_is_refused_and_not_begun(tmp_path: Path, garments: Taxonomy) -> None:
    make_artifact(str(tmp_path / "slow"), garments, image_size_px=384)
    flags = (f"--model={tmp_path}/slow", "--allow-anonymous", "--batch-size=4", "--max-pictures=8")
    with endpoint(*flags, "--request-timeout-s=5") as running, ThreadPoolExecutor(40) as pool:

        def ask(_: int) -> requests.Response:
            files = uploads(*[picture(0)] * 8)  # which a slow machine has the time for, too
            return requests.post(f"{running.url}/v1/categorize", files=files, timeout=60)

        statuses = Counter(answer.status_code for answer in pool.map(ask, range(80)))
        assert statuses.keys() == {200, 429}, statuses  # far more work than there is time for, and no 504


def test_what_does_not_fit_and_what_runs_at_the_end(tmp_path: Path, garments: Taxonomy) -> None:
    make_artifact(str(tmp_path / "slow"), garments, image_size_px=384)
    with PictureServer() as shop, endpoint(
        f"--model={tmp_path}/slow", "--allow-anonymous", "--batch-size=1", "--max-pictures=1",
        "--max-queued-requests=1",
        "--http-images", f"--allow-private={shop.place}", "--fetch-timeout-s=8",
    ) as running:  # fmt: skip

        def ask(_: int) -> requests.Response:
            return requests.post(f"{running.url}/v1/categorize", files=uploads(picture(0)), timeout=60)

        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(ask, range(48)))
            statuses = Counter(answer.status_code for answer in answers)
            assert statuses.keys() == {200, 429}, statuses
            for answer in answers:
                if answer.status_code == 429:
                    assert answer.json()["code"] == "busy"
                    assert int(answer.headers["retry-after"]) >= 1
            assert requests.get(f"{running.url}/readyz", timeout=30).status_code == 200

            def patient(_: int) -> Any:
                with Client(running.url, attempts=20) as client:
                    return client.categorize([picture(0)])[0]

            assert all(isinstance(found, Categorized) for found in pool.map(patient, range(12)))

            # It reads an object that does not come, until its time is over.
            body = {"image_uri": f"{shop.url}/hang/"}
            asked = pool.submit(requests.post, f"{running.url}/v1/categorize", json=body, timeout=60)
            time.sleep(1)
            assert not asked.done()
            started = time.monotonic()
            ended = pool.submit(running.stop)
            time.sleep(3)
            late = requests.post(f"{running.url}/v1/categorize", files=uploads(picture(0)), timeout=30)
            assert (late.status_code, late.json()["code"]) == (503, "draining")
            assert not asked.done()
            assert asked.result().json()["results"][0]["error"]["code"] == "timeout"
            assert time.monotonic() - started > 4
            assert ended.result() == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{running.url}/healthz", timeout=5)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "nobody could ask"),
        (["--allow-anonymous", "--host=0.0.0.0"], "anyone on the network"),
        (["--allow-anonymous", "--model=other=/none"], "/none/model.json"),
        (["--tokens-file=/none"], "the file of tokens '/none' cannot be read"),
        (["--allow-anonymous", "--image-prefixes=hdfs://shop"], "--image-prefixes has 'hdfs://shop'"),
        (["--allow-anonymous", "--model-cpus=64"], "do not fit: this machine's Ray counts"),
        (["--allow-anonymous", "--detach"], "RAY_ADDRESS names none"),
    ],
)
def test_a_mistake_is_one_line(
    small_model: str, flags: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["serve", f"--model={small_model}", *flags]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed.splitlines()) == 1


def test_a_cluster_of_others_is_not_ended(
    small_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert main(["serve", f"--model={small_model}", "--allow-anonymous"]) == 2
    assert "add --detach" in capsys.readouterr().err
