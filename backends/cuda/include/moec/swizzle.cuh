// Where an element lies in a tile whose lines of 128 bytes TMA and wgmma swizzle.
#pragma once

namespace moec {

// The place of 16-byte unit `unit` (0..7) of line `line`, in bytes from the tile's begin, which is aligned to 1024.
MOEC_DEVICE u32 swizzled(u32 line, u32 unit) { return line * 128 + ((unit ^ (line & 7)) << 4); }

}  // namespace moec
