"""A search is added as its page says: one function, one entry."""

import argparse
from pathlib import Path

import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.decoding.searches import SEARCHES
from atlas_ray.errors import ConfigError
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.settings import add_flags
from tests.docs.test_walks import walk


@pytest.mark.long
def test_a_search_from_outside_is_one_entry(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"search is 'greedy'; expected one of auto, exact, beam$"):
        PredictorConfig(search="greedy")
    try:
        found = walk("extending/search.md")
        parser = argparse.ArgumentParser()
        add_flags(parser, PredictorConfig)
        assert "auto|exact|beam|greedy" in parser.format_help()
        narrow = PathPredictor(load_artifact("model"), PredictorConfig(search="beam", beam_width=1))
        wanted, _ = narrow([Path("shirt.jpg").read_bytes()])
        assert found["refused"] == {}
        assert found["predict"].scope.search == "greedy"
        assert found["answers"]["category_path"].to_pylist() == wanted["category_path"].to_pylist()
        assert 0 < found["answers"]["probability"][0].as_py() < 1
        exact, _ = PathPredictor(load_artifact("model"))([Path("shirt.jpg").read_bytes()])
        assert found["answers"]["probability"][0].as_py() <= exact["probability"][0].as_py() + 1e-6
    finally:
        SEARCHES.pop("greedy", None)
