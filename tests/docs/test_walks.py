"""Pages whose commands and code build on one another: what they show is run, from the first block to the last."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from atlas_ray.cli.main import main
from tests.support.endpoint import endpoint
from tests.support.parts import picture

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, within: str) -> list[tuple[str, str]]:
    """Return the language and the text of each block of a page, or of each cell of a notebook."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if page.endswith(".ipynb"):
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return [("bash" if cell.startswith("!") else "python", re.sub("^!", "", cell, flags=re.M)) for cell in cells]
    if within:
        text = text.partition(f"\n## {within}\n")[2].partition("\n## ")[0]
        assert text, f"{page} has no section {within!r}"
    return BLOCK.findall(text)


def walk(page: str, replaced: Mapping[str, str] | None = None, within: str = "") -> dict[str, Any]:
    """Run the blocks of a page in the current folder; return the names of its Python.

    Args:
        page: Its file, below `docs/`; of a notebook the cells are run.
        replaced: Texts in the blocks, and what stands for them.
        within: The heading of the only section to run.
    """
    names: dict[str, Any] = {"__name__": "walk"}
    for language, block in blocks(page, within):
        for text, other in (replaced or {}).items():
            block = block.replace(text, other)
        if language == "python":
            exec(compile(block, page, "exec"), names)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "atlas-ray", line
            assert main(arguments) == 0, line
    return names


@pytest.mark.usefixtures("local_ray")
def test_from_python(
    small_model: str, catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(small_model)
    Path("catalog").symlink_to(catalog)
    Path("shirt.jpg").write_bytes(picture(0))
    assert main(["score", "--catalog", catalog, "--model", "model", "--output", "run"]) == 0
    with endpoint("--model=model", "--allow-anonymous") as served:
        names = walk("getting-started/python.md", {"http://127.0.0.1:8000": served.url})
    assert names["unsure"]
    assert names["refused"][1].code == "not_an_image"
    assert names["answer"].category_path == tuple(names["best"]["category_path"])
    assert "atlas-52: 52 leaves" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_readme(small_model: str, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    walk(
        "../README.md",
        {"products.csv": f"{shop}/products.jsonl", "train text": "train text --epochs 2 --embedding-dim 16"},
        within="Your catalogue in five commands",
    )
    assert Path("review", "queue.csv").exists()
    Path("model").rename("titles")
    Path("model").symlink_to(small_model)
    Path("shirt.jpg").write_bytes(picture(0))
    names = walk("../README.md", within="From Python")
    assert names["answers"].num_rows == 1
    assert names["refused"] == {}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_picture_and_a_title_know_more_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = walk("tutorials/picture-and-text.ipynb")
    right = names["right"]
    assert right["fused", "products"] > max(right["title", "products"], right["picture", "products"])
    assert right["fused", "jackets"] > right["title", "jackets"]
    assert names["lost"]
