"""Folders of small sentence encoders with weights of chance, as Hugging Face's hub lays them out."""

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ("red", "blue", "black", "shirt", "shirts", "saree", "sarees", "trousers", "jackets", "dress", "for", "men",
         "women", "wear", "western", "ethnic", "query", ":", ">")  # fmt: skip
SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SHAPES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "deberta-v2": {"relative_attention": True, "max_relative_positions": 8, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "modernbert": {"global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3, "eos_token_id": 3,
                   "bos_token_id": 2},
}  # fmt: skip
"""What a family of networks needs beside `SMALL`."""


def write_tokenizer(folder: Path, more: tuple[str, ...] = ()) -> int:
    """Write a `tokenizer.json` of words; return how many tokens it has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *more)
    tokenizer: Any = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=9)  # ours is another
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(names)


def make_sentence_folder(
    folder: Path, model_type: str = "bert", *, pooling: dict[str, Any] | None = None, prompts: Any = None
) -> Any:
    """Write a folder; return its network, as transformers builds it.

    Args:
        folder: A folder that is not there yet.
        model_type: The family of the network.
        pooling: The content of `1_Pooling/config.json`; None for a folder without modules.
        prompts: The prompts of `config_sentence_transformers.json`.
    """
    import transformers

    folder.mkdir(parents=True)
    count = write_tokenizer(folder)
    torch.manual_seed(0)
    shape = {"vocab_size": count, "pad_token_id": 0, **SMALL, **SHAPES.get(model_type, {})}
    if model_type.startswith("siglip"):
        text = {**shape, "max_position_embeddings": 12, "bos_token_id": 2, "eos_token_id": 3, "projection_size": 16}
        vision = {**SMALL, "image_size": 32, "patch_size": 16}
        config = transformers.AutoConfig.for_model(model_type, text_config=text, vision_config=vision)
    else:
        config = transformers.AutoConfig.for_model(model_type, max_position_embeddings=40, **shape)
    network = transformers.AutoModel.from_config(config).eval()
    network.save_pretrained(folder)
    if pooling is not None:
        modules = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in
                   (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))]  # fmt: skip
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return network
