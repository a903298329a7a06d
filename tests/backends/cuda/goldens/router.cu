MOEC_KERNEL(256, 1) run_route(const moec::bf16* MOEC_RESTRICT in0, const float* MOEC_RESTRICT in1, int* MOEC_RESTRICT out0, float* MOEC_RESTRICT out1, int tokens) {
  const int lane = moec::lane_index();
  MOEC_SHARED(shared);
  moec::u8* scratch = shared + moec::warp_index() * 512;
  const int token = moec::block_index() * 8 + moec::warp_index();
  if (token >= tokens) return;
  float v1[4] = {};
  MOEC_UNROLL
  for (int r2 = 0; r2 < 4; ++r2) {
    v1[r2] = moec::load(in1 + (moec::i64)token * 128 + (r2 * 32 + lane));
  }
  float sum3 = -moec::infinity();
  MOEC_UNROLL
  for (int r4 = 0; r4 < 4; ++r4) {
    sum3 = moec::maximum(sum3, v1[r4]);
  }
  float t5 = sum3;
  MOEC_UNROLL
  for (int m6 = 16; m6 > 0; m6 /= 2) {
    t5 = moec::maximum(t5, moec::shuffle_xor(t5, m6));
  }
  const float u7 = moec::maximum((-moec::infinity()), t5);
  float v8[4] = {};
  MOEC_UNROLL
  for (int r9 = 0; r9 < 4; ++r9) {
    v8[r9] = v1[r9] - u7;
  }
  float v10[4] = {};
  MOEC_UNROLL
  for (int r11 = 0; r11 < 4; ++r11) {
    v10[r11] = expf(v8[r11]);
  }
  float sum12 = -0.0f;
  MOEC_UNROLL
  for (int r13 = 0; r13 < 4; ++r13) {
    sum12 = sum12 + v10[r13];
  }
  float t14 = sum12;
  MOEC_UNROLL
  for (int m15 = 16; m15 > 0; m15 /= 2) {
    t14 = t14 + moec::shuffle_xor(t14, m15);
  }
  const float u16 = 0.0f + t14;
  float v17[4] = {};
  MOEC_UNROLL
  for (int r18 = 0; r18 < 4; ++r18) {
    v17[r18] = v10[r18] / u16;
  }
  int v19 = {};
  moec::u32 keys20[4];
  MOEC_UNROLL
  for (int r24 = 0; r24 < 4; ++r24) {
    keys20[r24] = moec::key_of(v17[r24]);
  }
  for (int j22 = 0; j22 < 8; ++j22) {
    const moec::Largest largest23 = moec::take_largest(keys20);
    if (lane == j22) v19 = largest23.place;
  }
  moec::sync_warp();
  const moec::Shared<float> s25 = moec::shared_array<float>(scratch + 0);
  MOEC_UNROLL
  for (int r26 = 0; r26 < 4; ++r26) {
    s25[(r26 * 32 + lane)] = v17[r26];
  }
  moec::sync_warp();
  float v27 = {};
  v27 = (lane < 8 ? (moec::as_unsigned(v19) < 128 ? (float)s25[v19] : 0) : 0);
  if (lane < 8) moec::store(out0 + (moec::i64)token * 8 + lane, v19);
  if (lane < 8) moec::store(out1 + (moec::i64)token * 8 + lane, v27);
}

