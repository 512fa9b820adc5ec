"""The benchmark of scale at a size of seconds: a run that was stopped after its stream, resumed and audited."""

from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import score_scale


def test_a_stopped_run_scores_what_was_taken_back(local_ray: None, tmp_path: Path, small_model: str) -> None:
    catalog, output = tmp_path / "catalog", tmp_path / "run"
    score_scale.write_catalog(catalog, 400)
    first = score_scale.score(
        str(catalog), small_model, str(output), stop=True, batch_size=16, rows_per_file=64, workers=1
    )
    assert not (output / "run.json").exists()
    assert first["plan"] <= first["stream"]
    before = sorted((output / "checkpoint").iterdir())
    score_scale.take_back(output)
    second = score_scale.score(
        str(catalog), small_model, str(output), stop=False, batch_size=16, rows_per_file=64, workers=1
    )
    assert set(score_scale.PHASES) - {"resume"} <= second.keys()
    kept = [file for file in sorted((output / "predictions").iterdir()) if file.name in {one.name for one in before}]
    assert len(kept) == len(before) - 1
    ids = [
        row for table in ("predictions", "quarantine") for row in pq.read_table(output / table)["image_id"].to_pylist()
    ]
    assert len(ids) == len(set(ids)) == 400
    assert pq.read_table(output / "products").num_rows == 200


def test_a_line_through_the_sizes() -> None:
    figures = {100_000: {"plan": 3.0}, 1_000_000: {"plan": 4.8}}
    start, slope, target = score_scale.extrapolated(figures, "plan")
    assert (round(start, 6), round(slope, 6), round(target, 6)) == (2.8, 2.0, 202.8)
