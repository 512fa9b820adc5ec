"""What is in quarantine for a passing reason, taken out of a run, at whatever step the command was killed."""

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.errors import OutputError
from atlas_ray.io import storage
from atlas_ray.runs.run_record import write_run
from atlas_ray.runtime import checkpoint
from atlas_ray.runtime.checkpoint import reopen, rows_done

FOLDERS = ("predictions", "quarantine")
CODES = {4: "not_found", 5: "server_error", 6: "corrupt", 7: "timeout", 8: "bad_credentials", 9: "forbidden"}


@pytest.fixture
def output(tmp_path: Path) -> str:
    """A finished run: 0-3 have answers, 2 and 3 without their picture, 4-9 are in quarantine."""
    picture_errors = {0: None, 1: None, 2: "timeout: no answer", 3: "corrupt: timeout"}
    tables = {
        "predictions/a": {"image_id": list(picture_errors), "picture_error": list(picture_errors.values())},
        "quarantine/a": {"image_id": list(CODES)[:2], "error_code": list(CODES.values())[:2]},
        "quarantine/b": {"image_id": list(CODES)[2:], "error_code": list(CODES.values())[2:]},
        "quarantine/c": {"image_id": [10], "error_code": ["unreachable"]},
        "checkpoint/a": {"image_id": [0, 1, 2, 3, 4, 5]},
        "checkpoint/b": {"image_id": [6, 7, 8, 9]},
        "checkpoint/c": {"image_id": [10]},
    }
    for name, columns in tables.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    write_run(str(tmp_path), "score", 0.0, {"quarantined_by_code": {"server_error": 1}})
    return str(tmp_path)


def ids(output: str, table: str) -> list[int]:
    found: list[int] = pq.read_table(f"{output}/{table}")["image_id"].to_pylist()
    return sorted(found)


def assert_taken_out(output: str) -> None:
    assert ids(output, "predictions") == [0, 1, 3]
    assert ids(output, "quarantine") == [4, 6, 9]
    assert ids(output, "checkpoint") == [0, 1, 3, 4, 6, 9]
    assert rows_done(output) == 6
    assert not storage.exists(f"{output}/run.json")
    assert not storage.exists(f"{output}/{checkpoint.RETRIED}")


def test_a_finished_run_is_left_alone_unless_told(output: str) -> None:
    run = reopen(output, FOLDERS, retry_failed=False)
    assert run is not None
    assert run["job"] == "score"
    assert rows_done(output) == 11


def test_what_may_pass_is_taken_out(output: str) -> None:
    assert reopen(output, FOLDERS, retry_failed=True) is None
    assert_taken_out(output)
    assert reopen(output, FOLDERS, retry_failed=True) is None
    assert_taken_out(output)


def test_a_finished_run_without_such_rows_stays_finished(output: str) -> None:
    assert reopen(output, FOLDERS, retry_failed=True) is None
    write_run(output, "score", 0.0, {})
    run = reopen(output, FOLDERS, retry_failed=True)
    assert run is not None
    assert rows_done(output) == 6


@pytest.mark.parametrize("step", range(12))
def test_a_kill_at_any_step_loses_nothing(output: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = step
    for name in ("write_bytes", "write_table", "delete_file"):

        def stopped(*arguments: object, name: str = name, function: object = getattr(storage, name)) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            function(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(storage, name, stopped)
    with contextlib.suppress(KeyboardInterrupt):
        reopen(output, FOLDERS, retry_failed=True)
    monkeypatch.undo()
    finished = storage.exists(f"{output}/run.json")
    if finished:  # the same command without the flag finds a run that is whole
        assert rows_done(output) == 11
        assert len(ids(output, "quarantine")) == 7
    assert (reopen(output, FOLDERS, retry_failed=finished)) is None
    assert_taken_out(output)


def test_a_run_that_kept_no_checkpoint_is_refused(output: str) -> None:
    storage.delete_folder(f"{output}/checkpoint")
    with pytest.raises(OutputError, match="kept no checkpoint"):
        reopen(output, FOLDERS, retry_failed=True)
    assert len(ids(output, "quarantine")) == 7
