import pytest

from flux.store.database import Database
from tests.integration.states import Sessions


@pytest.fixture
def sessions(database: Database) -> Sessions:
    return Sessions(database)
