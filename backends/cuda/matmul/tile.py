"""How a product is cut into what a block of threads computes at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WarpgroupTile:
    """For wgmma (sm_90a): 128 rows by `width` columns of each weight, 64 elements of the inner dimension a stage.

    `width * products` is at most 256, `width` a multiple of 8, of 64 where weights are transposed.
    """

    products: int
    width: int
    stages: int

    rows = 128
    depth = 64
    threads = 384

    @property
    def size(self) -> int:
        """What tells this tile from others of a product."""
        return self.width

    @property
    def stage_bytes(self) -> int:
        return (self.rows + self.width * self.products) * 128

    def shared_bytes(self, experts: int) -> int:
        """Of a block: the stages, two barriers for each, and the counters of tiles."""
        return self.stages * (self.stage_bytes + 16) + 4 * experts


@dataclass(frozen=True)
class CodedWarpgroupTile:
    """For wgmma (sm_90a) with codes, which are its first operand: `rows` rows by 128 columns of each weight.

    `rows * products` is at most 256, with scales of groups 128; `rows` a multiple of 16.

    bits         of a code
    decoding     instructions that make a code a float
    scale_bytes  of scales of groups that come with the codes of a column, for each stage
    scale_rows   how many scales of groups that are
    depth        elements of the inner dimension in a stage, 128 bytes of a row
    """

    products: int
    rows: int
    stages: int
    bits: int
    decoding: float
    scale_bytes: int = 0
    scale_rows: int = 0
    depth: int = 64

    width = 128
    threads = 384

    @property
    def size(self) -> int:
        """What tells this tile from others of a product."""
        return self.rows

    @property
    def stage_bytes(self) -> int:
        size = self.rows * 128 + self.products * self.width * (self.depth * self.bits // 8 + self.scale_bytes)
        return -(-size // 1024) * 1024

    def shared_bytes(self, experts: int) -> int:
        """Of a block: the stages, two barriers for each, and the counters of tiles."""
        return self.stages * (self.stage_bytes + 16) + 4 * experts


@dataclass(frozen=True)
class WarpTile:
    """For mma.sync: `rows` rows by `width` columns of each weight, shared out to `down * across` warps.

    A warp has rows / down (a multiple of 16) by width / across (8, or a multiple of 16).

    bits         of a weight, or of the code that it is kept as
    scale_bytes  of scales of groups that come with the codes of a column, for each stage
    scale_rows   how many scales of groups that are
    depth        elements of the inner dimension in a stage, 128 bytes of a row
    """

    products: int
    rows: int
    width: int
    stages: int
    down: int
    across: int
    bits: int = 16
    scale_bytes: int = 0
    scale_rows: int = 0
    depth: int = 64

    @property
    def size(self) -> int:
        """What tells this tile from others of a product."""
        return self.width

    @property
    def threads(self) -> int:
        return 32 * self.down * self.across

    @property
    def stage_bytes(self) -> int:
        return self.rows * 128 + self.width * self.weight_bytes

    @property
    def weight_bytes(self) -> int:
        """Of a column of all weights in a stage."""
        return self.products * (self.depth * self.bits // 8 + self.scale_bytes)

    def shared_bytes(self, experts: int) -> int:
        """Of a block: the stages and the counters of tiles."""
        return self.stages * self.stage_bytes + 4 * experts
