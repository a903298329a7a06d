/* A layer small enough to check by eye, behind the C ABI of an artifact: what the runtime is tested against.
 *
 *   y[t] = x[t] * scale[table[id[t]]] + shift        x, y: f32 (T, 4); id: i32 (T), left out under ONE_INPUT
 *
 * parameters: 0 routed.scale.weight f32 (5, 4), 1 shift f32 (4), 2 router.table i32 (5).
 * Variant 0 runs where SUPPORTS has bit 0; variant 1 packs every weight back to front, so that a buffer of one variant is
 * garbage to the other.  TRAINING adds `forward` and `backward`.  A call stages its tokens in the workspace, sleeps SLEEP_US,
 * computes for nothing SPIN times, and reads them back.  OFF is added to each result.
 */
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <tvm/ffi/c_api.h>

#ifndef SUPPORTS
#define SUPPORTS 2
#endif
#ifndef SLEEP_US
#define SLEEP_US 0
#endif
#ifndef SPIN
#define SPIN 0
#endif
#ifndef OFF
#define OFF 0
#endif
#define EXPORT __attribute__((visibility("default")))
#define ENTRY(name) EXPORT int __tvm_ffi_##name(void *self, const TVMFFIAny *a, int32_t n, TVMFFIAny *r)

static const int64_t count[3] = {20, 4, 5}, place[3] = {0, 128, 192};
static const int64_t packed_size = 256;

static DLTensor *tensor(const TVMFFIAny *a) {
  return a->type_index == kTVMFFIDLTensorPtr ? (DLTensor *)a->v_ptr
                                             : (DLTensor *)((char *)a->v_obj + sizeof(TVMFFIObject));
}
static char *data(const TVMFFIAny *a) { return (char *)tensor(a)->data + tensor(a)->byte_offset; }
static int fail(const char *kind, const char *message) {
  TVMFFIErrorSetRaisedFromCStr(kind, message);
  return -1;
}
static int give(TVMFFIAny *r, int64_t value) {
  r->type_index = kTVMFFIInt;
  r->v_int64 = value;
  return 0;
}
static void move(char *to, const char *from, int64_t words, int reversed) {
  for (int64_t i = 0; i < words; ++i) memcpy(to + 4 * i, from + 4 * (reversed ? words - 1 - i : i), 4);
}

ENTRY(supports) { return give(r, SUPPORTS); }
ENTRY(packed_bytes) { return give(r, packed_size); }
ENTRY(workspace_bytes) { return give(r, a[1].v_int64 * 16 + 64 * a[2].v_int64); }

ENTRY(pack) {
  int64_t i = a[1].v_int64;
  if (tensor(&a[2])->shape[0] != packed_size) return fail("ShapeError", "packed buffer has a wrong size");
  move(data(&a[2]) + place[i], data(&a[3]), count[i], (int)a[0].v_int64);
  return give(r, 0);
}
ENTRY(unpack) {
  int64_t i = a[1].v_int64;
  move(data(&a[3]), data(&a[2]) + place[i], count[i], (int)a[0].v_int64);
  return give(r, 0);
}

#ifdef TRAINING
/* Loss tensors: probability[t, e] = x[t] . scale[e], count[e], z[t] = x[t][0] * shift[0].
 * Saved: row i32 (T), halves f32 (2 T, 2): a copy of x. */
ENTRY(forward_workspace_bytes) { return give(r, 32 + a[1].v_int64); }
ENTRY(backward_workspace_bytes) { return give(r, 64 + a[1].v_int64); }

