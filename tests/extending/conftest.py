from pathlib import Path

import pytest

from tests.support.parts import picture


@pytest.fixture
def folder(small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what the pages name: a model and a picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(small_model)
    (tmp_path / "shirt.jpg").write_bytes(picture(3))
    return tmp_path
