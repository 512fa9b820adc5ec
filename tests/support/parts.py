"""What several test modules build on."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from atlas_ray.artifacts import save_artifact, save_joint_artifact
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.models.text import TextConfig, TextNetwork
from atlas_ray.schemas import CATEGORIZED
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary

METRICS = {"val_loss": 0.5, "settings": {"catalog": "/tmp/shop", "output": "/tmp/model"}}
"""What a training writes into its model: figures, and settings with paths of its machine."""


def make_artifact(uri: str, taxonomy: Taxonomy, seed: int = 0, image_size_px: int = 32) -> str:
    """Write a small untrained model; its answers are fixed by the seed."""
    torch.manual_seed(seed)
    vocabulary = Vocabulary.of(taxonomy)
    config = EncoderDecoderConfig(
        vocabulary_size=len(vocabulary),
        backbone="resnet18",
        image_size_px=image_size_px,
        pooled_size=4,
        embedding_dim=16,
        attention_dim=16,
        decoder_dim=16,
    )
    return save_artifact(uri, EncoderDecoder(config), vocabulary=vocabulary, taxonomy=taxonomy, metrics=METRICS)


def make_text_artifact(
    uri: str, taxonomy: Taxonomy, field: str, words: Sequence[str], labels: LabelSpace | None = None
) -> str:
    """Write a small untrained model of titles or descriptions."""
    torch.manual_seed(len(field))
    index = WordIndex(words, field)
    outputs = len(labels or taxonomy.leaves)
    config = TextConfig(field=field, words=len(index), outputs=outputs, embedding_dim=8, filters=8, hidden_dim=8)
    return save_artifact(
        uri, TextNetwork(config), vocabulary=Vocabulary.of(taxonomy), taxonomy=taxonomy, metrics={}, words=index,
        labels=labels,
    )  # fmt: skip


def make_fused(folder: Path, taxonomy: Taxonomy) -> str:
    """Write a model that takes the mean of small ones of picture, title and description; return its URI."""
    members = {name: str(folder / f"of-{name}") for name in ("picture", "title", "description")}
    make_artifact(members["picture"], taxonomy)
    for field in ("title", "description"):
        make_text_artifact(members[field], taxonomy, field, ["red", "blue", "shirt", "saree"])
    shape = FusionConfig(modalities="+".join(members), outputs=len(taxonomy.leaves), policy="mean")
    uri = str(folder / "fused")
    save_joint_artifact(uri, build_fusion(shape), members, taxonomy=taxonomy, metrics={})
    return uri


def rows(folder: str | Path, table: str) -> list[dict[str, Any]]:
    """Read a table, sorted by its id; [] where it has no file."""
    path = Path(folder) / table
    if not path.exists() or not list(path.glob("*.parquet")):
        return []
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return sorted(found, key=lambda row: row.get("image_id") or row["product_id"])


def picture(number: int, size: int = 60) -> bytes:
    """Return a JPEG of noise, another one for each number."""
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 5 + 9 * number).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def scored_run(
    folder: Path, products: list[dict[str, Any]], *, rows_per_file: int = 1000, identity: dict[str, Any] | None = None
) -> str:
    """Write what a scoring run leaves that others read: its products and its account."""
    (folder / "products").mkdir(parents=True)
    for start in range(0, len(products), rows_per_file):
        table = pa.Table.from_pylist(products[start : start + rows_per_file], schema=CATEGORIZED)
        pq.write_table(table, folder / "products" / f"{start:04d}.parquet")
    (folder / "run.json").write_text(json.dumps({"identity": identity or {}}))
    return str(folder)


class Page(HTMLParser):
    """What a browser would see: elements with attributes, and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    @property
    def sources(self) -> list[str]:
        """Where its pictures come from."""
        return [attributes["src"] or "" for _, attributes in self.tags if "src" in attributes]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check_self_contained(text: str) -> None:
    """Check that a page asks for nothing, and runs no script but its own."""
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "a", "form", "object", "base"})
    assert [attributes for tag, attributes in page.tags if tag == "link"] == [{"rel": "icon", "href": "data:,"}]
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"url\(|@import", text)
    (policy,) = [found["content"] or "" for tag, found in page.tags if tag == "meta" and "http-equiv" in found]
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert "script-src " + " ".join(f"'sha256-{digest}'" for digest in hashes) + ";" in policy
    assert sum(tag == "script" for tag, _ in page.tags) == len(scripts) + text.count('<script id="data"')
