"""Settings that every test shares."""

import signal

import pytest
from hypothesis import settings

# The first example of a test may compile a kernel.
settings.register_profile("leyden", deadline=None)
settings.load_profile("leyden")

# Some shells start what runs in the background with Ctrl-C ignored, and every process it starts inherits that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Tests leave the user's own cache, and its list of runs, alone."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("LEYDEN_CACHE_DIR", str(folder))
        yield folder
