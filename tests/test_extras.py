"""Packages that not every command needs: the core works without them, and who lacks one is told its extra."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import atlas_ray
from atlas_ray.errors import EXTRA_OF

pytestmark = pytest.mark.long

CORE = (
    "catalog.importer", "catalog.selection", "training.run", "training.fusion", "scoring.run", "evaluation.paths",
    "evaluation.review", "evaluation.comparison", "evaluation.calibration", "migration.run", "reports.terminal",
    "client",
)  # fmt: skip
BY_RAY = {"google.cloud", "uvloop"}
"""Modules of extras that Ray imports by itself where they are installed."""


def without(*modules: str) -> str:
    """Return code that makes modules look as if they were not installed."""
    return "import sys; sys.modules.update(dict.fromkeys(" + repr(modules) + "))\n"


def test_the_core_imports_no_extra() -> None:
    code = "import sys\n" + "".join(f"import atlas_ray.{name}\n" for name in CORE)
    code += f"print(*({set(EXTRA_OF) - BY_RAY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("crawl --stores {stores} --output {out}", "cssselect", "crawl"),
        ("fetch --catalog {out} --output {out}2", "aiohttp", "fetch"),
        ("serve --model m --allow-anonymous", "fastapi", "serve"),
    ],
)
def test_who_lacks_an_extra_is_told_it(command: str, module: str, extra: str, tmp_path: Path) -> None:
    stores = tmp_path / "stores.yaml"
    stores.write_text("stores: []\n")
    words = command.format(stores=stores, out=tmp_path / "out").split()
    code = without(module) + f"from atlas_ray.cli.main import main\nsys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.endswith(f": {module} is not installed; pip install 'atlas-ray[{extra}]' brings it\n")
    assert done.stderr.count("\n") == 1


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(atlas_ray.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(EXTRA_OF.values()) <= project["optional-dependencies"].keys()
