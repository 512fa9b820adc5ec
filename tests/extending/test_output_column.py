"""A column is added as its page says: the page's diff is applied to a copy of the package, which then scores."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import atlas_ray
from tests.docs.test_walks import DOCS

PAGE = "extending/output-column.md"


def block(language: str) -> str:
    """Return the page's one block of a language."""
    text = (DOCS / PAGE).read_text()
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.long
def test_a_column_is_a_change_of_three_files(folder: Path, catalog: str) -> None:
    diff = block("diff")
    assert len(re.findall(r"^\+\+\+ ", diff, re.MULTILINE)) <= 3
    copy = folder / "copy"
    shutil.copytree(Path(atlas_ray.__file__).parent, copy / "atlas_ray", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", "-"], input=diff.encode(), cwd=copy, check=True)

    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(copy)}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    (margin,) = eval(run("-c", block("python")))
    assert 0 <= margin <= 1
    run("-m", "atlas_ray", "score", "--catalog", catalog, "--model", "model", "--output", "run")
    predictions, products = (pq.read_table(folder / "run" / name) for name in ("predictions", "products"))
    assert predictions["margin"].null_count == 0
    for row in products.to_pylist():
        if row["category_path"] is None:
            assert row["margin"] is None
            continue
        own = [one["margin"] for one in predictions.to_pylist() if one["product_id"] == row["product_id"]]
        assert abs(row["margin"] - sum(own) / len(own)) < 1e-5
    shown = "from atlas_ray.serving.documents import Answered; print('margin' in Answered.model_fields)"
    assert run("-c", shown) == "True\n"
