"""The simulator of the primitives: what it computes, and that it finds what a GPU would punish."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.cuda.simulator import Simulated, SimulatorError

HEAD = '#include "moec/primitives.cuh"\nusing namespace moec;\n'

WARP = """
MOEC_KERNEL(64, 1) k(const int* in, int* out) {
  int i = block_index() * 64 + thread_index();
  int v = in[i];
  for (int m = 16; m; m >>= 1) v += shuffle_xor(v, m);
  out[i] = v + (int)ballot_warp(in[i] & 1) * 0 + population_count(ballot_warp(in[i] & 1)) * 1000;
}"""


def test_warps_exchange_values() -> None:
    values = np.random.default_rng(0).integers(0, 9, 128, dtype=np.int32)
    out = np.zeros_like(values)
    Simulated(HEAD + WARP, ["k"]).launch("k", 2, 64, 0, values, out)
    warps = values.reshape(-1, 32)
    wanted = warps.sum(1) + (warps & 1).sum(1) * 1000
    assert np.array_equal(out.reshape(-1, 32), np.repeat(wanted[:, None], 32, 1))


SHARED = """
MOEC_KERNEL(64, 1) k(int* out) {
  MOEC_SHARED(shared);
  Shared<int> at = shared_array<int>(shared);
  at[thread_index()] = thread_index();
  %s;
  out[thread_index()] = at[thread_index() ^ 32];
}"""


def test_shared_memory_is_ordered_by_barriers() -> None:
    out = np.zeros(64, np.int32)
    Simulated(HEAD + SHARED % "sync_block()", ["k"]).launch("k", 1, 64, 256, out)
    assert np.array_equal(out, np.arange(64) ^ 32)


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_missing_barrier_is_a_race_in_every_order(seed: int) -> None:
    simulated = Simulated(HEAD + SHARED % "sync_warp()", ["k"])
    simulated.order(seed)
    with pytest.raises(SimulatorError, match=r"k: block 0, thread \d+ .* a read at \w+.cc:9: shared byte"):
        simulated.launch("k", 1, 64, 256, np.zeros(64, np.int32))
