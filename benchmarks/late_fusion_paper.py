"""The tables of the late-fusion paper (Wirojwatanakul and Wangperawong 2019), from a catalogue in its layout.

    python -m benchmarks.late_fusion_paper --source meta.json.gz --work FOLDER [--word-vectors glove.txt]

Imports Amazon's product metadata, fetches the pictures, trains the classifiers of pictures, titles and descriptions and
every policy over each two of them and over all three, by the recipes in `configs/`, and measures all of them on the
test products. Each step is a command of atlas-ray; the same call again goes on from FOLDER. FOLDER/tables.html and the
CSV files beside it hold:

    table1    F1 of the classifiers
    table2    the labels that each of them misses most often
    table3    F1 of the fused models, by policy
    table4    the labels that the best policy over the same classifiers misses most often
    overlap   how much of what a classifier misses another one misses, too
    figure2   how many products have each label
"""

import argparse
import csv
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from atlas_ray.artifacts import load_artifact
from atlas_ray.cli.main import main as atlas_ray
from atlas_ray.evaluation.labels import LabelReport, evaluate_labels
from atlas_ray.modalities import MODALITIES
from atlas_ray.reports.catalog_page import histogram
from atlas_ray.reports.charts import draw_histogram
from atlas_ray.reports.labels import print_labels
from atlas_ray.reports.page import document, paragraph, section, table
from atlas_ray.taxonomy import LabelSpace
from atlas_ray.training.data import labelled_texts

CONFIGS = Path(__file__).parents[1] / "configs"
POLICIES = ("max", "mean", "ridge", "network")
"""The paper's policies."""
MISSED = 15
"""Labels that a table of misses shows of each model."""
TITLES = {
    "table1": "Table 1: F1 of the classifiers",
    "table2": "Table 2: labels that the classifiers miss most often",
    "table3": "Table 3: F1 of the fused models",
    "table4": "Table 4: labels that the fused models miss most often",
    "overlap": "What two classifiers miss alike",
    "figure2": "Figure 2: products of each label",
}
Table = tuple[Sequence[str], list[list[Any]]]
"""The names of a table's columns, and its rows."""


def run(*command: str, codes: Sequence[int] = (0,)) -> None:
    """Run a command of atlas-ray in this process, so that all of them share one Ray."""
    if (code := atlas_ray(command)) not in codes:
        raise SystemExit(code)


def catalog_of(source: str, work: Path, *flags: str) -> str:
    """Import the metadata, fetch its pictures if they are addresses, and return the catalogue."""
    imported = work / "imported"
    if not (imported / "run.json").exists():
        run("import", source, "--format", "amazon", "--output", str(imported), *flags)
    first = ds.dataset(imported / "images").head(1, columns=["image_uri"])["image_uri"].to_pylist()
    if not first or not first[0].startswith(("http://", "https://")):
        return str(imported)
    # What a shop has taken down since is no reason to stop.
    run("fetch", "--catalog", str(imported), "--output", str(work / "catalog"), codes=(0, 3))
    return str(work / "catalog")


def train_all(catalog: str, work: Path, configs: Path, policies: Sequence[str], word_vectors: str) -> dict[str, str]:
    """Train all models, and return their folders by name."""
    models = {name: str(work / "models" / name) for name in MODALITIES}
    common = ("--catalog", catalog, "--config")
    recipes = {name: str(configs / f"late-fusion-{name}.yaml") for name in ("image", "title", "description", "fusion")}
    run("train", "image-labels", *common, recipes["image"], "--output", models["picture"])
    vectors = ("--word-vectors", word_vectors) if word_vectors else ()
    for field in MODALITIES[1:]:
        run("train", "text", *common, recipes[field], "--output", models[field], *vectors)
    for count in (2, 3):
        for fused in combinations(MODALITIES, count):
            members = [part for name in fused for part in (f"--{name}", models[name])]
            for policy in policies:
                name = f"{'+'.join(fused)} {policy}"
                models[name] = str(work / "models" / name.replace(" ", "-"))
                run("train", "fusion", *common, recipes["fusion"], "--policy", policy, *members,
                    "--output", models[name])  # fmt: skip
    return models


