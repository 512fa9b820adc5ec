from typing import Any

import pytest

from atlas_ray.evaluation.labels import LabelReport
from atlas_ray.reports.labels import print_labels


def measured(name: str, policy: str | None = None) -> dict[str, Any]:
    figures = dict.fromkeys(("micro_f1", "micro_precision", "micro_recall"), 0.5)
    return {"model": f"/m/{name}", "modalities": name, "policy": policy, "products": 9, **figures}


def test_what_models_of_one_modality_miss_alike_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Each cell is of what the model of its row misses; fused models are no part of the question."""
    models = [measured("picture"), measured("title"), measured("both", "mean")]
    misses = {"picture": 8, "title": 4, "both": 4}
    overlap = [
        {"model": f"/m/{one}", "other": f"/m/{other}", "missed": missed, "missed_by_both": 2}
        for one, missed in misses.items()
        for other in misses
        if one != other
    ]
    print_labels(LabelReport(models, [], overlap, 9, 0, {}), "out")
    shown = capsys.readouterr().out
    table = shown[shown.index("what the models miss alike") :]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    assert rows == [["picture", "8", "", "25.0%"], ["title", "4", "50.0%", ""]]
    print_labels(LabelReport(models[:1], [], [], 9, 0, {}), "out")
    assert "miss alike" not in capsys.readouterr().out
