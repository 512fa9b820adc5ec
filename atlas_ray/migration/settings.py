"""The settings of a migration."""

from dataclasses import dataclass

from atlas_ray.errors import ConfigError
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class MigrateConfig(Settings):
    """What to migrate, from which version of a taxonomy to which."""

    run: str | None = setting("a finished scoring run: its predictions and labels are migrated", None)
    catalog: str | None = setting("or a catalogue: its labels are", None)
    old: str = setting("the taxonomy that it is of: a file, or the built-in atlas-52")
    new: str = setting("the taxonomy's next version")
    mapping: str | None = setting("a CSV of old_path, new_path, or a mapping as Shopify publishes them", None)
    output: str = setting("where the migrated tables, the lists of what is left to decide, and run.json go")

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
