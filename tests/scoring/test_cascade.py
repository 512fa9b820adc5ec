"""Cascades: products that the texts alone are sure enough about, whose pictures nobody asks for."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
import torch

from atlas_ray.artifacts import load_artifact, save_zoom_artifact, set_temperature
from atlas_ray.errors import ArtifactError, ConfigError, OutputError
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader
from atlas_ray.metrics.decision import Decision
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.reports.terminal import print_score
from atlas_ray.runtime.checkpoint import CHECKPOINT
from atlas_ray.runtime.fetch import Fetch
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.joined import NO_PICTURE
from atlas_ray.runtime.settings import PlanConfig
from atlas_ray.scoring.gate import TextGate
from atlas_ray.scoring.predict import PredictorSpec
from atlas_ray.scoring.run import plan
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.scoring.thresholds import TextsAlone, texts_alone
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from tests.scoring.test_incremental import run, stop_after, write
from tests.scoring.test_score import same
from tests.support.parts import make_fused, make_text_artifact, picture, rows
from tests.support.stores import Front

TITLES = ("red shirt", "blue saree", "red saree saree", "blue", "shirt shirt blue red", "saree")


def with_curve(model: str, decisions: Sequence[Decision], products: int = 40) -> None:
    """Write into a model what calibration measured of its answers by texts alone."""
    curve = [asdict(one) for one in decisions]
    every = [asdict(Decision(threshold=0.0, precision=0.9, answered=1.0, leaves=1.0))]
    set_temperature(model, 1.0, {"decisions": every, "texts_alone": {"products": products, "decisions": curve}})


def decision(threshold: float, precision: float, answered: float) -> Decision:
    return Decision(threshold=threshold, precision=precision, answered=answered, leaves=answered)


def sureness(model: str, titles: Sequence[str | None]) -> list[float]:
    """Return the probability of the leaf of each title alone; 0 where there is none."""
    config = PredictorConfig(precision="float32")
    table, _ = PathPredictor(load_artifact(model), config)([None] * len(titles), {"title": titles})
    return [probability or 0.0 for probability in table["probability"].to_pylist()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, garments: Taxonomy) -> str:
    """A model that is sure enough of half of `TITLES`."""
    uri = make_fused(tmp_path_factory.mktemp("cascade"), garments)
    low, high = sorted(sureness(uri, TITLES))[2:4]
    assert low < high
    with_curve(uri, [decision(0.0, 0.8, 1.0), decision((low + high) / 2, 0.97, 0.5), decision(high + 1e-6, 1.0, 0.1)])
    return uri


@pytest.fixture(scope="module")
def sure(model: str) -> set[str]:
    """The titles that it is sure enough of."""
    threshold = json.loads((Path(model) / "metrics.json").read_text())["calibration"]["texts_alone"]["decisions"][1]
    found = {title for title, p in zip(TITLES, sureness(model, TITLES), strict=True) if p >= threshold["threshold"]}
    assert len(found) == 3
    return found


def config(model: str, **fields: Any) -> ScoreConfig:
    fields = {"catalog": "catalog", "output": "run", "cascade": 0.95, **fields}
    return ScoreConfig(model=model, **fields)


def measured(model: str, **fields: Any) -> TextsAlone | None:
    return texts_alone(load_artifact(model, target=None), config(model, **fields), least=0.0)


def test_the_least_threshold_that_reached_the_precision_is_chosen(model: str) -> None:
    assert measured(model, cascade=None) is None
    curve = json.loads((Path(model) / "metrics.json").read_text())["calibration"]["texts_alone"]["decisions"]
    for wanted, row in ((0.8, 0), (0.81, 1), (0.97, 1), (0.98, 2)):
        found = measured(model, cascade=wanted)
        assert found == TextsAlone(curve[row]["threshold"], curve[row]["precision"], curve[row]["answered"], 40)
    # Where the run would not answer with a leaf of that probability, the pictures may know better.
    artifact = load_artifact(model)
    found = texts_alone(artifact, config(model, cascade=0.9), least=curve[1]["threshold"] + 1e-9)
    assert found is not None
    assert found.threshold == curve[2]["threshold"]


def test_what_makes_no_sense_is_refused(model: str, small_model: str, garments: Taxonomy, tmp_path: Path) -> None:
    unsure = str(shutil.copytree(model, tmp_path / "unsure"))
    with_curve(unsure, [decision(0.5, 0.99, 0.4), decision(0.6, 0.97, 0.4)])
    with pytest.raises(ArtifactError, match=r"by the texts alone: no threshold reached the precision 0.995 .* 0.9900"):
        measured(unsure, cascade=0.995)
    fresh = make_fused(tmp_path, garments)
    with pytest.raises(ArtifactError, match=rf"run `atlas-ray calibrate --model {fresh} --catalog CATALOG` first"):
        measured(fresh)
    with pytest.raises(ConfigError, match="reads picture alone; --cascade is for a model of pictures and texts"):
        measured(small_model)
    make_text_artifact(str(tmp_path / "title"), garments, "title", ["red"])
    with pytest.raises(ConfigError, match="reads title alone; --cascade is for"):
        measured(str(tmp_path / "title"))
    make_text_artifact(str(tmp_path / "labels"), garments, "title", ["red"], LabelSpace(garments))
    with pytest.raises(ConfigError, match="names labels, each by itself; leave --cascade out"):
        measured(str(tmp_path / "labels"))
    with pytest.raises(ConfigError, match="cascade goes with pictures, and embeddings are read instead of them"):
        config(model, embeddings="vectors")
    with pytest.raises(ConfigError, match="cascade is 1"):
        config(model, cascade=1.0)


class Progress:
    """Stands for the actor that workers report to."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.block = SimpleNamespace(remote=lambda counts, spans, memory: self.stages.extend(spans))
        self.say = SimpleNamespace(remote=lambda _: None)


