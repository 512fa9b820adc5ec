"""An output belongs to one command at a time: on disk and in S3, over kills, and with real processes that race."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from atlas_ray.errors import LeaseLostError, OutputError, StorageError
from atlas_ray.io import lease, storage
from atlas_ray.io.lease import LEASE, hold, holding

pytestmark = pytest.mark.long

HOLD = """
import sys, time
from atlas_ray.io import lease
from atlas_ray.errors import RunError, UserError
from atlas_ray.runtime.stops import stoppable
lease.RENEW_S, lease.STALE_S, lease.POLL_S = 0.2, 2.0, 0.05
_, output, seconds = sys.argv
print("ready", flush=True)
sys.stdin.readline()
try:
    with stoppable(), lease.hold(output, "work"):
        print("has it", flush=True)
        time.sleep(float(seconds))
        print("done", flush=True)
except (UserError, RunError) as error:
    print(type(error).__name__, error, flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def holder(output: str, seconds: float = 60, *, go: bool = True) -> "subprocess.Popen[str]":
    """Start a process that takes the output; without `go` it waits for a line first."""
    command = [sys.executable, "-c", HOLD, output, str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert next_line(process) == "ready"
    if go:
        say_go(process)
    return process


def say_go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def change(output: str, **values: Any) -> None:
    """Rewrite a lease, as if another machine had written it."""
    uri = storage.join(output, LEASE)
    storage.write_bytes(uri, json.dumps(json.loads(storage.read_bytes(uri)) | values).encode())


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "deep" / "run")
    return f"{request.getfixturevalue('s3')}/lease/{tmp_path.name}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW_S", 0.2), ("STALE_S", 1.0), ("POLL_S", 0.05)):
        monkeypatch.setattr(lease, name, seconds)


def test_a_second_command_is_told_who_holds_the_output(output: str) -> None:
    with hold(output, "score"):
        found = json.loads(storage.read_bytes(storage.join(output, LEASE)))
        assert (found["verb"], found["process"]) == ("score", os.getpid())
        process = holder(output)
        said = next_line(process)
        assert process.wait(20) == 0
    assert said.startswith(f"OutputError {output} is in use by `score`, process {os.getpid()} on ")
    assert found["since"] in said
    assert storage.files(output) == []


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_lets_go_of_the_output(output: str, error: BaseException) -> None:
    with pytest.raises(type(error)), hold(output, "score"):
        raise error
    with hold(output, "score"):
        pass


def test_the_same_thread_may_ask_again_and_others_may_not(output: str) -> None:
    refused: list[Exception] = []

    def other() -> None:
        try:
            with hold(output, "fetch"):
                pass
        except OutputError as error:
            refused.append(error)

    with hold(output, "crawl"):
        with hold(output, "import"), hold(storage.join(output, "urls"), "import"):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(20)
        assert storage.exists(storage.join(output, LEASE))
    assert len(refused) == 1
    assert not storage.exists(storage.join(output, LEASE))


def test_one_of_two_that_start_together_is_refused(output: str) -> None:
    for _ in range(2):
        pair = [holder(output, 0.8, go=False) for _ in range(2)]
        for process in pair:
            say_go(process)
        said = [process.communicate(timeout=30)[0].split() for process in pair]
        assert sorted(words[0] for words in said) == ["OutputError", "has"]


def test_a_killed_command_is_taken_over_at_once(output: str) -> None:
    process = holder(output)
    assert next_line(process) == "has it"
    process.kill()  # not waited for: what is left of it is a zombie
    time.sleep(0.2)
    began = time.monotonic()
    with hold(output, "score"):
        assert time.monotonic() - began < 1.5
    process.wait(20)


def test_a_process_of_the_same_number_is_another_one(output: str) -> None:
    with hold(output, "score"):
        content = storage.read_bytes(storage.join(output, LEASE))
    storage.write_bytes(storage.join(output, LEASE), content)
    change(output, process_started="1")
    with hold(output, "score"):
        pass


