"""Finished runs and their catalogues, as scoring and import leave them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atlas_ray.schemas import QUARANTINE, quarantine_row
from atlas_ray.taxonomy import CategoryPath, Taxonomy
from tests.support.parts import scored_run

SHIRTS, SAREES, DRESSES = ("Men", "Shirts"), ("Women", "Sarees"), ("Women", "Dresses, long")
IDS = {"10": ("Men",), "11": SHIRTS, "21": SAREES, "22": DRESSES}


def answer(product_id: str, path: CategoryPath | None, probability: float | None = None, **more: Any) -> dict[str, Any]:
    """Return a row of a run's products."""
    levels = [probability] * len(path) if path and probability is not None else None
    row = {"product_id": product_id, "category_path": path and list(path), "probability": probability}
    return row | {"level_probabilities": levels, "alternatives": [], "decided_level": path and len(path)} | more


def catalogue(folder: Path, refused: list[tuple[str, str]], ids: dict[str, CategoryPath] | None = None) -> str:
    """Write what an import leaves beside its tables: a taxonomy, and (product, code) pairs in the quarantine."""
    folder.mkdir(parents=True)
    taxonomy = Taxonomy([SHIRTS, SAREES, DRESSES], name="shop", ids=ids)
    (folder / "taxonomy.json").write_text(taxonomy.to_json())
    (folder / "run.json").write_text(json.dumps({"job": "import", "config": {"source": "products.csv"}}))
    rows = [quarantine_row("import", code, f"line 7: {code}", product_id=product) for product, code in refused]
    write_quarantine(folder, rows)
    return str(folder)


def write_quarantine(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of the quarantine of a run or a catalogue."""
    (folder / "quarantine").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE), folder / "quarantine" / "part-0.parquet")


def shop_run(folder: Path, products: list[dict[str, Any]], *, catalog: str, rows_per_file: int = 2) -> str:
    """Write a finished run of several files over a catalogue."""
    return scored_run(folder, products, rows_per_file=rows_per_file, identity={"catalog": catalog})
