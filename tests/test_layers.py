"""The one direction of imports, read from the source."""

import ast
from pathlib import Path

import atlas_ray

ROOT = Path(atlas_ray.__file__).parent
LAYERS = {
    "errors": 0, "settings": 0, "schemas": 0, "arrays": 0, "client": 0,
    "io": 0, "formats": 0, "taxonomy": 0, "version": 0,
    "modalities": 1, "models": 1, "decoding": 1, "artifacts": 1, "metrics": 1, "extraction": 1,
    "prediction": 2, "runs": 2, "reports": 2,
    "runtime": 3, "catalog": 3, "fetching": 3, "crawl": 3, "zoom": 3, "duplicates": 3, "training": 3, "evaluation": 3,
    "scoring": 3, "embedding": 3, "migration": 3, "publishing": 3, "serving": 3,
    "pipelines": 4, "demo": 4, "cli": 4, "__main__": 4,
}  # fmt: skip
SHARED_BY_L3 = {"runtime"}
MAY_USE = (
    "neither torch nor Ray", "torch on one device, no Ray", "no Ray", "Ray and Scrapy; of one another only `runtime`",
    "everything",
)  # fmt: skip
ONLY_IN_L3 = {"ray", "scrapy", "lancedb"}
NOT_IN_L0 = {"torch", "torchvision", "ray", "scrapy"}


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            names += [f"{module}.{alias.name}" for alias in node.names] if module == "atlas_ray" else [module]
    return names


def noun(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def layer_table() -> str:
    """Return the layers as the Markdown table that CONTRIBUTING.md shows."""
    rows = ["| layer | folders and modules | may use |", "|---|---|---|"]
    for number, uses in enumerate(MAY_USE):
        names = " ".join(f"`{name}`" for name, layer in LAYERS.items() if layer == number)
        rows.append(f"| L{number} | {names} | {uses} |")
    return "\n".join(rows)


def test_the_table_in_contributing_is_this_one() -> None:
    assert layer_table() in (ROOT.parent / "CONTRIBUTING.md").read_text()


def test_every_module_has_a_layer() -> None:
    assert {noun(path) for path in modules()} <= LAYERS.keys()


def test_imports_point_down() -> None:
    wrong = []
    for path in modules():
        own = noun(path)
        for name in imports(path):
            top, _, rest = name.partition(".")
            if top == "jobs":
                wrong.append(f"{path.name} imports jobs")
            if top in ONLY_IN_L3 and LAYERS[own] != 3:
                wrong.append(f"{own} imports {top}")
            if top in NOT_IN_L0 and LAYERS[own] == 0:
                wrong.append(f"{own} imports {top}")
            other = rest.partition(".")[0]
            if top != "atlas_ray" or not other or other == own:
                continue
            sideways = LAYERS[own] == LAYERS[other] == 3 and other not in SHARED_BY_L3
            if LAYERS[other] > LAYERS[own] or sideways:
                wrong.append(f"{own} imports {other}")
    assert wrong == []


def test_arrays_are_numpy_and_arrow_alone() -> None:
    assert set(imports(ROOT / "arrays.py")) == {"typing", "numpy", "pyarrow", "pyarrow.compute"}
    aggregate = {name.partition(".")[0] for name in imports(ROOT / "prediction" / "aggregate.py")}
    assert aggregate <= {"collections", "dataclasses", "numpy", "atlas_ray"}


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    source = tmp_path / "bad.py"
    source.write_text("def f():\n    import ray.data\n    from atlas_ray import cli\n")
    assert imports(source) == ["ray.data", "atlas_ray.cli"]
