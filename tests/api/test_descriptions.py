"""The descriptions are made at start, before the first request."""

from pathlib import Path

from app.api import descriptions
from app.main import create_app
from app.settings import Settings


def test_a_service_that_has_been_made_has_its_descriptions(tmp_path: Path) -> None:
    """Making a description takes 0.1 s and more, which would delay all requests at the first read."""
    create_app(Settings(database_url=f"sqlite:///{tmp_path}/queue.db"))
    first = descriptions.made.cache_info()
    create_app(Settings(database_url=f"sqlite:///{tmp_path}/queue.db"))
    assert descriptions.made.cache_info().misses == first.misses == 3
