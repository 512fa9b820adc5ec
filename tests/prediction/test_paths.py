import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from atlas_ray.artifacts import ZoomArtifact, load_artifact
from atlas_ray.errors import ConfigError, TaxonomyError
from atlas_ray.modalities.products import Products
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.columns import COLUMNS, answer_table
from atlas_ray.prediction.device import choose_device, choose_dtype
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.schemas import PREDICTIONS
from atlas_ray.taxonomy import Taxonomy
from tests.support.damaged_pictures import encoded
from tests.support.parts import make_artifact


def pictures(count: int) -> list[bytes]:
    out = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.effect_noise((40, 40), 5 + 9 * number).convert("RGB").save(buffer, "JPEG")
        out.append(buffer.getvalue())
    return out


def predictor(
    uri: str, taxonomy: Taxonomy | None = None, within: tuple[str, ...] = (), **config: object
) -> PathPredictor:
    settings = PredictorConfig(precision="float32", **config)  # type: ignore[arg-type]
    return PathPredictor(load_artifact(uri), settings, taxonomy=taxonomy, within=within)


@pytest.mark.long
def test_the_columns_are_those_of_the_contract(small_model: str, garments: Taxonomy) -> None:
    table, refused = predictor(small_model, top_k=3)(pictures(5))
    assert refused == {}
    assert table.schema.names == list(COLUMNS)
    assert all(table.schema.field(name).type == PREDICTIONS.field(name).type for name in COLUMNS)
    for row in table.to_pylist():
        path = tuple(row["category_path"])
        assert path in garments.leaf_set
        assert len(row["level_probabilities"]) == len(path)
        assert row["level_probabilities"] == sorted(row["level_probabilities"], reverse=True)
        assert row["level_probabilities"][-1] == pytest.approx(row["probability"], abs=1e-5)
        others = [tuple(other["category_path"]) for other in row["alternatives"]]
        assert len(others) == 2
        assert path not in others
        weights = [row["probability"], *(other["probability"] for other in row["alternatives"])]
        assert weights == sorted(weights, reverse=True)
        assert 0 <= row["outside_probability"] <= 1


@pytest.mark.long
def test_a_refused_picture_is_a_null_row(small_model: str) -> None:
    contents = pictures(7)
    contents[0], contents[4] = b"", b"junk"
    table, refused = predictor(small_model, batch_size=3)(contents)
    assert {index: error.code for index, error in refused.items()} == {0: "empty", 4: "not_an_image"}
    assert table["category_path"].is_null().to_pylist() == [index in (0, 4) for index in range(7)]
    everything_bad, refused = predictor(small_model)([b"", b"x"])
    assert everything_bad["probability"].null_count == len(refused) == 2


@pytest.mark.long
def test_batches_do_not_matter(small_model: str) -> None:
    contents = pictures(9)
    whole, _ = predictor(small_model, batch_size=9)(contents)
    for size in (1, 4):
        parts, _ = predictor(small_model, batch_size=size)(contents)
        assert parts["category_path"].to_pylist() == whole["category_path"].to_pylist()
        torch.testing.assert_close(
            torch.tensor(parts["probability"].to_pylist()), torch.tensor(whole["probability"].to_pylist())
        )


@pytest.mark.long
def test_beam_and_exact_choose_from_the_same_tree(small_model: str) -> None:
    contents = pictures(6)
    exact, _ = predictor(small_model, search="exact")(contents)
    beam, _ = predictor(small_model, search="beam", beam_width=20)(contents)
    assert exact["category_path"].to_pylist() == beam["category_path"].to_pylist()


@pytest.mark.long
def test_a_subset_and_a_prefix_narrow_the_answers(small_model: str, garments: Taxonomy) -> None:
    contents = pictures(6)
    subset = Taxonomy(reversed(garments.leaves[3:]), name="subset")
    for chosen in (predictor(small_model, subset), predictor(small_model, within=("Women",))):
        table, _ = chosen(contents)
        assert {tuple(path) for path in table["category_path"].to_pylist()} <= set(chosen.taxonomy.leaves)
    reordered, _ = predictor(small_model, Taxonomy(reversed(garments.leaves), name="reordered"))(contents)
    plain, _ = predictor(small_model)(contents)
    assert reordered["category_path"].to_pylist() == plain["category_path"].to_pylist()


@pytest.mark.long
def test_what_the_model_does_not_know_is_refused(small_model: str) -> None:
    with pytest.raises(TaxonomyError, match="no token for 'Footwear'"):
        predictor(small_model, Taxonomy([("Men", "Footwear")], name="other"))
    with pytest.raises(TaxonomyError, match="'Kids' is not in the taxonomy"):
        predictor(small_model, within=("Kids",))


