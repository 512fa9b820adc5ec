"""The life of a job: what it claims, pins, recognises, and leaves behind."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from atlas_ray.errors import OutputError
from atlas_ray.runs.run_record import read_run
from atlas_ray.runtime.job import Job


@dataclass(frozen=True)
class Sorting:
    output: str
    retry_failed: bool = False


def claim(output: Path, *, retry_failed: bool = False) -> Job:
    config = Sorting(str(output), retry_failed)
    return Job("sort", config, streams=("notes", "quarantine"), makes=("sums",), scratch=("notes",))


def sort(output: Path, letters: str = "abc", *, retry_failed: bool = False, **fields: object) -> bool:
    """Run a job to its end; tell whether it was finished before."""
    with claim(output, retry_failed=retry_failed) as job:
        assert json.loads((output / "lease.json").read_bytes())["verb"] == "sort"
        job.pin({"letters": letters})
        if (report := job.finished()) is not None:
            return report.already_done
        for name in ("notes", "checkpoint"):
            (output / name).mkdir(exist_ok=True)
        (output / "sums").write_text(letters)
        return job.finish({"counts": {}, **fields}).already_done


def test_a_job_runs_once_and_cleans_up(tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert not sort(output)
    assert sort(output)
    assert {path.name for path in output.iterdir()} == {"sort.json", "run.json", "sums"}
    run = read_run(str(output)) or {}
    assert (run["job"], run["identity"]) == ("sort", {"letters": "abc"})
    assert run["config"] == {"output": str(output), "retry_failed": False}
    assert run["seconds"]["total"] >= 0


def test_what_is_needed_to_ask_again_stays(tmp_path: Path) -> None:
    sort(tmp_path, quarantined_by_code={"timeout": 1})
    assert (tmp_path / "notes").exists()
    assert (tmp_path / "checkpoint").exists()


def test_an_account_that_is_not_current_is_forgotten(tmp_path: Path) -> None:
    sort(tmp_path)
    with claim(tmp_path) as job:
        assert job.finished(lambda run: "letters" in run) is None
    assert read_run(str(tmp_path)) is None


def test_a_job_below_an_output_owns_all_of_it(tmp_path: Path) -> None:
    with Job("sort", Sorting(str(tmp_path)), below="part") as job:
        assert job.output == f"{tmp_path}/part"
        assert (tmp_path / "lease.json").exists()


@pytest.mark.parametrize("name", ["model.json", "taxonomy.json", "products", "images", "predictions"])
def test_what_is_no_output_of_a_job_is_refused(tmp_path: Path, name: str) -> None:
    sort(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(OutputError, match=f"holds a model or a catalogue .{name}.; sort into a folder of its own"):
        sort(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "notes", "quarantine", "sums"])
def test_what_another_job_made_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(OutputError, match=f"holds {name} of another origin; sort into a new folder"):
        sort(tmp_path)


def test_other_settings_and_the_source_itself_are_refused(tmp_path: Path) -> None:
    sort(tmp_path)
    with pytest.raises(OutputError, match="holds a run with letters = 'abc', this one has 'd'"):
        sort(tmp_path, "d")
    with (
        Job("sort", Sorting(str(tmp_path))) as job,
        pytest.raises(OutputError, match="is the catalogue itself; sort into a folder of its own"),
    ):
        job.pin({"catalog": str(tmp_path)})
