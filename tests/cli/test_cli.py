import subprocess
import sys
import time
from pathlib import Path

import pytest

from atlas_ray import cli
from atlas_ray.cli.main import COMMANDS, main

pytestmark = pytest.mark.long


def test_help_answers_at_once() -> None:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "atlas_ray", "--help"], capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        assert done.returncode == 0
        for command in ("import", "taxonomy", "train", "score", "evaluate", "demo"):
            assert command in done.stdout
    assert min(times) < 0.3


def test_importing_does_nothing() -> None:
    code = (
        "import sys, os; before = set(os.listdir('.'))\n"
        "import atlas_ray.scoring.run, atlas_ray.training.run, atlas_ray.prediction.paths, ray, torch\n"
        "assert not ray.is_initialized() and not torch.cuda.is_initialized()\n"
        "assert set(os.listdir('.')) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_taxonomy_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["taxonomy", "show", "atlas-52", "--within", "Women > Ethnic Wear"]) == 0
    out = capsys.readouterr().out
    assert "└─ Ethnic Wear" in out
    assert "9 leaves" in out
    assert "level 3: 9 nodes" in out
    assert main(["taxonomy", "check", "atlas-52"]) == 0
    assert capsys.readouterr().out.startswith("atlas-52: 52 leaves, 60 nodes")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["taxonomy", "check", "nothing.csv"], "nothing.csv: no such file"),
        (["taxonomy", "show", "atlas-52", "--within", "Kids"], "'Kids' is not in the taxonomy"),
        (["taxonomy", "diff", "atlas-52", "atlas-52", "--mapping", "nothing.csv"], "nothing.csv: no such file"),
        (
            ["taxonomy", "migrate", "--old", "a", "--new", "b", "--output", "out"],
            "nothing to migrate; name a",
        ),
        (["import", "nothing.csv", "--output", "out"], "nothing.csv: no such file"),
        (["import", "nothing.csv", "--output", "out", "--map", "title"], "--map 'title'; expected FIELD=COLUMN"),
        (["score", "--catalog", "none", "--model", "none", "--output", "out", "--top-k", "0"], "--top-k is 0"),
        (["train", "encoder-decoder", "--catalog", "c", "--output", "o", "--backbone", "vgg"], "--backbone is 'vgg'"),
        (
            ["train", "encoder-decoder", "--catalog", "c", "--output", "o", "--workers", "99"],
            "99 workers cannot share",
        ),
        (["evaluate", "--run", "nothing"], "is no finished scoring run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_command_has_a_module_and_takes_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (name for group in COMMANDS.values() for name in group):
        with pytest.raises(SystemExit) as ended:
            main([*name.split(), "--help"])
        assert ended.value.code == 0
        assert f"usage: atlas-ray {name}" in capsys.readouterr().out


def test_every_module_is_of_a_command() -> None:
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")} - {"__init__", "main", "command"}
    assert modules == {command.module for group in COMMANDS.values() for command in group.values()}


def test_there_is_a_job_for_each_verb_that_starts_ray() -> None:
    verbs = {"crawl", "fetch", "filter", "duplicates", "train", "tune", "calibrate", "score", "evaluate"}
    verbs |= {"evaluate-labels", "embed", "compare", "taxonomy", "serve", "update", "optimize"}
    jobs = Path(cli.__file__).parents[2] / "jobs"
    assert {path.stem.replace("_", "-") for path in jobs.glob("*.py")} == verbs
    for verb in verbs:
        assert f'sys.exit(main(["{verb}", ' in (jobs / f"{verb.replace('-', '_')}.py").read_text()
