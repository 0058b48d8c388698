/* tests/fakes/merge.c: merges partial results in double, in plain C */
#include <math.h>

#include "fake.h"

/* The offset of row [b, i, h] in an out, or in an lse. */
static int64_t out_row(const attnrt_tensor* t, int64_t b, int64_t i, int64_t h) {
  if (t->ndim == 3) return i * t->stride[0] + h * t->stride[1];
  return b * t->stride[0] + i * t->stride[1] + h * t->stride[2];
}
static int64_t lse_element(const attnrt_tensor* t, int64_t b, int64_t i, int64_t h) {
  if (t->ndim == 2) return h * t->stride[0] + i * t->stride[1];
  return b * t->stride[0] + h * t->stride[1] + i * t->stride[2];
}

static void merge_row(const fake_merge_call* m, int64_t b, int64_t i, int64_t h) {
  const int64_t width = m->out.shape[m->out.ndim - 1];
  const int32_t count = FAKE_FAULT == FAULT_MERGE_COUNT && m->count > 2 ? 2 : m->count;
  double max = -INFINITY, total = 0;
  for (int32_t n = 0; n < count; ++n) {
    const double lse = fake_load(&m->lses[n], lse_element(&m->lses[n], b, i, h));
    if (lse > max || isnan(lse)) max = lse;
    if (isnan(max)) break;
  }
  if (max == INFINITY) max = NAN;
  for (int32_t n = 0; n < count; ++n)
    total += exp(fake_load(&m->lses[n], lse_element(&m->lses[n], b, i, h)) - max);
  if (max == -INFINITY) total = 0;
  for (int64_t x = 0; x < width; ++x) {
    double sum = 0;
    for (int32_t n = 0; n < count; ++n) {
      const double lse = fake_load(&m->lses[n], lse_element(&m->lses[n], b, i, h));
      if (lse == -INFINITY && !(FAKE_FAULT == FAULT_MERGE_UNSEEN && max > -INFINITY)) continue;
      const double weight = FAKE_FAULT == FAULT_MERGE_MEAN ? 1.0 / count : exp(lse - max) / total;
      sum += weight * fake_load(&m->outs[n], out_row(&m->outs[n], b, i, h) + x);
    }
    fake_store(&m->out, out_row(&m->out, b, i, h) + x, sum);
  }
  if (m->lse.data != NULL)
    fake_store(&m->lse, lse_element(&m->lse, b, i, h), total == 0 ? -INFINITY : max + log(total));
}

void fake_merge(const fake_merge_call* m) {
  const int packed = m->out.ndim == 3;
  const int64_t batch = packed ? 1 : m->out.shape[0], seq = m->out.shape[packed ? 0 : 1];
  const int64_t heads = m->out.shape[packed ? 1 : 2];
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < seq; ++i) {
      for (int64_t h = 0; h < heads; ++h) merge_row(m, b, i, h);
    }
  }
}