def tables_of(report: LabelReport, models: dict[str, str], products: dict[str, int]) -> dict[str, Table]:
    """Return the tables by name, given the measures and the number of products of each label."""
    row_of = {row["model"]: row for row in report.models}
    f1 = {name: row_of[uri]["micro_f1"] for name, uri in models.items()}
    rows = [[name, *(row_of[models[name]][f"micro_{part}"] for part in ("f1", "precision", "recall"))]
            for name in MODALITIES]  # fmt: skip
    fused = [name.split(" ") for name in models if name not in MODALITIES]
    sets, policies = (list(dict.fromkeys(column)) for column in zip(*fused, strict=True))
    best = [max((f"{one} {policy}" for policy in policies), key=lambda name: f1[name]) for one in sets]
    alike = {(row["model"], row["other"]): row["missed_by_both"] / max(row["missed"], 1) for row in report.overlap}
    return {
        "table1": (("classifier", "F1", "precision", "recall"), rows),
        "table2": missed_of(report, models, MODALITIES),
        "table3": (("over", *policies), [[one, *(f1[f"{one} {policy}"] for policy in policies)] for one in sets]),
        "table4": missed_of(report, models, best),
        "overlap": (
            ("missed by", *(f"{name} too" for name in MODALITIES)),
            [[one, *(alike.get((models[one], models[other])) for other in MODALITIES)] for one in MODALITIES],
        ),
        "figure2": (("label", "products"), [[label, count] for label, count in products.items()]),
    }


def missed_of(report: LabelReport, models: dict[str, str], names: Sequence[str]) -> Table:
    """Return the labels that some models miss most often, side by side."""
    columns = [[row for row in report.missed if row["model"] == models[name]][:MISSED] for name in names]
    rows = zip(*([f"{row['label']} {row['missed']}/{row['support']}" for row in column] for column in columns),
               strict=True)  # fmt: skip
    return ("rank", *names), [[rank, *row] for rank, row in enumerate(rows, 1)]


def products_of(catalog: str, model: str) -> dict[str, int]:
    """Return how many products of the catalogue have each label of a model, the most common first."""
    artifact = load_artifact(model, target="labels")
    assert artifact.labels is not None
    counts = dict.fromkeys(LabelSpace(artifact.taxonomy).names, 0)
    for split in ("train", "val", "test"):
        labelled = labelled_texts(catalog, split, artifact.taxonomy, "title", several=True)
        for name, count in zip(counts, labelled.label_products, strict=True):
            counts[name] += count
    kept = [(name, counts[name]) for name in artifact.labels.names]
    return dict(sorted(kept, key=lambda pair: -pair[1]))


def write(tables: dict[str, Table], work: Path) -> None:
    """Write the page and the CSV files."""
    parts = [paragraph("The tables of arXiv:1907.00420 on this catalogue: `python -m benchmarks.late_fusion_paper`.")]
    for name, (head, rows) in tables.items():
        with (work / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
        shown = [[f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row] for row in rows]
        body = table(head, shown)
        if name == "figure2":
            body = draw_histogram(histogram([row[1] for row in rows]), "products of a label", "labels")
        parts.append(section(TITLES[name], body))
    (work / "tables.html").write_text(document("Late fusion", parts), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="product metadata in Amazon's layout")
    parser.add_argument("--work", required=True, help="where the catalogue, the models and the tables stay")
    parser.add_argument("--word-vectors", default="", help="word vectors in GloVe's layout; random ones if not given")
    parser.add_argument("--split", default="80/10/10", help="shares of train, val and test")
    parser.add_argument("--image-base", default="", help="folder of the pictures, if they are files")
    parser.add_argument("--configs", default=str(CONFIGS), help="folder of the four recipes late-fusion-*.yaml")
    parser.add_argument("--policies", default=",".join(POLICIES))
    options = parser.parse_args(arguments)
    work = Path(options.work).absolute()
    flags = ("--split", options.split, *(("--image-base", options.image_base) if options.image_base else ()))
    catalog = catalog_of(options.source, work, *flags)
    models = train_all(catalog, work, Path(options.configs), options.policies.split(","), options.word_vectors)
    report = evaluate_labels(catalog, str(work / "measured"), list(models.values()))
    print_labels(report, str(work / "measured"))
    write(tables_of(report, models, products_of(catalog, models["title"])), work)
    print(f"the paper's tables in {work / 'tables.html'}")


if __name__ == "__main__":
    main()
