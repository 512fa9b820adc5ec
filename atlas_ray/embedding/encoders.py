"""The sources of networks that make vectors: trained models, and encoders that others trained."""

from dataclasses import dataclass

from atlas_ray.artifacts import Network, copy_artifact, load_network, new_encoder, read_sentence_encoder, save_encoder
from atlas_ray.errors import ConfigError
from atlas_ray.io import storage
from atlas_ray.models.backbones import BACKBONES, PACKAGE
from atlas_ray.models.encoder import EncoderConfig, EncoderNetwork
from atlas_ray.models.weights import load_backbone_weights


@dataclass(frozen=True)
class EncoderSource:
    """Where a network comes from that turns products into vectors."""

    uri: str
    """The folder of an artifact or a sentence encoder, or `package:NAME` with the name of a packaged encoder."""
    image_size_px: int | None = None
    """Side of the pictures, for a packaged encoder of pictures; None for the usual one."""
    field: str | None = None
    """The text that a sentence encoder reads, title or description; None for other networks."""
    prefix: str | None = None
    """The text that is put before each text of a sentence encoder; None for what its folder says."""

    def load(self) -> Network:
        """Load the network, on the CPU.

        Raises:
            ConfigError: for a name without a package, or a size for a network that has its own.
            ArtifactError: if the folder holds no such network, or the package is not installed.
        """
        if self.field or not self.packaged:
            sentences = self.field and read_sentence_encoder(self.uri, self.field, prefix=self.prefix)
            network = sentences or load_network(self.uri)
            if self.image_size_px is not None:
                raise ConfigError(
                    f"image_size_px is {self.image_size_px}, which is for pictures of {PACKAGE}NAME; {self.uri} takes "
                    + (f"pictures of {network.image_size_px} px" if network.image_size_px else "none")
                    + ": leave it out"
                )
            return network
        name = self.uri.removeprefix(PACKAGE)
        packaged = [other for other, spec in BACKBONES.items() if spec.package]
        if name not in packaged:
            known = ", ".join(PACKAGE + other for other in packaged)
            raise ConfigError(f"model is {self.uri!r}; expected a folder, or one of {known}")
        size = self.image_size_px or BACKBONES[name].image_size_px
        made = EncoderNetwork(EncoderConfig(backbone=name, image_size_px=size)).eval()
        load_backbone_weights(made.encoder, "package")
        return new_encoder(made)

    @property
    def packaged(self) -> bool:
        """Whether a Python package brings it."""
        return self.uri.startswith(PACKAGE)

    def keep(self, network: Network, uri: str) -> "EncoderSource":
        """Write a copy of the loaded network into a folder, unless it is there; return where it comes from now."""
        if not storage.exists(storage.join(uri, "model.json")):
            if self.packaged or self.field:
                save_encoder(uri, network)
            else:
                copy_artifact(self.uri, uri)
        return EncoderSource(uri)
