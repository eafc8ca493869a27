"""The first schema."""

from alembic import op

from flux.store.schema import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table. A later schema freezes this one's text here."""
    for statement in statements(postgres=op.get_bind().dialect.name == "postgresql"):
        op.execute(statement)