@pytest.mark.long
def test_a_large_tree_is_searched_by_beam(tmp_path_factory: pytest.TempPathFactory) -> None:
    large = Taxonomy([(f"a{n}", f"b{m}") for n in range(300) for m in range(2)], name="large")
    uri = str(tmp_path_factory.mktemp("large"))
    make_artifact(uri, large)
    assert predictor(uri).scope.search == "beam"
    assert predictor(uri, search="exact").scope.search == "exact"
    assert predictor(uri)(pictures(2))[0]["category_path"].null_count == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("search", "greedy"), ("precision", "int8"), ("top_k", 0), ("batch_size", 0), ("beam_width", -1)],
)
def test_settings_out_of_range_name_their_value(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{field} is {value!r}"):
        PredictorConfig(**{field: value})  # type: ignore[arg-type]


def test_devices_and_precisions() -> None:
    assert choose_dtype("float32", torch.device("cpu")) == torch.float32
    assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    with pytest.raises(ConfigError, match="device 'abacus'"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="sees 0 CUDA devices"):
            choose_device("cuda")


@pytest.mark.long
def test_attention_maps_come_with_the_paths(small_model: str) -> None:
    chosen = predictor(small_model, batch_size=2)
    decoded, _ = chosen.decode(pictures(3))
    table, maps = chosen.explain(Products(decoded))
    assert table.equals(chosen.predict(Products(decoded)))
    assert maps.shape == (3, chosen.scope.tree.trie.depth, 4, 4)
    lengths = [len(path) for path in table["category_path"].to_pylist()]
    expected = [[float(level < length) for level in range(maps.shape[1])] for length in lengths]
    torch.testing.assert_close(maps.sum((2, 3)), torch.tensor(expected))


@pytest.mark.long
def test_each_picture_may_have_a_scope_of_its_own(small_model: str, garments: Taxonomy) -> None:
    chosen = predictor(small_model, batch_size=3)
    decoded, _ = chosen.decode(pictures(7))
    nodes = [(), garments.leaves[0][:1], garments.leaves[-1], (), garments.leaves[0][:1], (), garments.leaves[0]]
    together = chosen.predict_within(Products(decoded), [chosen.narrowed(node) for node in nodes])
    for row, (node, picture) in enumerate(zip(nodes, decoded, strict=True)):
        (found,) = together.slice(row, 1).to_pylist()
        (alone,) = predictor(small_model, within=node).predict(Products(picture[None])).to_pylist()
        assert found["category_path"] == alone["category_path"]
        assert tuple(found["category_path"][: len(node)]) == node
        assert found["probability"] == pytest.approx(alone["probability"], abs=1e-5)
    assert chosen.narrowed(garments.leaves[0][:1]) is chosen.narrowed(garments.leaves[0][:1])
    with pytest.raises(TaxonomyError, match="Hats"):
        chosen.narrowed(("Hats",))
    assert chosen.predict_within(Products(decoded[:0]), []).num_rows == 0


class Broken:
    """A network that gives NaN for dark pictures, and has no memory for more than some."""

    def __init__(self, made: PathPredictor, monkeypatch: pytest.MonkeyPatch, *, most: int = 1000) -> None:
        self.sizes: list[int] = []
        whole = made._encoder.encode

        def encode(products: Products) -> torch.Tensor:
            self.sizes.append(len(products))
            if len(products) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nAnd more.")
            encoded = whole(products)
            dark = products.pixels.float().mean((1, 2, 3)) < 20
            return torch.where(dark.view(-1, *[1] * (encoded.ndim - 1)), torch.nan, encoded)

        monkeypatch.setattr(made._encoder, "encode", encode)


def dark() -> bytes:
    return encoded(Image.new("RGB", (40, 40), (3, 3, 3)))


@pytest.mark.long
@pytest.mark.parametrize("search", ["exact", "beam"])
def test_an_answer_that_is_no_number_is_none(small_model: str, monkeypatch: pytest.MonkeyPatch, search: str) -> None:
    contents = [*pictures(5), b"junk"]
    wanted, _ = predictor(small_model, search=search)(contents)
    contents[1], contents[3] = dark(), dark()
    made = predictor(small_model, search=search, batch_size=2)
    Broken(made, monkeypatch)
    table, refused = made(contents)
    assert {index: error.code for index, error in refused.items()} == {
        1: "not_a_number", 3: "not_a_number", 5: "not_an_image"
    }  # fmt: skip
    for index in (0, 2, 4):
        assert table["category_path"][index] == wanted["category_path"][index]
        assert table["probability"][index].as_py() == pytest.approx(wanted["probability"][index].as_py(), abs=1e-5)
    assert all(table[name].is_null().to_pylist() == [index in (1, 3, 5) for index in range(6)] for name in COLUMNS)
    vectors, refused = made.embed(contents)
    assert sorted(index for index, error in refused.items() if error.code == "not_a_number") == [1, 3]
    assert (vectors.any(1).tolist(), bool(np.isfinite(vectors).all())) == (
        [True, False, True, False, True, False],
        True,
    )


@pytest.mark.long
@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("field", ["probability", "level_probability", "outside"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_each_number_of_an_answer_counts(small_model: str, row: int, field: str, value: float) -> None:
    made = predictor(small_model)
    found = made.infer(Products(made.decode(pictures(3))[0]))
    broken = getattr(found, field).clone()
    broken[row] = value
    table = answer_table(made.scope, [replace(found, **{field: broken})])
    assert table["category_path"].is_null().to_pylist() == [place == row for place in range(3)]


@pytest.mark.long
def test_a_batch_without_memory_is_halved_once_and_so_are_those_after_it(
    small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = pictures(16)
    wanted, _ = predictor(small_model)(contents)
    asks: list[Callable[[PathPredictor], Any]] = [
        lambda made: made(contents)[0],
        lambda made: made.predict(Products(made.decode(contents)[0])),
    ]
    for ask in asks:
        made = predictor(small_model, batch_size=8)
        broken = Broken(made, monkeypatch, most=4)
        assert ask(made)["category_path"].to_pylist() == wanted["category_path"].to_pylist()
        assert broken.sizes == [8, 4, 4, 4, 4]
    made = predictor(small_model, batch_size=8)
    broken = Broken(made, monkeypatch, most=4)
    vectors, _ = made.embed(contents)
    assert (len(vectors), broken.sizes) == (16, [8, 4, 4, 4, 4])


@pytest.mark.long
@pytest.mark.parametrize("search", ["exact", "beam"])
def test_a_search_that_does_not_fit_takes_half_a_batch(
    small_model: str, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    made = predictor(small_model, batch_size=8, search=search)
    products = Products(made.decode(pictures(8))[0])
    scopes = [made.narrowed(made.taxonomy.leaves[0][:1])] * 8
    wanted = [made.predict_within(products, scopes), made.explain(products)[0]]
    sizes, whole = [], made._encoder.search

    def searched(encoded: torch.Tensor, *args: Any, **named: Any) -> Any:
        sizes.append(len(encoded))
        if len(encoded) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(encoded, *args, **named)

    monkeypatch.setattr(made._encoder, "search", searched)
    found = [made.predict_within(products, scopes), made.explain(products)[0]]
    for before, after in zip(wanted, found, strict=True):
        assert after["category_path"].to_pylist() == before["category_path"].to_pylist()
        np.testing.assert_allclose(after["probability"], before["probability"], atol=1e-4)
    assert sizes == [8, 4, 4, 4, 4]


@pytest.mark.long
def test_a_device_without_memory_for_half_a_batch_is_told(small_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = predictor(small_model, batch_size=8)
    broken = Broken(made, monkeypatch, most=3)
    with pytest.raises(ConfigError, match=r"no memory for a batch of 4, and --batch-size is 8: CUDA out of") as error:
        made(pictures(9))
    assert (broken.sizes, "\n" in str(error.value)) == ([8, 4], False)
    single = predictor(small_model, batch_size=1)
    Broken(single, monkeypatch, most=0)
    with pytest.raises(ConfigError, match="no memory for a batch of 1"):
        single(pictures(1))


def test_the_zoom_filter_halves_its_batches_too(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ZoomNetwork(ZoomConfig(image_size_px=22))
    filtering = ZoomPredictor(ZoomArtifact(id="", model=network, metrics={}), device="cpu", batch_size=6)
    pixels = torch.randint(0, 255, (12, 3, 22, 22), dtype=torch.uint8)
    wanted, sizes, whole = filtering(pixels), [], filtering._run

    def run(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        logits: torch.Tensor = whole(batch)
        return logits

    monkeypatch.setattr(filtering, "_run", run)
    np.testing.assert_allclose(filtering(pixels), wanted, atol=1e-3)
    assert sizes == [6, 3, 3, 3, 3]
