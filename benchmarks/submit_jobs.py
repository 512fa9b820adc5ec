"""Each of `jobs/*.py`, submitted with `ray job submit` to a head that asks for a token.

    python -m benchmarks.submit_jobs

From a drawn shop over loopback to an endpoint that answers: crawl, fetch, train (a zoom filter and a
model), filter, duplicates, score (twice), evaluate, compare, taxonomy, embed, serve. Prints each one's
exit code and seconds.
"""

import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from atlas_ray.client import Categorized, Client
from atlas_ray.demo.drawing import GARMENTS
from atlas_ray.demo.run import draw_products
from atlas_ray.demo.shop import draw_shop, serve_shop
from atlas_ray.serving.access import new_token
from tests.support.cluster import head
from tests.support.inputs import free_port

ROOT = Path(__file__).resolve().parent.parent
EXCLUDES = json.dumps({"excludes": [".git", ".venv", "demo"]})


def main() -> None:
    bad = []
    with tempfile.TemporaryDirectory(prefix="atlas-ray-jobs-") as scratch:
        root = Path(scratch)
        token = root / "token"
        token.write_text(secrets.token_hex(32))
        bearer, line = new_token("jobs")
        port = free_port()
        draw_shop(str(root / "shop"), draw_products())
        levels = "".join(",".join(path) + "\n" for path in GARMENTS)
        (root / "taxonomy.csv").write_text(f"level_1,level_2,level_3\n{levels}")
        with serve_shop(str(root / "shop")) as shop, head(token) as cluster:
            shop.write_stores(str(root / "stores.yaml"))
            small = "--backbone resnet18 --image-size-px 32 --hidden-dim 32 --epochs 2"
            kept = f"{root}/clean/kept"
            jobs = {
                "crawl": f"--stores {root}/stores.yaml --only demo --taxonomy {root}/taxonomy.csv --output {root}/got "
                f"--allow-private {shop.place} --timeout-s 3 --retries 1 --backoff-s 0.1 --no-pictures",
                "fetch": f"--catalog {root}/got/urls --output {root}/catalog --allow-private {shop.place}",
                "train": f"zoom --catalog {root}/catalog --output {root}/zoom --pictures 200 --epochs 2",
                "filter": f"--catalog {root}/catalog --model {root}/zoom --output {root}/clean",
                "duplicates": f"--catalog {kept} --output {root}/checked",
                "train ": f"encoder-decoder --catalog {root}/checked/catalog --output {root}/model {small}",
                "score": f"--catalog {kept} --model {root}/model --output {root}/run",
                "evaluate": f"--run {root}/run",
                "score ": f"--catalog {kept} --model {root}/model --output {root}/within --within Women",
                "compare": f"{root}/run {root}/within --output {root}/compared",
                "taxonomy": f"diff {root}/taxonomy.csv {root}/taxonomy.csv --output {root}/changes.json",
                "embed": f"--catalog {kept} --model {root}/model --output {root}/vectors",
                "serve": f"--model {root}/model --tokens {line} --port {port}",
            }
            for name, flags in jobs.items():
                command = ["ray", "job", "submit", "--working-dir", ".", "--runtime-env-json", EXCLUDES, "--"]
                command += ["python", f"jobs/{name.strip()}.py", *flags.split()]
                started = time.monotonic()
                done = subprocess.run(command, env=cluster.submitting, cwd=ROOT, capture_output=True, text=True)
                print(f"jobs/{name.strip()}.py: exit {done.returncode}, {time.monotonic() - started:.0f} s", flush=True)
                if done.returncode:
                    bad.append(name)
                    print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
            with Client(f"http://127.0.0.1:{port}", bearer) as client:
                picture = next((root / "catalog" / "pictures").rglob("*.jpg"))
                (found,) = client.categorize([picture])
                assert isinstance(found, Categorized), found
                print(f"the endpoint answers: {' > '.join(found.category_path)}")
    sys.exit(f"failed: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
