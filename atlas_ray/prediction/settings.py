"""The settings of inference."""

from dataclasses import dataclass

from atlas_ray.decoding.searches import SEARCH_CHOICES, SEARCH_HELP
from atlas_ray.modalities.limits import PictureLimits, min_side_setting
from atlas_ray.prediction.engines import AUTO, ENGINE_CHOICES, ENGINE_HELP
from atlas_ray.prediction.feeding import FEEDING
from atlas_ray.settings import Settings, setting

PRECISIONS = ("auto", "float32", "bfloat16")
BATCH_SIZE_HELP = "pictures the model takes at once; {cpu} on a CPU and 256 on a GPU by default"


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(Settings):
    """How a model is run."""

    search: str = setting(SEARCH_HELP, "auto", choices=SEARCH_CHOICES)
    beam_width: int = setting("prefixes that the beam keeps a picture", 5, low=1, high=1000)
    top_k: int = setting("paths kept a picture, the chosen one included", 5, low=1, high=1000)
    precision: str = setting(
        "float32, bfloat16, or auto: bfloat16 if the device computes in it", "auto", choices=PRECISIONS
    )
    batch_size: int | None = setting(BATCH_SIZE_HELP.format(cpu=FEEDING["cpu"].batch_size), None, low=1, high=8192)
    device: str = setting("cpu, cuda, cuda:N or auto", "auto")
    engine: str = setting(ENGINE_HELP, AUTO, choices=ENGINE_CHOICES)
    threads: int = setting(
        "PyTorch threads on the CPU; 0: its own choice, or in a scoring run the cores shared among the workers",
        0,
        low=0,
        high=1024,
    )
    min_side_px: int = min_side_setting()
    decode_threads: int = setting("threads that decode; 0: one a core, at most 16", 0, low=0, high=256)

    @property
    def limits(self) -> PictureLimits:
        """The limits of pictures."""
        return PictureLimits(min_side_px=self.min_side_px)
