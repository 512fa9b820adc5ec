"""`ray job submit` to a real head with token authentication, from submission to the artifact in S3."""

import json
import secrets
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.catalog.importer import ImportConfig, import_catalog
from benchmarks.cluster import head
from tests.conftest import SHOP_COLUMNS

ROOT = Path(__file__).resolve().parent.parent
EXCLUDES = json.dumps({"excludes": [".git", ".venv", "demo"]})


def test_training_is_submitted_with_a_token(shop: str, s3: str, tmp_path: Path) -> None:
    catalog = f"{s3}/jobs/catalog"
    import_catalog(ImportConfig(source=shop, output=catalog, columns=SHOP_COLUMNS))
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    flags = ["--backbone=resnet18", "--image-size-px=32", "--hidden-dim=16", "--batch-size=16", "--epochs=1"]
    with head(token) as cluster:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=30)
        assert refused.value.code == 401
        submit = ["ray", "job", "submit", "--working-dir", ".", "--runtime-env-json", EXCLUDES, "--"]
        job = ["python", "jobs/train.py", "encoder-decoder", "--catalog", catalog, "--output", f"{s3}/jobs/model"]
        done = subprocess.run(
            [*submit, *job, *flags], env=cluster.submitting, cwd=ROOT, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"model {load_artifact(f'{s3}/jobs/model').id}" in done.stdout
