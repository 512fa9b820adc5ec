"""Notebooks are what their pages make, and what Jupyter opens."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from docs import notebooks

DOCS = Path(notebooks.__file__).parent


@pytest.fixture(params=notebooks.PAGES)
def kept(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / f"{request.param}.ipynb").read_text(encoding="utf-8"))
    page = (DOCS / f"{request.param}.md").read_text(encoding="utf-8")
    assert found == notebooks.notebook(page), "make docs writes it anew"
    return found


def test_a_notebook_has_the_fields_of_its_format(kept: dict[str, Any]) -> None:
    assert (kept["nbformat"], kept["nbformat_minor"]) == (4, 4)
    assert kept["metadata"]["kernelspec"].keys() == {"display_name", "language", "name"}
    fields = {"markdown": {"cell_type", "metadata", "source"}}
    fields["code"] = fields["markdown"] | {"execution_count", "outputs"}
    for cell in kept["cells"]:
        assert cell.keys() == fields[cell["cell_type"]]
        assert all(isinstance(line, str) for line in cell["source"])
        assert all(output.keys() == {"output_type", "name", "text"} for output in cell.get("outputs", ()))
    assert {cell["cell_type"] for cell in kept["cells"]} == fields.keys()


def test_cells_are_python_or_commands_and_show_what_they_print(kept: dict[str, Any]) -> None:
    cells = ["".join(cell["source"]) for cell in kept["cells"] if cell["cell_type"] == "code"]
    commands = [line for cell in cells if cell.startswith("!") for line in cell.replace("\\\n", "").splitlines()]
    assert commands
    assert all(line.startswith("!atlas-ray ") for line in commands)
    assert all(ast.parse(cell) for cell in cells if not cell.startswith("!"))
    assert sum(bool(cell.get("outputs")) for cell in kept["cells"]) >= 4


def test_a_page_becomes_cells() -> None:
    blocks = "```bash\natlas-ray train \\\n  --x 1\n```\n\n```text\ndone\n```\n\n```python\nf()\n```\n"
    page = f"# A\n\nSee {{doc}}`b`.\n{{download}}`c`\n\n{blocks}"
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebooks.notebook(page)["cells"]] == [
        ("markdown", "# A\n\nSee [b](b.md)."), ("code", "!atlas-ray train \\\n  --x 1"), ("code", "f()"),
    ]  # fmt: skip
    assert notebooks.notebook(page)["cells"][1]["outputs"][0]["text"] == ["done\n"]
