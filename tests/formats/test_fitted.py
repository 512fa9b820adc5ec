import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlas_ray.artifacts import load_artifact, save_artifact, set_temperature
from atlas_ray.artifacts.files import content_id
from atlas_ray.errors import ArtifactError
from atlas_ray.formats.fitted import CALIBRATED, FUSED, LAYOUT, TRAINED, Fitted, product_keys

IDS = ["a", "b", "\u00e9", "", "a\x1fb", "lone \ud800"]


def of(ids: list[str], use: int) -> Fitted:
    return Fitted.of(product_keys(ids), use)


def test_what_products_were_used_for() -> None:
    trained, calibrated = of([*IDS, "a"], TRAINED), of(["a", "new"], CALIBRATED)
    assert len(trained.products) == len(IDS)
    assert trained.uses([*IDS, "new", "A"]).tolist() == [TRAINED] * len(IDS) + [0, 0]
    both = trained | calibrated | of(["b"], FUSED)
    assert both.uses(["a", "b", "new", "other"]).tolist() == [TRAINED | CALIBRATED, TRAINED | FUSED, CALIBRATED, 0]
    assert (np.diff(both.products.astype(object)) > 0).all()
    nothing = of([], TRAINED)
    assert nothing.uses(["a"]).tolist() == [0]
    assert (nothing | trained).uses(["a"]).tolist() == [TRAINED]


@pytest.fixture
def known(tmp_path: Path, small_model: str) -> Path:
    """A model that knows what it was trained on."""
    artifact = load_artifact(small_model)
    uri = tmp_path / "known"
    save_artifact(
        str(uri), artifact.model, vocabulary=artifact.vocabulary, taxonomy=artifact.taxonomy, metrics={},
        fitted=of(IDS, TRAINED),
    )  # fmt: skip
    return uri


@pytest.mark.long
def test_an_artifact_knows_what_it_was_fitted_on(known: Path, small_model: str) -> None:
    assert load_artifact(small_model).fitted is None  # nobody told it
    artifact = load_artifact(str(known))
    assert artifact.fitted is not None
    assert artifact.fitted.uses(["a", "z"]).tolist() == [TRAINED, 0]
    (before,) = known.glob("fitted-*.npy")
    model_id = set_temperature(str(known), 1.5, {}, artifact.fitted | of(["z"], CALIBRATED))
    after = load_artifact(str(known))
    assert (after.id, after.temperature) == (model_id, 1.5)
    assert after.fitted is not None
    assert after.fitted.uses(["a", "z"]).tolist() == [TRAINED, CALIBRATED]
    (now,) = known.glob("fitted-*.npy")
    assert now.name != before.name
    set_temperature(str(known), 1.25, {})
    assert load_artifact(str(known)).fitted is not None
    assert list(known.glob("fitted-*.npy")) == [now]


def stored(folder: Path, data: bytes) -> None:
    """Put a file of other content into an artifact, with all ids right."""
    for file in folder.glob("fitted-*.npy"):
        file.unlink()
    entry = {"products": len(IDS), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / f"fitted-{str(entry['sha256'])[:16]}.npy").write_bytes(data)
    document = json.loads((folder / "model.json").read_text()) | {"fitted": entry}
    (folder / "model.json").write_text(json.dumps(document | {"id": content_id(document)}))


def array(rows: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=True)
    return buffer.getvalue()


class Evil:
    def __reduce__(self) -> Any:
        return print, ("executed",)


@pytest.mark.long
def test_damage_is_told(known: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = known.glob("fitted-*.npy")
    whole = file.read_bytes()
    for damaged in (whole[:-1], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"fitted-\w+\.npy is damaged"):
            load_artifact(str(known))
    file.unlink()
    with pytest.raises(ArtifactError, match="not a complete model folder"):
        load_artifact(str(known))
    rows = np.zeros(len(IDS), LAYOUT)
    rows["product"] = range(len(IDS))
    for content in (
        b"no array",
        array(np.array([Evil()], dtype=object)),
        array(rows[:-1]),
        array(rows[::-1]),
        array(np.zeros(len(IDS), LAYOUT)),
        array(rows["product"]),
    ):
        stored(known, content)
        with pytest.raises(ArtifactError, match="is no table of"):
            load_artifact(str(known))
    assert "executed" not in capsys.readouterr().out
    stored(known, array(rows))
    assert load_artifact(str(known)).fitted is not None
    entries: list[Any] = [[], {"sha256": 3}, {"sha256": "../../../../etc"}, "x"]
    for entry in entries:
        document = json.loads((known / "model.json").read_text()) | {"fitted": entry}
        (known / "model.json").write_text(json.dumps(document | {"id": content_id(document)}))
        with pytest.raises(ArtifactError, match="its entry 'fitted' is"):
            load_artifact(str(known))
