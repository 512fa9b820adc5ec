"""The settings of a migration."""

from dataclasses import dataclass

from atlas_ray.errors import ConfigError
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class MigrateConfig(Settings):
    """The input, the output and both taxonomies of a migration."""

    run: str | None = setting("finished scoring run whose predictions and labels are migrated", None)
    catalog: str | None = setting("catalogue whose labels are migrated, instead of a run", None)
    old: str = setting("taxonomy of the run or catalogue: a file, or the built-in atlas-52")
    new: str = setting("next version of the taxonomy")
    mapping: str | None = setting("CSV of old_path, new_path, or a mapping file as Shopify publishes it", None)
    output: str = setting("folder of the migrated tables, the lists of undecided products, and run.json")

    def __post_init__(self) -> None:
        """Refuse a run with a catalogue, and neither of them.

        Raises:
            ConfigError: naming both.
        """
        super().__post_init__()
        if bool(self.run) == bool(self.catalog):
            raise ConfigError(
                "both --run and --catalog are given; expected one of them"
                if self.run
                else "nothing to migrate; name a scoring run with --run, or a catalogue with --catalog"
            )