@pytest.mark.parametrize("content", [b"", b'{"verb": "sco', b"\x00\xff"])
def test_a_lease_that_was_cut_off_is_nobodys(output: str, content: bytes) -> None:
    storage.write_bytes(storage.join(output, LEASE), content)
    with hold(output, "score"):
        pass


@pytest.mark.parametrize("content", [b"{}", b"[1]", b'{"tenant": "a flat"}'])
def test_what_is_no_lease_is_left_alone(output: str, content: bytes) -> None:
    uri = storage.join(output, LEASE)
    storage.write_bytes(uri, content)
    with pytest.raises(OutputError, match="none of atlas-ray's"), hold(output, "score"):
        pass
    assert storage.read_bytes(uri) == content


@pytest.mark.usefixtures("quick")
def test_a_silent_command_of_another_machine_is_given_up_and_a_live_one_is_not(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold(output, "score"):
        content = storage.read_bytes(storage.join(output, LEASE))
    storage.write_bytes(storage.join(output, LEASE), content)
    change(output, machine="another", host="elsewhere", process=1)
    began = time.monotonic()
    with hold(output, "score"):
        assert time.monotonic() - began >= 1.0
    assert "process 1 on elsewhere" in capsys.readouterr().err

    storage.write_bytes(storage.join(output, LEASE), content)
    change(output, machine="another", host="elsewhere", process=1)
    renewing = threading.Timer(0.5, change, (output,), {"renewals": 1})
    renewing.start()
    with pytest.raises(OutputError, match="process 1 on elsewhere"), hold(output, "score"):
        pass
    renewing.join()


def test_of_two_that_take_over_one_wins(output: str) -> None:
    for number in range(2):
        with hold(output, "score"):
            content = storage.read_bytes(storage.join(output, LEASE))
        storage.write_bytes(storage.join(output, LEASE), content)
        # A dead process of this machine, and one of another machine that both have to wait for.
        change(output, **({"process_started": "1"} if number else {"machine": "another"}))
        pair = [holder(output, 1.5, go=False) for _ in range(2)]
        for process in pair:
            say_go(process)
        said = [process.communicate(timeout=30)[0].split() for process in pair]
        assert sorted(words[0] for words in said) == ["OutputError", "has"]


@pytest.mark.usefixtures("quick")
def test_a_command_that_lost_the_output_stops(output: str) -> None:
    @holding("score", "uri")
    def work(uri: str) -> None:
        change(uri, lease="another", process=77, host="elsewhere")
        time.sleep(20)

    began = time.monotonic()
    with pytest.raises(LeaseLostError, match="process 77 on elsewhere"):
        work(output)
    assert time.monotonic() - began < 5
    assert json.loads(storage.read_bytes(storage.join(output, LEASE)))["lease"] == "another"


@pytest.mark.usefixtures("quick")
def test_a_lease_that_somebody_deleted_is_written_anew(output: str) -> None:
    with hold(output, "score"):
        storage.delete_file(storage.join(output, LEASE))
        time.sleep(1)
        assert storage.exists(storage.join(output, LEASE))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_lets_go_of_the_output(output: str, number: signal.Signals) -> None:
    process = holder(output)
    assert next_line(process) == "has it"
    process.send_signal(number)
    assert next_line(process) == "stopped"
    assert process.wait(20) == 0
    assert not storage.exists(storage.join(output, LEASE))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for output in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "s3://bucket-that-is-not-there/run"):
        with pytest.raises(StorageError, match=output.rpartition("/")[2]), hold(output, "score"):
            pass


def test_a_function_holds_the_output_that_its_arguments_name(tmp_path: Path) -> None:
    @holding("evaluate", "output", "run")
    def evaluate(run: str, output: str | None = None) -> list[str]:
        return [name for name in ("a", "b") if (tmp_path / name / LEASE).exists()] + [run]

    assert evaluate(str(tmp_path / "a")) == ["a", str(tmp_path / "a")]
    assert evaluate(output=str(tmp_path / "b"), run="x") == ["b", "x"]
    assert list(tmp_path.iterdir()) == []
