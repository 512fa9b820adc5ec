"""`ray job submit` to a real head with token authentication, from submission to the artifact in S3."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.catalog.importer import ImportConfig, import_catalog
from benchmarks.parts import free_port, wait_for
from tests.conftest import SHOP_COLUMNS

ROOT = Path(__file__).resolve().parent.parent
EXCLUDES = json.dumps({"excludes": [".git", ".venv", "demo"]})


@contextmanager
def head(token: Path) -> Iterator[dict[str, str]]:
    """Start a Ray head of its own that asks for the token; give the environment of who may use it."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="ar")  # a short path: it holds sockets
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = ["ray", "start", "--head", "--block", "--num-cpus=4", f"--temp-dir={folder}", f"--port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}"]
    with (Path(folder) / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/api/version", process, 120)
            yield environment | {"RAY_ADDRESS": f"http://127.0.0.1:{port}"}
        finally:
            process.terminate()  # with --block, it takes its Ray with it
            process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def test_training_is_submitted_with_a_token(shop: str, s3: str, tmp_path: Path) -> None:
    catalog = f"{s3}/jobs/catalog"
    import_catalog(ImportConfig(source=shop, output=catalog, columns=SHOP_COLUMNS))
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    flags = ["--backbone=resnet18", "--image-size-px=32", "--hidden-dim=16", "--batch-size=16", "--epochs=1"]
    with head(token) as environment:
        address = environment["RAY_ADDRESS"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/api/jobs/", timeout=30)
        assert refused.value.code == 401
        submit = ["ray", "job", "submit", "--working-dir", ".", "--runtime-env-json", EXCLUDES, "--"]
        job = ["python", "jobs/train.py", "encoder-decoder", "--catalog", catalog, "--output", f"{s3}/jobs/model"]
        done = subprocess.run(
            [*submit, *job, *flags], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"model {load_artifact(f'{s3}/jobs/model').id}" in done.stdout
