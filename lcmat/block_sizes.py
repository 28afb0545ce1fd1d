"""How much is formed at once: sizes that decide how fast and in how little memory work is done, and no result.

`with sized(elements=1): …` sets them for what runs inside: to show that they do not matter, or for another machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from lcmat.scoped import Scoped


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of blocks, tiles and batches.

    elements: of one temporary block; 2²¹ float64 values are 16 MiB, of which a few live at once.
    tile_rows, tile_elements: of a tile of distances; 4 MiB, which stay in cache from one operation to the next.
    held_elements: of a block of rows taken from a held matrix; 4 MiB, likewise.
    least_rows: rows that are at least formed at once, however long they are; fewer cost as much as these.
    exact_rows: rows formed at once for gains by definition, of which few are needed.
    least_bounds, most_bounds: rows formed at once for bounds, twice as many each time.
    images: that pass through a network at once on a CPU, in whose cache they stay; images_elsewhere: on other devices.
    landscape_images: of a part of a landscape, which is kept once it is done.
    shared_out, shared_out_lazily: distances of a step of the incremental and the lazy greedy that workers share out.
    compiled: samples from which on compiled loops are worth their start.
    """

    elements: int = 2**21
    tile_rows: int = 512
    tile_elements: int = 2**19
    held_elements: int = 2**19
    least_rows: int = 64
    exact_rows: int = 8
    least_bounds: int = 16
    most_bounds: int = 512
    images: int = 250
    images_elsewhere: int = 2000
    landscape_images: int = 250
    shared_out: int = 2**22
    shared_out_lazily: int = 2**17
    compiled: int = 2000


# at_once() returns the sizes that hold here; `with sized(name=value): …` lets others hold inside.
at_once = Scoped("sizes", BlockSizes())
sized = at_once.changed
