"""Progress bars where there are no threads: in a browser."""

from __future__ import annotations

from typing import Any


def without_monitor(tqdm: Any) -> Any:
    """The same kind of bar without tqdm's monitor, a thread that wakes up bars which were silent for long."""
    return type("Bar", (tqdm,), {"monitor_interval": 0})