def spec_of(model: str, garments: Taxonomy) -> PredictorSpec:
    return PredictorSpec(
        model=model, taxonomy_json=garments.to_json(), within=(), config=PredictorConfig(precision="float32"),
        sizes_px=(32,), zoom_model=None, zoom_threshold=None, texts=("title", "description"),
        texts_alone=measured(model),
    )  # fmt: skip


def test_pictures_of_sure_products_are_not_asked_for(
    model: str, sure: set[str], garments: Taxonomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str | None] = [
        *TITLES,
        *TITLES,
        None,
        "-",
        next(iter(sure)),
    ]  # two pictures each; texts without a word
    uris = [str(tmp_path / f"{number}.jpg") for number in range(len(titles) - 1)] + [NO_PICTURE]
    for number, uri in enumerate(uris[:-1]):
        Path(uri).write_bytes(picture(number))
    asked: list[str] = []
    get_many = ObjectReader.get_many

    def counted(reader: ObjectReader, wanted: Sequence[str]) -> Any:
        asked.extend(wanted)
        return get_many(reader, wanted)

    monkeypatch.setattr(ObjectReader, "get_many", counted)
    progress, spec = Progress(), spec_of(model, garments)
    options: Mapping[str, Any] = {"threads": 2, "timeout_s": 5.0, "outage_s": 0.0, "read": True}
    table = pa.table(
        {"image_uri": uris, "title": pa.array(titles, pa.string()), "description": pa.nulls(len(uris), pa.string())}
    )
    found = Fetch(progress, **options, make_gate=lambda: TextGate(spec))(table)
    wanted = [uri for uri, title in zip(uris, titles, strict=True) if title not in sure and uri != NO_PICTURE]
    assert asked == wanted
    assert len(wanted) == 2 * 3 + 2
    for name in ("bytes", "sha256"):
        assert [uri for uri, value in zip(uris, found[name].to_pylist(), strict=True) if value is not None] == wanted
    assert found["error_code"].null_count == len(uris)
    assert progress.stages == ["fetch", "gate"]
    # Nobody is sure of nothing.
    assert not TextGate(spec)(table.slice(0, 0)).any()
    never = replace(spec, texts_alone=TextsAlone(1.5, 1.0, 0.0, 40))
    assert not TextGate(never)(table).any()


@dataclass(frozen=True)
class Shop:
    """A catalogue in a store that remembers what it was asked for."""

    front: Front
    catalog: str
    pictures: Mapping[str, str]
    """The title of each picture's product."""

    def asked(self) -> Counter[str]:
        """Return how often each picture was asked for since the last call."""
        paths = [unquote(request.partition("?")[0]) for request in self.front.asked]
        found = Counter(f"gs:/{path.partition(' ')[2]}" for path in paths)
        self.front.asked.clear()
        return Counter({uri: found[uri] for uri in self.pictures if found[uri]})


