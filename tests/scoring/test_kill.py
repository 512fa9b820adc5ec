"""SIGKILL of the driver, of a scoring process and of a node's Ray; then the same command again."""

import json
import random
from pathlib import Path

import pytest

from tests.support.kills import Bench

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(str(tmp_path_factory.mktemp("kill")), 800, "resnet18", 64)


# With a node's Ray its actors die, too.
@pytest.mark.parametrize(
    "kind", ["driver", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("actor", "raylet"))]
)
def test_nothing_is_lost_and_nothing_twice(bench: Bench, kind: str) -> None:
    line = bench.case(kind, random.random(), kind)
    assert "lost 0, twice 0, tables equal" in line
    counts = json.loads((Path(bench.scratch) / kind / "run.json").read_text())["counts"]
    assert (counts["input"], counts["repeated_input_rows"]) == (bench.count, 0)
    assert not (Path(bench.scratch) / kind / "checkpoint").exists()
