"""The sources of networks that make vectors: trained models, and encoders whose weights a Python package brings."""

from dataclasses import dataclass

from atlas_ray.artifacts import Network, copy_artifact, load_network, new_encoder, save_encoder
from atlas_ray.errors import ConfigError
from atlas_ray.io import storage
from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.encoder import EncoderConfig, EncoderNetwork
from atlas_ray.models.weights import load_backbone_weights

PACKAGE = "package:"
"""Begin of the names of encoders whose weights a package brings."""


@dataclass(frozen=True)
class EncoderSource:
    """Where a network comes from that turns products into vectors."""

    model: str
    """The folder of an artifact, or `package:NAME` with the name of a backbone that has a package."""
    image_size_px: int | None = None
    """Side of the pictures, for `package:NAME`; None for the usual one."""

    def load(self) -> Network:
        """Load the network, on the CPU.

        Raises:
            ConfigError: for a name without a package, or a size for a folder's model, which has its own.
            ArtifactError: if the folder holds no such model, or the package is not installed.
        """
        if not self.model.startswith(PACKAGE):
            network = load_network(self.model)
            if self.image_size_px is not None:
                raise ConfigError(
                    f"image_size_px is {self.image_size_px}, which is for {PACKAGE}NAME; {self.model} takes pictures "
                    f"of {network.image_size_px} px: leave it out"
                )
            return network
        name = self.model.removeprefix(PACKAGE)
        packaged = [other for other, spec in BACKBONES.items() if spec.package]
        if name not in packaged:
            known = ", ".join(PACKAGE + other for other in packaged)
            raise ConfigError(f"model is {self.model!r}; expected a folder, or one of {known}")
        size = self.image_size_px or BACKBONES[name].image_size_px
        made = EncoderNetwork(EncoderConfig(backbone=name, image_size_px=size)).eval()
        load_backbone_weights(made.encoder, "package")
        return new_encoder(made)

    def keep(self, network: Network, uri: str) -> "EncoderSource":
        """Write a copy of the loaded network into a folder, unless it is there; return where it comes from now."""
        if not storage.exists(storage.join(uri, "model.json")):
            if self.model.startswith(PACKAGE):
                save_encoder(uri, network.model)
            else:
                copy_artifact(self.model, uri)
        return EncoderSource(uri)
