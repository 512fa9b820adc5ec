"""`ray job submit` to a real head with token authentication, from submission to what the job leaves in S3."""

import json
import secrets
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.runs.run_record import read_run
from atlas_ray.runtime.tables import open_catalog
from tests.conftest import SHOP_COLUMNS
from tests.support.cluster import head

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parent.parent
EXCLUDES = json.dumps({"excludes": [".git", ".venv", "demo"]})
TRAIN = [
    "encoder-decoder",
    "--backbone=resnet18",
    "--image-size-px=32",
    "--hidden-dim=16",
    "--batch-size=16",
    "--epochs=1",
]


# `python -m benchmarks.submit_jobs` submits every one.
@pytest.mark.parametrize(("job", "flags"), [("duplicates", []), pytest.param("train", TRAIN, marks=pytest.mark.slow)])
def test_a_job_is_submitted_with_a_token(shop: str, s3: str, tmp_path: Path, job: str, flags: list[str]) -> None:
    catalog, output = f"{s3}/jobs/{job}/catalog", f"{s3}/jobs/{job}/output"
    import_catalog(ImportConfig(source=shop, output=catalog, columns=SHOP_COLUMNS))
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    with head(token) as cluster:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=30)
        assert refused.value.code == 401
        submit = ["ray", "job", "submit", "--working-dir", ".", "--runtime-env-json", EXCLUDES, "--"]
        command = ["python", f"jobs/{job}.py", *flags, "--catalog", catalog, "--output", output]
        done = subprocess.run(
            [*submit, *command], env=cluster.submitting, cwd=ROOT, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    if job == "train":
        assert f"model {load_artifact(output).id}" in done.stdout
    else:
        assert (run := read_run(output)) is not None
        assert run["counts"]["input"] == open_catalog(catalog).images.rows
