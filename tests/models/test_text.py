"""The model of titles and descriptions."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.modalities.texts import FIRST, PAD, WordIndex
from atlas_ray.models.text import TextConfig, TextNetwork
from atlas_ray.models.weights import load_word_vectors

INDEX = WordIndex(["blue", "shirt", "new york"], "title")


def network(**settings: Any) -> TextNetwork:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"field": "title", "words": len(INDEX), "outputs": 4, "embedding_dim": 6, "filters": 5}
    return TextNetwork(TextConfig(**{**shape, "hidden_dim": 7, **settings})).eval()


def words(*texts: str | None) -> torch.Tensor:
    return torch.from_numpy(INDEX.encode(texts))


def test_the_papers_shape() -> None:
    model = TextNetwork(TextConfig(field="title", words=100, outputs=52))
    assert model.head.convolution.weight.shape == (200, 300, 5)
    assert model.head.dense.weight.shape == (170, 200)
    assert model.head.output.weight.shape == (52, 170)
    assert model(torch.zeros((2, 57), dtype=torch.int32)).shape == (2, 52)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_text_is_what_its_windows_say(width: int) -> None:
    """Against sums written out: each filter at each word, the highest of them, then two layers."""
    model = network(width=width)
    (row,) = words("blue shirt blue unknown")
    vectors = model.encoder.weight[row[row != PAD].long()]
    padded = torch.zeros(len(vectors) + width - 1, 6)
    padded[(width - 1) // 2 : (width - 1) // 2 + len(vectors)] = vectors
    filters, bias = model.head.convolution.weight, model.head.convolution.bias
    assert bias is not None
    heights = [[(filters[f] * padded[i : i + width].T).sum() + bias[f] for i in range(4)] for f in range(5)]
    highest = torch.stack([torch.stack(row).max() for row in heights])
    wanted = model.head.output((model.head.dense(highest)).relu())
    torch.testing.assert_close(model(row[None])[0], wanted)


def test_an_answer_does_not_depend_on_the_others_beside_it() -> None:
    model = network()
    texts = ["blue", "blue shirt " * 20, None, "shirt " * 57]
    together = model(words(*texts))
    for text, answer in zip(texts, together, strict=True):
        torch.testing.assert_close(model(words(text))[0], answer)
    assert together.isfinite().all()


def test_padding_learns_nothing() -> None:
    model = network().train()
    model(words("blue", "shirt shirt")).sum().backward()
    grad = model.encoder.weight.grad
    assert grad is not None
    assert not grad[PAD].any()
    assert grad[FIRST].any()


@pytest.mark.parametrize("packed", [False, True])
def test_word_vectors_of_a_file(tmp_path: Path, packed: bool) -> None:
    lines = ["blue 1 2 3 4 5 6", "other 9 9 9 9 9 9", "new york 6 5 4 3 2 1.5"]
    data = "\n".join(lines).encode()
    file = tmp_path / ("glove.txt.gz" if packed else "glove.txt")
    file.write_bytes(gzip.compress(data) if packed else data)
    model, before = network(), network().encoder.weight.detach()
    assert load_word_vectors(model, INDEX, str(file)).tolist() == [FIRST, FIRST + 2]
    after = model.encoder.weight.detach()
    assert after[FIRST].tolist() == [1, 2, 3, 4, 5, 6]
    assert after[FIRST + 2].tolist() == [6, 5, 4, 3, 2, 1.5]
    kept = np.array([PAD, 1, FIRST + 1])  # shirt is not in the file
    assert after[kept].equal(before[kept])


@pytest.mark.parametrize("line", ["blue 1 2 3", "blue 1 2 3 4 5 nan", "blue 1 2 3 4 5 x", "\x00\x01"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "glove.txt"
    file.write_text(f"{line}\nblue 1 2 3 4 5 6\n")
    with pytest.raises(ArtifactError, match=r"glove.txt, line 1: expected a word and 6 numbers"):
        load_word_vectors(network(), INDEX, str(file))


def test_a_field_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="field is 'price'; expected one of title, description"):
        network(field="price")
