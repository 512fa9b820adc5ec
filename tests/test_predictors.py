import io

import pytest
import torch
from PIL import Image

from atlas_ray.artifacts import load_artifact
from atlas_ray.decoding import PREDICTED
from atlas_ray.errors import ConfigError, TaxonomyError
from atlas_ray.predictors import PathPredictor, PredictorConfig, choose_device, choose_dtype
from atlas_ray.products import Products
from atlas_ray.records import PREDICTIONS
from atlas_ray.taxonomy import Taxonomy
from tests.parts import make_artifact


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


def test_the_columns_are_those_of_the_contract(small_model: str, garments: Taxonomy) -> None:
    table, refused = predictor(small_model, top_k=3)(pictures(5))
    assert refused == {}
    assert table.schema.names == list(PREDICTED)
    assert all(table.schema.field(name).type == PREDICTIONS.field(name).type for name in PREDICTED)
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


def test_a_refused_picture_is_a_null_row(small_model: str) -> None:
    contents = pictures(7)
    contents[0], contents[4] = b"", b"junk"
    table, refused = predictor(small_model, batch_size=3)(contents)
    assert {index: error.code for index, error in refused.items()} == {0: "empty", 4: "not_an_image"}
    assert table["category_path"].is_null().to_pylist() == [index in (0, 4) for index in range(7)]
    everything_bad, refused = predictor(small_model)([b"", b"x"])
    assert everything_bad["probability"].null_count == len(refused) == 2


def test_batches_do_not_matter(small_model: str) -> None:
    contents = pictures(9)
    whole, _ = predictor(small_model, batch_size=9)(contents)
    for size in (1, 4):
        parts, _ = predictor(small_model, batch_size=size)(contents)
        assert parts["category_path"].to_pylist() == whole["category_path"].to_pylist()
        torch.testing.assert_close(
            torch.tensor(parts["probability"].to_pylist()), torch.tensor(whole["probability"].to_pylist())
        )


def test_beam_and_exact_choose_from_the_same_tree(small_model: str) -> None:
    contents = pictures(6)
    exact, _ = predictor(small_model, search="exact")(contents)
    beam, _ = predictor(small_model, search="beam", beam_width=20)(contents)
    assert exact["category_path"].to_pylist() == beam["category_path"].to_pylist()


def test_a_subset_and_a_prefix_narrow_the_answers(small_model: str, garments: Taxonomy) -> None:
    contents = pictures(6)
    subset = Taxonomy(reversed(garments.leaves[3:]), name="subset")
    for chosen in (predictor(small_model, subset), predictor(small_model, within=("Women",))):
        table, _ = chosen(contents)
        assert {tuple(path) for path in table["category_path"].to_pylist()} <= set(chosen.taxonomy.leaves)
    reordered, _ = predictor(small_model, Taxonomy(reversed(garments.leaves), name="reordered"))(contents)
    plain, _ = predictor(small_model)(contents)
    assert reordered["category_path"].to_pylist() == plain["category_path"].to_pylist()


def test_what_the_model_does_not_know_is_refused(small_model: str) -> None:
    with pytest.raises(TaxonomyError, match="no token for 'Footwear'"):
        predictor(small_model, Taxonomy([("Men", "Footwear")], name="other"))
    with pytest.raises(TaxonomyError, match="'Kids' is not in the taxonomy"):
        predictor(small_model, within=("Kids",))


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


def test_attention_maps_come_with_the_paths(small_model: str) -> None:
    chosen = predictor(small_model, batch_size=2)
    decoded, _ = chosen.decode(pictures(3))
    table, maps = chosen.explain(Products(decoded))
    assert table.equals(chosen.predict(Products(decoded)))
    assert maps.shape == (3, chosen.scope.tree.trie.depth, 4, 4)
    lengths = [len(path) for path in table["category_path"].to_pylist()]
    expected = [[float(level < length) for level in range(maps.shape[1])] for length in lengths]
    torch.testing.assert_close(maps.sum((2, 3)), torch.tensor(expected))


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
