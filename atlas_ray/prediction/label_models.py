"""Models of labels that are run together, which give batches of products the log-odds of each label.

Dimensions: batch; N labels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from atlas_ray.artifacts import Artifact
from atlas_ray.errors import ConfigError
from atlas_ray.modalities.products import Products
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.prediction.device import choose_device, choose_dtype
from atlas_ray.prediction.engines import AUTO
from atlas_ray.prediction.networks import Single, build_single, join_outputs, output_of


class LabelModels:
    """Models of labels that are run together; a model that several of them fuse is run once."""

    def __init__(
        self, artifacts: Mapping[str, Artifact], device: str = "auto", precision: str = "auto", engine: str = AUTO
    ) -> None:
        """Prepare models; their networks are changed.

        Args:
            artifacts: The models by any name; all of them have the same labels.
            device: As in `PredictorConfig`.
            precision: As in `PredictorConfig`.
            engine: As in `PredictorConfig`.

        Raises:
            ConfigError: if they read pictures of different sizes, or the engine does not run on the device.
        """
        self._device = choose_device(device)
        dtype = choose_dtype(precision, self._device)
        self._outputs = len(next(iter(artifacts.values())).labels or ())
        self._parts = {
            name: tuple((artifact.fused or {artifact.modalities[0]: artifact}).items())
            for name, artifact in artifacts.items()
        }
        self._policies: dict[str, FusionNetwork] = {}
        self._members: dict[str, Single] = {}
        for name, artifact in artifacts.items():
            if artifact.members:
                self._policies[name] = artifact.model.eval().requires_grad_(False).to(self._device)
            for _, part in self._parts[name]:
                if part.id not in self._members:
                    self._members[part.id] = build_single(part, self._device, dtype, engine)
        self.modalities = tuple(dict.fromkeys(name for member in self._members.values() for name in member.modalities))
        sizes = sorted({member.image_size_px for member in self._members.values() if member.image_size_px})
        if len(sizes) > 1:
            raise ConfigError(
                f"the models read pictures of {' and '.join(map(str, sizes))} px; evaluate them one at a time"
            )
        self.image_size_px = sizes[0] if sizes else 0

    @torch.inference_mode()
    def __call__(self, products: Products) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each model's log-odds, (batch, N), and the products that have any of its modalities, (batch,)."""
        has = {name: products.present([name])[:, 0].to(self._device) for name in self.modalities}
        outputs = {
            identity: output_of(member, products, has[member.modalities[0]], member.logits, self._outputs)
            for identity, member in self._members.items()
        }
        answers = {}
        for name, parts in self._parts.items():
            own_outputs = [outputs[part.id] for _, part in parts]
            present = torch.stack([has[modality] for modality, _ in parts], 1)
            policy = self._policies.get(name)
            log_odds = policy(*join_outputs(policy, own_outputs, present)) if policy else own_outputs[0].scores
            answers[name] = (log_odds, present.any(1))
        return answers
