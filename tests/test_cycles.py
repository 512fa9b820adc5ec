"""No module of the package imports itself, over however many others: imports inside functions are read too."""

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import atlas_ray

ROOT = Path(atlas_ray.__file__).parent


def imports(root: Path) -> dict[str, set[str]]:
    """Return the modules of a package, and which of them each imports."""
    modules = {
        ".".join((root.name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(root.rglob("*.py"))
    }
    found = {}
    for module, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                # `from package import module` imports the module; any other name comes from the package itself.
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    names.add(name if name in modules else node.module)
        found[module] = names & modules.keys()
    return found


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return one cycle; [] where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]
    return []


def test_no_module_imports_itself_over_others() -> None:
    graph = imports(ROOT)
    assert len(graph) > 200
    assert cycle(graph) == []


def test_the_check_sees_a_lazy_cycle(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    (root / "stock").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "stock" / "__init__.py").write_text("from shop.stock import shelf\n")
    (root / "stock" / "shelf.py").write_text("import os\n")
    assert imports(root)["shop.stock"] == {"shop.stock.shelf"}
    assert cycle(imports(root)) == []
    (root / "till.py").write_text("from shop.stock.shelf import take\n")
    (root / "stock" / "shelf.py").write_text("def take():\n    from shop import till\n")
    assert set(cycle(imports(root))) == {"shop.till", "shop.stock.shelf"}