MOEC_KERNEL(1024, 1) run_route_plan(const moec::bf16* MOEC_RESTRICT in0, const float* MOEC_RESTRICT in1, int* MOEC_RESTRICT out0, float* MOEC_RESTRICT out1, int* MOEC_RESTRICT offsets, int* MOEC_RESTRICT slots, int* MOEC_RESTRICT rows, int tokens) {
  MOEC_SHARED(shared);
  const int lane = moec::lane_index();
  moec::u8* scratch = shared + moec::warp_index() * 512;
  for (int token = moec::warp_index(); token < tokens; token += 32) {
    float v1[4] = {};
    MOEC_UNROLL
    for (int r2 = 0; r2 < 4; ++r2) {
      v1[r2] = moec::load(in1 + (moec::i64)token * 128 + (r2 * 32 + lane));
    }
    float sum3 = -moec::infinity();
    MOEC_UNROLL
    for (int r4 = 0; r4 < 4; ++r4) {
      sum3 = moec::maximum(sum3, v1[r4]);
    }
    float t5 = sum3;
    MOEC_UNROLL
    for (int m6 = 16; m6 > 0; m6 /= 2) {
      t5 = moec::maximum(t5, moec::shuffle_xor(t5, m6));
    }
    const float u7 = moec::maximum((-moec::infinity()), t5);
    float v8[4] = {};
    MOEC_UNROLL
    for (int r9 = 0; r9 < 4; ++r9) {
      v8[r9] = v1[r9] - u7;
    }
    float v10[4] = {};
    MOEC_UNROLL
    for (int r11 = 0; r11 < 4; ++r11) {
      v10[r11] = expf(v8[r11]);
    }
    float sum12 = -0.0f;
    MOEC_UNROLL
    for (int r13 = 0; r13 < 4; ++r13) {
      sum12 = sum12 + v10[r13];
    }
    float t14 = sum12;
    MOEC_UNROLL
    for (int m15 = 16; m15 > 0; m15 /= 2) {
      t14 = t14 + moec::shuffle_xor(t14, m15);
    }
    const float u16 = 0.0f + t14;
    float v17[4] = {};
    MOEC_UNROLL
    for (int r18 = 0; r18 < 4; ++r18) {
      v17[r18] = v10[r18] / u16;
    }
    int v19 = {};
    moec::u32 keys20[4];
    MOEC_UNROLL
    for (int r24 = 0; r24 < 4; ++r24) {
      keys20[r24] = moec::key_of(v17[r24]);
    }
    for (int j22 = 0; j22 < 8; ++j22) {
      const moec::Largest largest23 = moec::take_largest(keys20);
      if (lane == j22) v19 = largest23.place;
    }
    moec::sync_warp();
    const moec::Shared<float> s25 = moec::shared_array<float>(scratch + 0);
    MOEC_UNROLL
    for (int r26 = 0; r26 < 4; ++r26) {
      s25[(r26 * 32 + lane)] = v17[r26];
    }
    moec::sync_warp();
    float v27 = {};
    v27 = (lane < 8 ? (moec::as_unsigned(v19) < 128 ? (float)s25[v19] : 0) : 0);
    if (lane < 8) moec::store(out0 + (moec::i64)token * 8 + lane, v19);
    if (lane < 8) moec::store(out1 + (moec::i64)token * 8 + lane, v27);
  }
  moec::sync_block();
  using Sorted = moec::Slots<128, 8, false>;
  const Sorted given_slots{out0, tokens};
  const auto total = [&](int expert, int start, int count) { offsets[expert] = start; if (expert == 127) offsets[128] = start + count; };
  const auto take = [&](int flat, int expert, int place, int rank) { rows[flat] = place; if (expert >= 0) slots[place] = flat; };
  moec::sort_alone<Sorted, 32>(given_slots, shared, total, take);
}

