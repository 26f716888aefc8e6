"""torch writes a trace record for every tensor it meets; keeping those makes the tests slow."""

from __future__ import annotations

import logging

# propagate: pytest's log capture listens at the root.
logging.getLogger("torch.__trace").propagate = False
