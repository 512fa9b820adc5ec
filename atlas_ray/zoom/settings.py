"""The settings of the zoom filter's training; the defaults are the Atlas paper's where it names a value."""

from dataclasses import dataclass

from atlas_ray.errors import ConfigError
from atlas_ray.modalities.limits import min_side_setting
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class ZoomTraining(Settings):
    """What to learn close-ups from, and how."""

    output: str = setting("where the model goes")
    catalog: str | None = setting("a catalogue, labelled or not: close-ups are cut from its own pictures", None)
    zoomed: str | None = setting("a folder of zoomed pictures; it goes with --normal", None)
    normal: str | None = setting("a folder of normal pictures", None)
    labels: str | None = setting("a JSON file of labelled pictures, such as the Atlas zvsn_data.json", None)
    image_base: str | None = setting("folder that its file names are below; the file's own by default", None)
    pictures: int = setting("pictures drawn at random, of those there are", 4000, low=20, high=1_000_000)
    image_size_px: int = setting("side of the square that pictures become", 150, low=22, high=2048)
    min_side_px: int = min_side_setting()
    epochs: int = setting("passes over the training split", 10, low=1, high=10_000)
    batch_size: int = setting("pictures an optimizer step", 32, low=1, high=65_536)
    learning_rate: float = setting("of RMSprop", 1e-3, low=0, high=10)
    target_precision: float = setting(
        "share of truly zoomed among the pictures found zoomed that no network has seen; it sets the threshold",
        0.95,
        low=0,
        high=1,
    )
    folds: int = setting(
        "networks that each judge a part of the training and validation pictures which they have not seen, for the "
        "threshold; 1: the model itself, on the validation pictures alone",
        3,
        low=1,
        high=100,
    )
    precision: str = setting(
        "float32, bfloat16 (autocast), or auto: bfloat16 if the device computes in it",
        "auto",
        choices=("auto", "float32", "bfloat16"),
    )
    device: str = setting("cpu, cuda, cuda:N or auto", "auto")
    threads: int = setting("threads of PyTorch and of decoding; 0: PyTorch's choice", 0, low=0, high=1024)
    seed: int = setting("of what is drawn, the split, the weights and shuffling", 0, low=0, high=2**31)

    def __post_init__(self) -> None:
        """Refuse values out of range, and anything but one source."""
        super().__post_init__()
        if (self.zoomed is None) != (self.normal is None):
            raise ConfigError("zoomed and normal go together: two folders of pictures")
        if sum(source is not None for source in (self.catalog, self.zoomed, self.labels)) != 1:
            raise ConfigError("expected one source: catalog, zoomed and normal, or labels")
        if self.image_base is not None and self.labels is None:
            raise ConfigError(f"image_base is {self.image_base!r}, but there are no labels that it belongs to")