MOEC_KERNEL(256, 1) run_router64(const moec::bf16* MOEC_RESTRICT in0, int* MOEC_RESTRICT out0, float* MOEC_RESTRICT out1, const float* MOEC_RESTRICT router, int* MOEC_RESTRICT counts, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::LogitTile<64, 128, 2048>;
  static_assert(Tile::shared_bytes == 71680, "the size that the launch has room for");
  const int lane = moec::lane_index();
  moec::u8* scratch = shared + 71680 + moec::warp_index() * 512;
  const moec::Shared<int> chosen = moec::shared_array<int>(shared + 75776);
  for (int i = moec::thread_index(); i < 128; i += 256) chosen[i] = 0;
  const moec::Range share = moec::share_of(tokens, moec::block_index(), moec::grid_blocks());
  for (int first = share.first; first < share.last; first += 64) {
    const moec::Shared<float> logits =
        moec::multiply_logits<Tile>(in0, router, first, share.last, shared);
    for (int row = moec::warp_index(); row < 64; row += 8) {
      const int token = first + row;
      if (token >= share.last) break;
      float v1[4] = {};
      MOEC_UNROLL
      for (int r2 = 0; r2 < 4; ++r2) {
        v1[r2] = (float)logits[row * Tile::pitch + (r2 * 32 + lane)];
      }
      float sum3 = -moec::infinity();
      MOEC_UNROLL
      for (int r4 = 0; r4 < 4; ++r4) {
        sum3 = moec::maximum(sum3, v1[r4]);
      }
      float t5 = sum3;
      MOEC_UNROLL
      for (int m6 = 16; m6 > 0; m6 /= 2) {
        t5 = moec::maximum(t5, moec::shuffle_xor(t5, m6));
      }
      const float u7 = moec::maximum((-moec::infinity()), t5);
      float v8[4] = {};
      MOEC_UNROLL
      for (int r9 = 0; r9 < 4; ++r9) {
        v8[r9] = v1[r9] - u7;
      }
      float v10[4] = {};
      MOEC_UNROLL
      for (int r11 = 0; r11 < 4; ++r11) {
        v10[r11] = expf(v8[r11]);
      }
      float sum12 = -0.0f;
      MOEC_UNROLL
      for (int r13 = 0; r13 < 4; ++r13) {
        sum12 = sum12 + v10[r13];
      }
      float t14 = sum12;
      MOEC_UNROLL
      for (int m15 = 16; m15 > 0; m15 /= 2) {
        t14 = t14 + moec::shuffle_xor(t14, m15);
      }
      const float u16 = 0.0f + t14;
      float v17[4] = {};
      MOEC_UNROLL
      for (int r18 = 0; r18 < 4; ++r18) {
        v17[r18] = v10[r18] / u16;
      }
      int v19 = {};
      moec::u32 keys20[4];
      MOEC_UNROLL
      for (int r24 = 0; r24 < 4; ++r24) {
        keys20[r24] = moec::key_of(v17[r24]);
      }
      for (int j22 = 0; j22 < 8; ++j22) {
        const moec::Largest largest23 = moec::take_largest(keys20);
        if (lane == j22) v19 = largest23.place;
      }
      moec::sync_warp();
      const moec::Shared<float> s25 = moec::shared_array<float>(scratch + 0);
      MOEC_UNROLL
      for (int r26 = 0; r26 < 4; ++r26) {
        s25[(r26 * 32 + lane)] = v17[r26];
      }
      moec::sync_warp();
      float v27 = {};
      v27 = (lane < 8 ? (moec::as_unsigned(v19) < 128 ? (float)s25[v19] : 0) : 0);
      if (lane < 8) moec::store(out0 + (moec::i64)token * 8 + lane, v19);
      if (lane < 8) moec::store(out1 + (moec::i64)token * 8 + lane, v27);
      if (lane < 8 && moec::as_unsigned(v19) < 128)
        moec::atomic_add(chosen, v19, 1);
    }
  }
  moec::sync_block();
  for (int i = moec::thread_index(); i < 128; i += 256)
    counts[moec::block_index() * 128 + i] = chosen[i];
}

