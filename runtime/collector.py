"""How often this process walks its objects in search of garbage that refers to itself.

What hosts, stores and replicas hold is plain data, freed as soon as nobody refers to it.
With the interpreter's own thresholds the search for cycles costs a fifth of a
message's time, and with many idle agents in memory each full one is a pause.
"""

from __future__ import annotations

import gc
from typing import Final

ALLOCATIONS: Final = 100_000
"""Between two looks at what is young; older generations are looked at each 50 and 5,000 looks."""
REQUESTS: Final = 10_000
"""The same where requests are answered: what one leaves behind may hold its body."""


def relax(allocations: int = ALLOCATIONS) -> None:
    """Look rarely, and never again at what is there already. For a process that does one thing.

    Args:
        allocations: between two looks at what is young; as much garbage may be kept meanwhile.
    """
    gc.freeze()
    gc.set_threshold(allocations, 50, 100)
