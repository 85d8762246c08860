"""The descriptions are made before anybody asks for them."""

from pathlib import Path

from app.api import descriptions
from app.main import create_app
from app.settings import Settings


def test_a_service_that_has_been_made_has_its_descriptions(tmp_path: Path) -> None:
    """To make one takes 0.1 s and more, in which its first reader would hold up everybody."""
    create_app(Settings(database_url=f"sqlite:///{tmp_path}/queue.db"))
    first = descriptions.made.cache_info()
    create_app(Settings(database_url=f"sqlite:///{tmp_path}/queue.db"))
    assert descriptions.made.cache_info().misses == first.misses == 3
