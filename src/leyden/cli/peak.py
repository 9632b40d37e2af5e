"""How much memory this process has held at most."""

from __future__ import annotations

import sys


def peak_rss() -> int:
    """Bytes. On Linux of this program alone: what ``getrusage`` gives includes the process that started it."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
