"""Real processes may use the same Postgres as the integration tests."""

from tests.integration.conftest import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]
