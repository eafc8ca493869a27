"""From an older schema to the present one. Alembic is imported only when there is something to do."""

from __future__ import annotations

import re
from pathlib import Path


def upgrade(url: str) -> None:
    """Run every migration the database lacks, in one transaction each."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["url"] = re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)
    command.upgrade(config, "head")
