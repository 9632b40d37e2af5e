"""Settings that every test shares."""

from hypothesis import settings

# The first example of a test may compile a kernel.
settings.register_profile("leyden", deadline=None)
settings.load_profile("leyden")