@pytest.fixture(scope="module")
def store(google: Front, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Products of two pictures for each title, one without a text, and one without a picture."""
    titles = {f"P{number}": title for number, title in enumerate((*TITLES, *TITLES))} | {"untitled": ""}
    listed = {product: [f"gs://shop/cascade/{product}-{n}.jpg" for n in range(2)] for product in titles}
    for number, uri in enumerate(uri for uris in listed.values() for uri in uris):
        storage.write_bytes(uri, picture(number, 40))
    pictures = {uri: titles[product] for product, uris in listed.items() for uri in uris}
    catalog = write(tmp_path_factory.mktemp("shop") / "catalog", {**listed, "bare": []}, {**titles, "bare": TITLES[0]})
    google.asked.clear()
    return Shop(google, catalog, pictures)


@pytest.mark.long
def test_only_the_pictures_of_unsure_products_are_fetched(
    store: Shop, model: str, sure: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wanted = {uri for uri, title in store.pictures.items() if title not in sure}
    assert len(wanted) == 14
    whole = run(store.catalog, model, tmp_path / "whole")
    assert set(store.asked()) == set(store.pictures)
    assert whole.run["cascade"] is None

    # Stopped when half of it is committed, and gone on with.
    output = tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_after(patched, Job, "stream")
        with pytest.raises(KeyboardInterrupt):
            run(store.catalog, model, output, cascade=0.95, rows_per_file=4, batch_size=2)
    sorted((output / CHECKPOINT).iterdir())[-1].unlink()
    report = run(store.catalog, model, output, cascade=0.95, rows_per_file=4, batch_size=2)
    assert 0 < report.run["resumed_from"] < len(store.pictures)
    assert set(store.asked()) == wanted
    counts, cascade = report.counts, report.run["cascade"]
    assert counts["input"] == counts["scored"] == len(store.pictures) + 1
    assert (counts["pictures_unread"], counts["products_by_texts"]) == (12, 6)
    assert cascade["share_read"] == pytest.approx(14 / 26)
    assert (cascade["precision"], cascade["risk"], cascade["coverage"]) == (0.97, pytest.approx(0.03), 0.5)

    unread = [row for row in rows(output, "predictions") if store.pictures.get(row["image_uri"]) in sure]
    assert len(unread) == 12
    for row in unread:
        assert (row["sha256"], row["etag"], row["picture_error"]) == (None, None, None)
        assert row["texts_id"] is not None
        assert row["probability"] == pytest.approx(sureness(model, [store.pictures[row["image_uri"]]])[0], abs=1e-5)
    others = [
        [row for row in rows(folder, "products") if row["images_unread"] in (0, None) and row["product_id"] in kept]
        for kept in [{row["product_id"] for row in rows(output, "products") if not row["images_unread"]}]
        for folder in (output, tmp_path / "whole")
    ]
    assert len(others[0]) == 8
    assert same([row | {"images_unread": None} for row in others[0]], others[1])

    with pytest.raises(OutputError, match=r"holds a run with cascade = 0.95, this one has 0.9;"):
        run(store.catalog, model, output, cascade=0.9)
    assert run(store.catalog, model, output, cascade=0.95).already_done
    print_score(report)
    printed = capsys.readouterr().out
    assert "6 products by their texts alone, 53.8% of the pictures read; risk 0.0300 at coverage 0.500" in printed

    # The next day: what the texts alone decided holds, and nobody looks for those pictures.
    store.asked()
    report = run(store.catalog, model, tmp_path / "next", cascade=0.96, previous=str(output))
    assert (report.counts["carried"], report.counts["scored"]) == (counts["input"], 0)
    assert set(store.asked()) == wanted
    assert report.counts["pictures_unread"] == 12
    assert same(rows(tmp_path / "next", "predictions"), rows(output, "predictions"))


@pytest.mark.slow  # an end-to-end run of half a minute and more
@pytest.mark.long
def test_close_ups_are_told_apart_among_what_is_read(store: Shop, model: str, sure: set[str], tmp_path: Path) -> None:
    torch.manual_seed(3)
    zoom = str(tmp_path / "zoom")
    save_zoom_artifact(zoom, ZoomNetwork(ZoomConfig(image_size_px=30)), metrics={})
    store.asked()
    output = tmp_path / "run"
    report = run(store.catalog, model, output, cascade=0.95, zoom_model=zoom, zoom_threshold=0.0, decode_stage="stage")
    assert set(store.asked()) == {uri for uri, title in store.pictures.items() if title not in sure}
    assert (report.counts["filtered"], report.counts["pictures_unread"]) == (7, 12)  # of two close-ups one is scored
    for row in rows(output, "products"):
        by_texts = row["images_unread"] == 2
        assert row["only_zoomed"] == (not by_texts and row["product_id"] != "bare")
        assert (row["zoomed_probability"] is None) == (by_texts or row["product_id"] == "bare")
        assert row["category_path"]
    planned = plan(
        config(model, catalog=store.catalog, output=str(tmp_path / "planned")), PlanConfig(plan_pictures=100)
    )
    assert planned.notes[-1] == "not read, answered by texts alone: 46.2% of the pictures"
