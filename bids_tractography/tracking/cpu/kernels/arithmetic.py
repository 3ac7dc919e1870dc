"""Arithmetic on blocks of axes: vector instructions, or plain loops that give the same bits.

`machine.compiled.SCALAR` chooses, and nothing else does.
"""

from bids_tractography.machine.compiled import SCALAR

if SCALAR:
    from bids_tractography.tracking.cpu.kernels.scalar import (
        blocks_reaching,
        count_reached,
        find_largest,
        gather_cells,
        interpolate_blocks,
        which_blocks,
    )
else:
    from bids_tractography.tracking.cpu.kernels.vectors import (
        blocks_reaching,
        count_reached,
        find_largest,
        gather_cells,
        interpolate_blocks,
        which_blocks,
    )

__all__ = [
    "blocks_reaching",
    "count_reached",
    "find_largest",
    "gather_cells",
    "interpolate_blocks",
    "which_blocks",
]
