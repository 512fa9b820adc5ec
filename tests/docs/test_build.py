"""The documentation as Sphinx builds it: links between pages hold, and the reference lists what there is."""

import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import atlas_ray
from atlas_ray.cli.main import command_parsers
from atlas_ray.errors import CODES
from atlas_ray.runs.run_record import KEYS
from docs import generate

pytestmark = pytest.mark.long

ROOT = Path(atlas_ray.__file__).parent.parent


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build a folder of pages with the documentation's own settings; warnings are errors."""
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-c",
        str(ROOT / "docs"),
        str(source),
        str(target),
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_every_command_and_flag_is_in_the_reference(site: Path) -> None:
    page = unescape((site / "reference" / "cli.html").read_text())
    for name, parser in command_parsers().items():
        if parser._subparsers is None:
            assert f"atlas-ray {name}<" in page
            for flag in parser._option_string_actions:
                assert flag in ("-h", "--help") or f">{flag}<" in page, f"{name} {flag}"


def test_every_code_column_and_key_is_in_the_reference(site: Path) -> None:
    errors = (site / "reference" / "errors.html").read_text()
    assert all(f">{code}<" in errors for code in CODES)
    tables = (site / "reference" / "tables.html").read_text()
    for name, schema in generate.tables().items():
        assert f"<h2>{name}" in tables
        assert all(f">{column}<" in tables for column in schema.names)
    assert {"products", "predictions", "quarantine", "evaluation/levels"} <= generate.tables().keys()
    run = (site / "reference" / "run-json.html").read_text()
    assert all(f">{key}<" in run for key in KEYS)


def test_every_route_and_settings_class_is_in_the_reference(site: Path) -> None:
    routes = (site / "reference" / "http-api.html").read_text()
    for path, methods in generate.openapi()["paths"].items():
        assert all(f"{method.upper()} {path}<" in routes for method in methods)
    assert "POST /v1/categorize<" in routes
    kinds = [kind.__name__ for kind in generate.settings_classes()]
    settings = (site / "reference" / "settings.html").read_text()
    assert {"ScoreConfig", "PredictorConfig", "ServeConfig", "FetchConfig"} <= set(kinds)
    assert all(f"<h2>{kind}<" in settings for kind in kinds)


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# Pages\n\n[gone](gone.md) and [here](#pages)\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert "gone.md" in done.stderr
    assert "pages" not in done.stderr.replace("index", "")
