"""The libraries that a hardware project builds of itself: which files they are made of, and what they export."""

from __future__ import annotations

CSIM_SOURCES = ("csim/library.cpp", "src/moe_layer.cpp")
"""What is compiled, by paths below the project's folder."""
CSIM_INCLUDES = ("src", "csim")
CSIM_FLAGS = ("-std=c++14", "-O2", "-fPIC", "-shared", "-w")
"""Flags of g++, beside a folder with `ap_int.h`, `ap_fixed.h` and `hls_stream.h`: `include/` of Vitis HLS, or
`templates/vivado/ap_types` of the wheel `hls4ml`."""

CSIM_ENTRY = "moec_csim"
"""What the csim library gives:

    int moec_csim(const void *rows, const int32_t *tasks, const void *const *weights, void *result, int32_t tokens);

Buffers are laid out as `moec.fixed.layout` says, bytes of a word in little-endian order and without any alignment;
`weights` has a pointer for each port.  `tasks` is null where the router has one task.  Returns 0, or 1 where `tokens`
is negative or above the design's.  It is not to be called from two threads at once.
"""
