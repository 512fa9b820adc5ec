"""The examples, as a reader runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

import atlas_ray

pytestmark = pytest.mark.long

EXAMPLES = Path(atlas_ray.__file__).parents[1] / "examples"


def example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(shop: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for picture in sorted((Path(shop).parent / "images").iterdir())[:3]:
        (folder / picture.name).write_bytes(picture.read_bytes())
    (folder / "zz.jpg").write_bytes(b"no picture")
    return folder


def test_pictures_of_a_folder(small_model: str, folder: Path) -> None:
    done = example("score_folder.py", small_model, str(folder))
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == sorted(path.name for path in folder.iterdir())
    assert rows[-1][1] == "not_an_image"
    assert all(" > " in row[1] and 0 < float(row[2]) <= 1 for row in rows[:-1])


def test_an_engine_of_its_own(small_model: str, folder: Path) -> None:
    files = sorted(str(path) for path in folder.iterdir())
    done = example("custom_engine.py", small_model, *files)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["torch"] * len(files) + ["parts"] * len(files)
    assert [row[1:] for row in rows[: len(files)]] == [row[1:] for row in rows[len(files) :]]
    assert rows[-1][2] == "refused"


@pytest.mark.slow
def test_a_backbone_of_its_own(catalog: str, tmp_path: Path) -> None:
    done = example("custom_backbone.py", catalog, str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
