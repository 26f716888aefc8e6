"""Which operators of an exported graph run where."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.types import Placement

# Bookkeeping that runs no kernel; it would only blur the share.
_NO_KERNEL = frozenset({"getitem", "Total"})


def placement(
    backend: str, delegated: Mapping[str, int], left: Mapping[str, int], partitions: int
) -> Placement:
    """Count operators by where they ended; both mappings are operator name -> occurrences."""
    inside = sum(count for name, count in delegated.items() if name not in _NO_KERNEL)
    outside = {name: n for name, n in left.items() if n and name not in _NO_KERNEL}
    total = inside + sum(outside.values())
    return Placement(
        backend=backend,
        delegated=inside,
        total=total,
        partitions=partitions,
        delegated_share=inside / total if total else None,
        left=dict(sorted(outside.items())),
        reason="" if total else "the graph has no operators",
    )
