"""What needs no PyTorch imports none: commands that ask no model, and processes that read, write, split or combine."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import atlas_ray
from atlas_ray.cli.main import COMMANDS

ROOT = Path(atlas_ray.__file__).parent
PATHS = {
    ".".join(("atlas_ray", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
ASKS_A_MODEL = {
    "calibrate", "demo", "embed", "evaluate-labels", "explain", "filter", "import-checkpoint", "optimize", "score",
    "serve", "update",
}  # fmt: skip
WORKERS = (
    "atlas_ray.runtime.sink", "atlas_ray.runtime.source", "atlas_ray.runtime.fetch", "atlas_ray.runtime.shuffle",
    "atlas_ray.runtime.done", "atlas_ray.runtime.checkpoint", "atlas_ray.runtime.joined", "atlas_ray.scoring.account",
    "atlas_ray.scoring.outcomes", "atlas_ray.scoring.carry", "atlas_ray.scoring.vectors", "atlas_ray.zoom.choose",
    "atlas_ray.embedding.combine", "atlas_ray.embedding.settings", "atlas_ray.duplicates.run",
    "atlas_ray.migration.run", "atlas_ray.fetching.run", "atlas_ray.runs.embedded",
)  # fmt: skip
"""The modules of the functions that processes without a model get."""


def imports(path: Path, *, inside_functions: bool = False) -> set[str]:
    """Return what a module imports as it is imported itself, or also what its functions import."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)
    parents = {name.rsplit(".", count)[0] for name in found for count in range(name.count(".") + 1)}
    return found | parents


@functools.cache
def at_import(module: str) -> set[str]:
    return imports(PATHS[module])


def way_to(package: str, start: set[str]) -> list[str]:
    """Return the modules over which these import a package; [] if they do not."""
    ways = {name: [name] for name in start}
    pending = list(ways)
    while pending:
        name = pending.pop(0)
        if name == package:
            return ways[name]
        for other in at_import(name) if name in PATHS else ():
            if other not in ways:
                ways[other] = [*ways[name], other]
                pending.append(other)
    return []


def test_commands_that_ask_no_model_import_no_pytorch() -> None:
    commands = {name: command for group in COMMANDS.values() for name, command in group.items()}
    assert commands.keys() >= ASKS_A_MODEL
    ways = {
        name: way_to("torch", imports(ROOT / "cli" / f"{command.module}.py", inside_functions=True))
        for name, command in commands.items()
        if name not in ASKS_A_MODEL and name.partition(" ")[0] not in ("train", "tune")
    }
    assert len(ways) > 15
    assert {name: way for name, way in ways.items() if way} == {}


def test_processes_without_a_model_import_no_pytorch() -> None:
    assert {name: way for name in WORKERS if (way := way_to("torch", at_import(name)))} == {}


def test_the_check_sees_an_import_over_others_and_not_those_for_types(tmp_path: Path) -> None:
    assert way_to("torch", at_import("atlas_ray.prediction.paths"))
    source = tmp_path / "some.py"
    source.write_text(
        "import a.b\nif TYPE_CHECKING:\n    import torch\nelse:\n    import c\ndef f():\n    from d import e\n"
    )
    assert imports(source) == {"a.b", "a", "c"}
    assert imports(source, inside_functions=True) == {"a.b", "a", "c", "d", "d.e"}


@pytest.mark.long
def test_an_import_of_a_few_rows_takes_little_memory(tmp_path: Path) -> None:
    rows = "".join(f"{number},Shirt,p/{number}.jpg,Men > Shirts\n" for number in range(8))
    (tmp_path / "shop.csv").write_text("id,title,image,category\n" + rows)
    code = (
        "import sys\nfrom pathlib import Path\nfrom atlas_ray.cli.main import main\ncode = main(sys.argv[1:])\n"
        "held = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]\n"
        "print(code, 'torch' in sys.modules, held)"
    )
    command = [sys.executable, "-c", code, "import", str(tmp_path / "shop.csv"), "--output", str(tmp_path / "catalog")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    code, torch, kib = done.stdout.splitlines()[-1].split()
    assert (code, torch) == ("0", "False")
    assert int(kib) / 1024 < 250
