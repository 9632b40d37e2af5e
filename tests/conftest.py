"""Settings that every test shares."""

import pytest
from hypothesis import settings

# The first example of a test may compile a kernel.
settings.register_profile("leyden", deadline=None)
settings.load_profile("leyden")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Tests leave the user's own cache, and its list of runs, alone."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("LEYDEN_CACHE_DIR", str(folder))
        yield folder
