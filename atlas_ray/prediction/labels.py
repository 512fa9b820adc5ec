"""The models of labels over batches: products to the log-odds of each label.

Dimensions: batch; N labels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from atlas_ray.artifacts import Artifact
from atlas_ray.errors import ConfigError
from atlas_ray.modalities.products import Products
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.prediction.networks import Single, build_single, joined, opinion_of
from atlas_ray.prediction.paths import choose_device, choose_dtype


class LabelPredictor:
    """Models of labels, asked together: one that several of them are made of is asked once."""

    def __init__(self, artifacts: Mapping[str, Artifact], device: str = "auto", precision: str = "auto") -> None:
        """Prepare models, whose networks are taken over.

        Args:
            artifacts: By any name; all of them name the same labels.
            device: As in `PredictorConfig`.
            precision: Likewise.

        Raises:
            ConfigError: where they look at pictures of different sizes.
        """
        self._device = choose_device(device)
        dtype = choose_dtype(precision, self._device)
        self._outputs = len(next(iter(artifacts.values())).labels or ())
        self._parts = {name: tuple((one.members or {one.reads[0]: one}).items()) for name, one in artifacts.items()}
        self._policies: dict[str, FusionNetwork] = {}
        self._members: dict[str, Single] = {}
        for name, artifact in artifacts.items():
            if artifact.members:
                self._policies[name] = artifact.model.eval().requires_grad_(False).to(self._device)
            for _, part in self._parts[name]:
                if part.id not in self._members:
                    self._members[part.id] = build_single(part, self._device, dtype)
        self.reads = tuple(dict.fromkeys(read for member in self._members.values() for read in member.reads))
        sizes = sorted({member.image_size_px for member in self._members.values() if member.image_size_px})
        if len(sizes) > 1:
            raise ConfigError(f"the models look at pictures of {' and '.join(map(str, sizes))} px; ask them apart")
        self.image_size_px = sizes[0] if sizes else 0

    @torch.inference_mode()
    def __call__(self, products: Products) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each model's log-odds, (batch, N), and of which products it has something to go by, (batch,)."""
        there = {read: products.there([read])[:, 0].to(self._device) for read in self.reads}
        said = {
            identity: opinion_of(member, products, there[member.reads[0]], member.logits, self._outputs)
            for identity, member in self._members.items()
        }
        found = {}
        for name, parts in self._parts.items():
            opinions, have = [said[part.id] for _, part in parts], torch.stack([there[read] for read, _ in parts], 1)
            policy = self._policies.get(name)
            fused = policy(*joined(policy, opinions, have)) if policy else opinions[0].said
            found[name] = (fused, have.any(1))
        return found