MOEC_KERNEL(256, 1) run_router128(const moec::bf16* MOEC_RESTRICT in0, int* MOEC_RESTRICT out0, float* MOEC_RESTRICT out1, const float* MOEC_RESTRICT router, int* MOEC_RESTRICT counts, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::LogitTile<128, 128, 2048>;
  static_assert(Tile::shared_bytes == 81920, "the size that the launch has room for");
  const int lane = moec::lane_index();
  moec::u8* scratch = shared + 81920 + moec::warp_index() * 512;
  const moec::Shared<int> chosen = moec::shared_array<int>(shared + 86016);
  for (int i = moec::thread_index(); i < 128; i += 256) chosen[i] = 0;
  const moec::Range share = moec::share_of(tokens, moec::block_index(), moec::grid_blocks());
  for (int first = share.first; first < share.last; first += 128) {
    const moec::Shared<float> logits =
        moec::multiply_logits<Tile>(in0, router, first, share.last, shared);
    for (int row = moec::warp_index(); row < 128; row += 8) {
      const int token = first + row;
      if (token >= share.last) break;
      float v1[4] = {};
      MOEC_UNROLL
      for (int r2 = 0; r2 < 4; ++r2) {
        v1[r2] = (float)logits[row * Tile::pitch + (r2 * 32 + lane)];
      }
      float sum3 = -moec::infinity();
      MOEC_UNROLL
      for (int r4 = 0; r4 < 4; ++r4) {
        sum3 = moec::maximum(sum3, v1[r4]);
      }
      float t5 = sum3;
      MOEC_UNROLL
      for (int m6 = 16; m6 > 0; m6 /= 2) {
        t5 = moec::maximum(t5, moec::shuffle_xor(t5, m6));
      }
      const float u7 = moec::maximum((-moec::infinity()), t5);
      float v8[4] = {};
      MOEC_UNROLL
      for (int r9 = 0; r9 < 4; ++r9) {
        v8[r9] = v1[r9] - u7;
      }
      float v10[4] = {};
      MOEC_UNROLL
      for (int r11 = 0; r11 < 4; ++r11) {
        v10[r11] = expf(v8[r11]);
      }
      float sum12 = -0.0f;
      MOEC_UNROLL
      for (int r13 = 0; r13 < 4; ++r13) {
        sum12 = sum12 + v10[r13];
      }
      float t14 = sum12;
      MOEC_UNROLL
      for (int m15 = 16; m15 > 0; m15 /= 2) {
        t14 = t14 + moec::shuffle_xor(t14, m15);
      }
      const float u16 = 0.0f + t14;
      float v17[4] = {};
      MOEC_UNROLL
      for (int r18 = 0; r18 < 4; ++r18) {
        v17[r18] = v10[r18] / u16;
      }
      int v19 = {};
      moec::u32 keys20[4];
      MOEC_UNROLL
      for (int r24 = 0; r24 < 4; ++r24) {
        keys20[r24] = moec::key_of(v17[r24]);
      }
      for (int j22 = 0; j22 < 8; ++j22) {
        const moec::Largest largest23 = moec::take_largest(keys20);
        if (lane == j22) v19 = largest23.place;
      }
      moec::sync_warp();
      const moec::Shared<float> s25 = moec::shared_array<float>(scratch + 0);
      MOEC_UNROLL
      for (int r26 = 0; r26 < 4; ++r26) {
        s25[(r26 * 32 + lane)] = v17[r26];
      }
      moec::sync_warp();
      float v27 = {};
      v27 = (lane < 8 ? (moec::as_unsigned(v19) < 128 ? (float)s25[v19] : 0) : 0);
      if (lane < 8) moec::store(out0 + (moec::i64)token * 8 + lane, v19);
      if (lane < 8) moec::store(out1 + (moec::i64)token * 8 + lane, v27);
      if (lane < 8 && moec::as_unsigned(v19) < 128)
        moec::atomic_add(chosen, v19, 1);
    }
  }
  moec::sync_block();
  for (int i = moec::thread_index(); i < 128; i += 256)
    counts[moec::block_index() * 128 + i] = chosen[i];
}

MOEC_KERNEL(1024, 1) run_plan_alone(const int* MOEC_RESTRICT index, int* MOEC_RESTRICT offsets, int* MOEC_RESTRICT slots, int* MOEC_RESTRICT rows, int tokens) {
  MOEC_SHARED(shared);
  using Sorted = moec::Slots<128, 8, false>;
  const Sorted given_slots{index, tokens};
  const auto total = [&](int expert, int start, int count) { offsets[expert] = start; if (expert == 127) offsets[128] = start + count; };
  const auto take = [&](int flat, int expert, int place, int rank) { rows[flat] = place; if (expert >= 0) slots[place] = flat; };
  moec::sort_alone<Sorted, 32>(given_slots, shared, total, take);
}

MOEC_KERNEL(256, 1) run_plan_count(const int* MOEC_RESTRICT index, int* MOEC_RESTRICT counts, int tokens) {
  MOEC_SHARED(shared);
  using Sorted = moec::Slots<128, 8, false>;
  const Sorted given_slots{index, tokens};
  moec::count_share<Sorted, 8>(given_slots, counts, shared);
}

MOEC_KERNEL(256, 1) run_plan_place(const int* MOEC_RESTRICT index, const int* MOEC_RESTRICT counts, int* MOEC_RESTRICT offsets, int* MOEC_RESTRICT slots, int* MOEC_RESTRICT rows, int tokens) {
  MOEC_SHARED(shared);
  using Sorted = moec::Slots<128, 8, false>;
  const Sorted given_slots{index, tokens};
  const auto total = [&](int expert, int start, int count) { offsets[expert] = start; if (expert == 127) offsets[128] = start + count; };
  const auto take = [&](int flat, int expert, int place, int rank) { rows[flat] = place; if (expert >= 0) slots[place] = flat; };
  moec::sort_share<Sorted, 8>(given_slots, counts, shared, total, take);
}
