"""What ends a command early: signals, full disks, and mistakes that are told before Ray starts."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from atlas_ray.cli import import_
from atlas_ray.cli.main import main
from atlas_ray.runtime.stops import STOPS, kept_handlers, stoppable
from tests.support.inputs import free_port

pytestmark = pytest.mark.long

TRAIN = "--epochs 50 --batch-size 16 --backbone resnet18 --image-size-px 32 --weights none"


def command(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "atlas_ray", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip


def wait_until(there: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 120
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def left_behind(output: Path) -> list[str]:
    return [path.name for path in output.rglob("*") if path.name == "lease.json" or path.name.endswith(".partial")]


def test_a_stopped_scoring_says_that_it_goes_on_and_needs_no_home_and_no_short_temporary_folder(
    catalog: str, small_model: str, tmp_path: Path
) -> None:
    output, long = tmp_path / "run", tmp_path / ("x" * 150)  # a socket's path has 107 bytes
    long.mkdir()
    arguments = ("score", "--catalog", catalog, "--model", small_model, "--output", str(output))
    process = command(*arguments, HOME="/proc/no-home", TMPDIR=str(long))
    wait_until((output / "checkpoint").exists, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "atlas-ray score: stopped; the same command goes on from here\n")
    assert left_behind(output) == []
    assert list(long.iterdir()) == []


def test_a_stopped_training_says_the_same(catalog: str, tmp_path: Path) -> None:
    output = tmp_path / "model"
    process = command("train", "classifier", "--catalog", catalog, "--output", str(output), *TRAIN.split())
    wait_until((output / "checkpoints").exists, process)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "atlas-ray train: stopped; the same command goes on from here\n")
    assert left_behind(output) == []


def test_what_does_not_go_on_says_just_that_it_stopped(shop: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    products = ({"product_id": str(number), "image": "https://x.example/1.jpg"} for number in range(300_000))
    rows.write_text("".join(f"{json.dumps(product)}\n" for product in products))
    output = tmp_path / "catalog"
    process = command("import", str(rows), "--output", str(output))
    wait_until((output / "unfinished.json").exists, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, "atlas-ray import: stopped\n")
    assert [path.name for path in output.rglob("*") if path.is_file()] == ["unfinished.json"]


def test_a_full_disk_ends_an_import_with_a_line(shop: str, full_disk: Path) -> None:
    rows = full_disk.parent / "many.jsonl"
    products = ({"product_id": f"{n:09d}", "image_uris": ["a.jpg"], "title": os.urandom(99).hex()} for n in range(5000))
    rows.write_text("".join(json.dumps(product) + "\n" for product in products))
    process = command("import", str(rows), "--output", str(full_disk / "catalog"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    told = errors.splitlines()[-1]
    table = rf"atlas-ray import: {full_disk}/catalog/products/part-00000-[0-9a-f]{{16}}\.parquet: no space left"
    assert re.match(table, told)
    assert "Traceback" not in errors
    assert left_behind(full_disk) == []


def test_an_endpoint_ends_without_a_word(small_model: str) -> None:
    port = str(free_port())
    process = command("serve", "--model", small_model, "--port", port, "--allow-anonymous")
    assert process.stdout is not None
    address = f"http://127.0.0.1:{port}"
    assert process.stdout.readline() == f"serving at {address}; its page: {address}/; stop with Ctrl-C\n"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=90)
    assert (process.returncode, output) == (0, "")
    assert all(line.startswith("INFO ") for line in errors.splitlines())  # Serve's own, of its start


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("score --catalog {tmp}/no --model {model} --output {tmp}/out", "no"),
        ("score --catalog {catalog} --model {tmp}/no --output {tmp}/out", "no"),
        ("fetch --catalog {tmp}/no --output {tmp}/out", "no"),
        ("filter --catalog {catalog} --model {model} --output {tmp}/out", "model"),
        ("embed --catalog {catalog} --model {tmp}/no --output {tmp}/out", "no"),
        ("duplicates --catalog {tmp}/no --output {tmp}/out", "no"),
        ("compare {tmp}/no {tmp}/no --output {tmp}/out", "no"),
        ("calibrate --catalog {tmp}/no --model {model}", "no"),
        ("evaluate-labels --catalog {catalog} --picture {tmp}/no --output {tmp}/out", "no"),
        ("train classifier --catalog {tmp}/no --output {tmp}/out", "no"),
        ("train fusion --catalog {catalog} --picture {tmp}/no --title {tmp}/no --output {tmp}/out", "no"),
        ("tune classifier --catalog {tmp}/no --output {tmp}/out", "no"),
        ("taxonomy migrate --catalog {tmp}/no --old atlas-52 --new atlas-52 --output {tmp}/out", "no"),
        ("crawl --stores {tmp}/no --output {tmp}/out", "no"),
    ],
)
def test_a_wrong_path_is_told_before_ray_starts(
    arguments: str, reason: str, catalog: str, small_model: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import ray

    from atlas_ray.cli.main import main

    def start(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    given = arguments.format(tmp=tmp_path, catalog=catalog, model=small_model).split()
    assert main(given) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert f"/{reason}" in told or str(small_model) in told
    assert not (tmp_path / "out").exists()


def test_signals_that_are_ignored_stay_so_and_handlers_come_back() -> None:
    before = {number: signal.getsignal(number) for number in STOPS}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            with kept_handlers():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a library may
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in STOPS} == before


def test_what_a_library_makes_of_a_stop_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped_in_an_import(_: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ImportError("as NumPy says it") from None
        return 0

    monkeypatch.setattr(import_, "run", stopped_in_an_import)
    assert main(["import", "rows.jsonl", "--output", "nowhere"]) == 1
    assert capsys.readouterr().err == "atlas-ray import: stopped\n"
