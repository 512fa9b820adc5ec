"""The benchmark of what runs beside the model, at a size of seconds; and what its processes import."""

from pathlib import Path

import pytest

from benchmarks import overhead


@pytest.mark.slow  # it looks at processes now and then, and needs a quiet machine to see each
def test_only_the_process_with_the_model_has_pytorch(catalog: str, small_model: str, tmp_path: Path) -> None:
    moments = tmp_path / "moments"
    found, wall = overhead.run(
        catalog, small_model, str(tmp_path / "run"), stub=False, **{overhead.MARKS: str(moments)}
    )
    assert {"driver", "raylet", "gcs", "progress", "fetch", "predict", "write"} <= found.cpu_s.keys()
    assert found.with_torch == {"driver", "predict"}
    assert max(mib for kind, mib in found.mib.items() if kind not in ("driver", "predict")) < 300
    assert sum(found.cpu_s.values()) > found.cpu_s["driver"] > 0.5
    phases = overhead.phases(moments.read_text())
    assert {"Ray started", "model loaded and warm", "first answer"} <= {moment for _, moment in phases}
    assert phases[0] == (0.0, "Python started")
    assert phases[-1][0] < wall


def test_a_table_from_two_sizes_and_a_slow_run() -> None:
    first, second, slow = (overhead.Processes(0) for _ in range(3))
    first.cpu_s |= {"driver": 3.0, "predict": 10.0}
    second.cpu_s |= {"driver": 5.0, "predict": 50.0}
    slow.cpu_s |= {"driver": 4.0, "predict": 10.0}
    second.mib |= {"driver": 200.0, "predict": 700.0}
    rows = overhead.table([1000, 5000], [first, second], (slow, 10.0))
    assert rows == [
        ["driver", 2.5, 0.5, 0.1, 200.0],
        ["predict", 0.0, 10.0, 0.0, 700.0],
        ["beside", 2.5, 0.5, 0.1, 200.0],
    ]


def test_moments_are_in_their_order_and_each_counts_once() -> None:
    assert overhead.phases("3.5 b\n2.0 a\n9.0 b\n") == [(0.0, "a"), (1.5, "b")]
