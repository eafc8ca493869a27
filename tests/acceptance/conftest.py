"""Real processes may use the same Postgres as the integration tests."""

from tests.integration.conftest import postgres

__all__ = ["postgres"]
