"""The first schema."""

from alembic import op

from flux.store.schema import FLUX

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table. A later schema freezes this one's text here."""
    kind = op.get_bind().dialect.name
    for statement in FLUX.statements("postgresql" if kind == "postgresql" else "sqlite"):
        op.execute(statement)
