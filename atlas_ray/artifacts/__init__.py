"""Artifacts: a folder that holds one trained model.

    weights.safetensors   the network's tensors
    model.json            kind, configuration, vocabulary, content id; written last
    taxonomy.json         the taxonomy it was trained on
    metrics.json          what its training measured
    words.json            the words that a model of texts knows
    tokenizer.json        how a sentence encoder, or a model over one, cuts texts into tokens
    fitted-HASH.npy       which products it was fitted on, as hashes of their ids; an imported model does not know
    encoder-ENGINE.*      its picture encoder, compiled for an engine by `atlas-ray optimize`
    picture/ title/ description/    of a fused model or a head: the artifacts that it is made over

A bare encoder and a zoom filter have neither vocabulary nor taxonomy. A model of labels has their names and
thresholds in `model.json`.

No pickle and no machine code is ever loaded from an artifact.
"""

from atlas_ray.artifacts.artifact import Artifact, Network, ZoomArtifact
from atlas_ray.artifacts.files import TOKENS, WORDS, load_words, save_index
from atlas_ray.artifacts.loading import (
    check_labels,
    check_member,
    check_target,
    load_artifact,
    load_network,
    load_zoom_artifact,
)
from atlas_ray.artifacts.saving import (
    add_compiled,
    copy_artifact,
    new_encoder,
    save_artifact,
    save_encoder,
    save_joint_artifact,
    save_zoom_artifact,
    set_temperature,
    set_thresholds,
)
from atlas_ray.artifacts.sentence_folders import read_sentence_encoder

__all__ = [
    "TOKENS",
    "WORDS",
    "Artifact",
    "Network",
    "ZoomArtifact",
    "add_compiled",
    "check_labels",
    "check_member",
    "check_target",
    "copy_artifact",
    "load_artifact",
    "load_network",
    "load_words",
    "load_zoom_artifact",
    "new_encoder",
    "read_sentence_encoder",
    "save_artifact",
    "save_encoder",
    "save_index",
    "save_joint_artifact",
    "save_zoom_artifact",
    "set_temperature",
    "set_thresholds",
]