ENTRY(forward) {
  int64_t tokens = tensor(&a[3])->shape[0];
  if (a[1].v_int64 < 1) return fail("RuntimeError", "needs a thread");
  if (tensor(&a[2])->shape[0] < 32 + tokens) return fail("ShapeError", "workspace is too small");
  const float *x = (float *)data(&a[3]), *scale = (float *)data(&a[5]), *shift = (float *)data(&a[6]);
  const int32_t *id = (int32_t *)data(&a[4]), *table = (int32_t *)data(&a[7]);
  float *y = (float *)data(&a[8]), *probability = (float *)data(&a[9]), *z = (float *)data(&a[11]);
  int32_t *count = (int32_t *)data(&a[10]), *row = (int32_t *)data(&a[12]);
  for (int64_t t = 0; t < tokens; ++t)
    if (id[t] < 0 || id[t] >= 5) return fail("RangeError", "id lies outside its table of 5");
  memset(count, 0, 20);
  if (SLEEP_US) nanosleep(&(struct timespec){0, SLEEP_US * 1000L}, 0);
  for (int64_t t = 0; t < tokens; ++t) {
    row[t] = table[id[t]];
    ++count[row[t]];
    z[t] = x[4 * t] * shift[0];
    for (int e = 0; e < 5; ++e) {
      probability[5 * t + e] = 0;
      for (int j = 0; j < 4; ++j) probability[5 * t + e] += x[4 * t + j] * scale[4 * e + j];
    }
    for (int j = 0; j < 4; ++j) y[4 * t + j] = x[4 * t + j] * scale[4 * row[t] + j] + shift[j];
  }
  memcpy(data(&a[13]), x, tokens * 16);
  return give(r, 0);
}

ENTRY(backward) {
  int64_t tokens = tensor(&a[3])->shape[0];
  if (tensor(&a[2])->shape[0] < 64 + tokens) return fail("ShapeError", "workspace is too small");
  const float *x = (float *)data(&a[3]), *scale = (float *)data(&a[5]), *shift = (float *)data(&a[6]);
  const int32_t *row = (int32_t *)data(&a[8]);
  const float *halves = (float *)data(&a[9]), *dy = (float *)data(&a[10]), *dp = (float *)data(&a[11]);
  const float *dz = (float *)data(&a[12]);
  float *dx = (float *)data(&a[13]), *dscale = (float *)data(&a[14]), *dshift = (float *)data(&a[15]);
  memset(dscale, 0, 80);
  memset(dshift, 0, 16);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int j = 0; j < 4; ++j) {
      int64_t i = 4 * t + j;
      dx[i] = dy[i] * scale[4 * row[t] + j];
      dscale[4 * row[t] + j] += dy[i] * halves[i];
      dshift[j] += dy[i];
      for (int e = 0; e < 5; ++e) {
        dx[i] += dp[5 * t + e] * scale[4 * e + j];
        dscale[4 * e + j] += dp[5 * t + e] * x[i];
      }
    }
    dx[4 * t] += dz[t] * shift[0];
    dshift[0] += dz[t] * x[4 * t];
  }
  return give(r, 0);
}
#endif

#ifndef WITHOUT_RUN
ENTRY(run) {
#ifdef MISSING_SYMBOL
  extern int TVMFFISomethingOfTomorrow(void);
  TVMFFISomethingOfTomorrow();
#endif
  float scale[20], shift[4];
  int32_t table[5];
  int64_t reversed = a[0].v_int64, tokens = tensor(&a[4])->shape[0];
  const char *packed = data(&a[2]);
  move((char *)scale, packed + place[0], 20, (int)reversed);
  move((char *)shift, packed + place[1], 4, (int)reversed);
  move((char *)table, packed + place[2], 5, (int)reversed);
  if (a[1].v_int64 < 1) return fail("RuntimeError", "needs a thread");
  if (tensor(&a[3])->shape[0] < tokens * 16 + 64 * a[1].v_int64) return fail("ShapeError", "workspace is too small");
  float *stage = (float *)data(&a[3]);
  const float *x = (const float *)data(&a[4]);
#ifdef ONE_INPUT
  float *y = (float *)data(&a[5]);
#else
  const int32_t *id = (const int32_t *)data(&a[5]);
  float *y = (float *)data(&a[6]);
  for (int64_t t = 0; t < tokens; ++t)
    if (id[t] < 0 || id[t] >= 5) return fail("RangeError", "id lies outside its table of 5");
#endif
  for (int64_t i = 0; i < tokens * 4; ++i) stage[i] = x[i];
  if (SLEEP_US) nanosleep(&(struct timespec){0, SLEEP_US * 1000L}, 0);
  for (volatile int64_t i = 0; i < SPIN; ++i) {}
  for (int64_t t = 0; t < tokens; ++t)
    for (int j = 0; j < 4; ++j) {
#ifdef ONE_INPUT
      int32_t row = table[0];
#else
      int32_t row = table[id[t]];
#endif
      y[4 * t + j] = stage[4 * t + j] * scale[4 * row + j] + shift[j] + OFF;
    }
  return give(r, 0);
}
#endif
