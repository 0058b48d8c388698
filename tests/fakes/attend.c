/* tests/fakes/attend.c: computes attention in double, with every feature, in plain C */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

typedef struct row_range {
  int64_t q_first, q_length, kv_first, kv_length;
} row_range;

static double load(const attnrt_tensor* t, int64_t at) {
  if (t->dtype.bits == 32) return ((const float*)t->data)[at];
  const uint16_t bits = ((const uint16_t*)t->data)[at];
  if (t->dtype.code == ATTNRT_DTYPE_BFLOAT) {
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
  }
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  double value = exponent == 31  ? (fraction ? (double)NAN : (double)INFINITY)
                 : exponent == 0 ? ldexp(fraction, -24)
                                 : ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -value : value;
}

/* Rounds to `digits` significant bits, to nearest even; fewer bits below the smallest exponent. */
static double rounded(double value, int digits, int least_exponent) {
  int exponent;
  if (value == 0 || !isfinite(value)) return value;
  frexp(value, &exponent);
  if (exponent < least_exponent) exponent = least_exponent;
  return ldexp(nearbyint(ldexp(value, digits - exponent)), exponent - digits);
}

static void store(const attnrt_tensor* t, int64_t at, double value) {
  if (t->dtype.bits == 32) {
    ((float*)t->data)[at] = (float)value;
    return;
  }
  uint16_t bits;
  if (t->dtype.code == ATTNRT_DTYPE_BFLOAT) {
    const float narrow = (float)rounded(value, 8, -125);
    uint32_t wide;
    memcpy(&wide, &narrow, sizeof wide);
    bits = (uint16_t)(wide >> 16 | (isnan(narrow) ? 64 : 0));
  } else {
    const double near = fabs(rounded(value, 11, -13));
    int exponent;
    if (isnan(near)) {
      bits = 0x7E00;
    } else if (near >= 65520) {
      bits = 0x7C00;
    } else if (near < ldexp(1, -14)) {
      bits = (uint16_t)ldexp(near, 24);
    } else {
      frexp(near, &exponent);
      bits = (uint16_t)((exponent + 14) * 1024 + (int)(ldexp(near, 11 - exponent) - 1024));
    }
    bits |= signbit(value) ? 0x8000 : 0;
  }
  ((uint16_t*)t->data)[at] = bits;
}

static int64_t number(const attnrt_tensor* t, int64_t i, int64_t j) {
  return ((const int32_t*)t->data)[i * t->stride[0] + (t->ndim > 1 ? j * t->stride[1] : 0)];
}

/* Finds the rows of sequence b. INVALID_ARGUMENT if index arrays point outside of their tensors. */
static attnrt_status find_rows(const attnrt_problem* p, const attnrt_args* a, int64_t b,
                               row_range* r, attnrt_error* error) {
  const int check = FAKE_FAULT != FAULT_INDICES;
  *r = (row_range){0, a->q.shape[1], 0, a->k.shape[1]};
  if (p->varlen) {
    const int64_t first = number(&a->offsets_q, b, 0), last = number(&a->offsets_q, b + 1, 0);
    if (check && (first < 0 || last < first || last > a->q.shape[0] || last - first > p->seq_q ||
                  (b == 0 && first != 0)))
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "offsets_q of sequence %d: %d to %d",
                         (int)b, (int)first, (int)last);
    r->q_first = first, r->q_length = last - first;
    if (!p->page_size) {
      const int64_t begin = number(&a->offsets_kv, b, 0), end = number(&a->offsets_kv, b + 1, 0);
      if (check && (begin < 0 || end < begin || end > a->k.shape[0] || end - begin > p->seq_kv ||
                    (b == 0 && begin != 0)))
        return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "offsets_kv of sequence %d: %d to %d",
                           (int)b, (int)begin, (int)end);
      r->kv_first = begin, r->kv_length = end - begin;
    }
  }
  if (!p->kv_lengths && !p->page_size) return ATTNRT_OK;
  const int64_t limit = p->page_size ? a->page_table.shape[1] * p->page_size : r->kv_length;
  const int64_t length = number(&a->kv_lengths, b, 0);
  if (check && (length < 0 || length > limit || length > p->seq_kv))
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "kv_lengths[%d] is %d", (int)b, (int)length);
  r->kv_length = length;
  for (int64_t page = 0; check && p->page_size && page * p->page_size < length; ++page) {
    const int64_t at = number(&a->page_table, b, page);
    if (at < 0 || at >= a->k.shape[0])
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "page_table[%d][%d] is %d", (int)b,
                         (int)page, (int)at);
  }
  return ATTNRT_OK;
}

static int64_t row_of_query(const attnrt_problem* p, const attnrt_tensor* t, const row_range* r,
                            int64_t b, int64_t i, int64_t h) {
  if (p->varlen) return (r->q_first + i) * t->stride[0] + h * t->stride[1];
  return b * t->stride[0] + i * t->stride[1] + h * t->stride[2];
}

static int64_t row_of_key(const attnrt_problem* p, const attnrt_args* a, const attnrt_tensor* t,
                          const row_range* r, int64_t b, int64_t j, int64_t h) {
  if (p->page_size)
    return number(&a->page_table, b, j / p->page_size) * t->stride[0] +
           j % p->page_size * t->stride[1] + h * t->stride[2];
  if (p->varlen) return (r->kv_first + j) * t->stride[0] + h * t->stride[1];
  return b * t->stride[0] + j * t->stride[1] + h * t->stride[2];
}

/* The score of key j. Sets *hidden, and returns -INFINITY, if the key is not visible. */
static double score_of(const attnrt_problem* p, const attnrt_args* a, const row_range* r, int64_t b,
                       int64_t h, int64_t i, int64_t j, int* hidden) {
  const int64_t diagonal = p->align == ATTNRT_ALIGN_TOP_LEFT ? i : i + r->kv_length - r->q_length;
  const attnrt_tensor* m = &a->mask;
  const int64_t at = b * m->stride[0] + h * m->stride[1] + i * m->stride[2] + j * m->stride[3];
  double added = 0;
  *hidden = 1;
  if (p->causal && j > diagonal) return -INFINITY;
  if (p->window_left >= 0 && diagonal - j > p->window_left) return -INFINITY;
  if (p->window_right >= 0 && j - diagonal > p->window_right) return -INFINITY;
  if (p->mask == ATTNRT_MASK_BOOLEAN && !((const uint8_t*)m->data)[at]) return -INFINITY;
  if (p->mask == ATTNRT_MASK_ADDITIVE) added = load(m, at);
  if (added == -INFINITY) return -INFINITY;
  *hidden = 0;
  const int64_t q = row_of_query(p, &a->q, r, b, i, h);
  const int64_t k = row_of_key(p, a, &a->k, r, b, j, h / (p->heads_q / p->heads_kv));
  double s = 0;
  for (int64_t x = 0; x < p->head_dim; ++x) s += load(&a->q, q + x) * load(&a->k, k + x);
  s *= p->scale != 0 ? (double)p->scale : 1 / sqrt((double)p->head_dim);
  if (p->softcap != 0) s = p->softcap * tanh(s / p->softcap);
  s += added;
  if (p->alibi)
    s -= load(&a->alibi_slopes, b * a->alibi_slopes.stride[0] + h * a->alibi_slopes.stride[1]) *
         fabs((double)(diagonal - j));
  return s;
}

static void attend_row(const attnrt_problem* p, const attnrt_args* a, const row_range* r, int64_t b,
                       int64_t h, int64_t i, double* scores, double* sum) {
  double max = p->sinks ? load(&a->sinks, h * a->sinks.stride[0]) : -INFINITY;
  const double sink = max;
  int seen = 0;
  for (int64_t j = 0; j < r->kv_length; ++j) {
    int hidden;
    scores[j] = score_of(p, a, r, b, h, i, j, &hidden);
    if (!hidden && (scores[j] > max || isnan(scores[j]))) max = scores[j];
    if (hidden) scores[j] = -INFINITY;
    seen |= !hidden;
  }
  double total = p->sinks && sink != -INFINITY ? exp(sink - max) : 0;
  for (int64_t x = 0; x < p->head_dim_v; ++x)
    sum[x] = FAKE_FAULT == FAULT_MASKED && !seen ? NAN : 0;
  for (int64_t j = 0; j < r->kv_length; ++j) {
    if (scores[j] == -INFINITY) continue;
    const double weight = exp(scores[j] - max);
    const int64_t v = row_of_key(p, a, &a->v, r, b, j, h / (p->heads_q / p->heads_kv));
    total += weight;
    for (int64_t x = 0; x < p->head_dim_v; ++x) sum[x] += weight * load(&a->v, v + x);
  }
  if (FAKE_FAULT == FAULT_LEAK && !p->varlen && !p->page_size) {
    for (int64_t j = r->kv_length; j < a->v.shape[1]; ++j)
      sum[0] += 0 * load(&a->v, row_of_key(p, a, &a->v, r, b, j, h / (p->heads_q / p->heads_kv)));
  }
  const int64_t out = row_of_query(p, &a->out, r, b, i, h);
  for (int64_t x = 0; x < p->head_dim_v; ++x) {
    double value = total > 0 || isnan(total) ? sum[x] / total : sum[x];
    if (FAKE_FAULT == FAULT_GARBAGE) value = 1 + (double)x;
    if (FAKE_FAULT == FAULT_ROUGH) value *= x % 2 ? 1.02 : 0.98;
    store(&a->out, out + x, value);
  }
  if (FAKE_FAULT == FAULT_GAP) store(&a->out, out + p->head_dim_v, 0);
  if (!p->lse) return;
  const attnrt_tensor* l = &a->lse;
  const int64_t at = p->varlen ? h * l->stride[0] + (r->q_first + i) * l->stride[1]
                               : b * l->stride[0] + h * l->stride[1] + i * l->stride[2];
  store(l, at, total == 0 ? -INFINITY : max + log(total));
}

attnrt_status fake_attend(const attnrt_problem* p, const attnrt_args* a, attnrt_error* error) {
  const int64_t batch = p->varlen ? a->offsets_q.shape[0] - 1 : a->q.shape[0];
  row_range r;
  int64_t longest = 1;
  for (int64_t b = 0; b < batch; ++b) { /* checks all before computing the first */
    const attnrt_status status = find_rows(p, a, b, &r, error);
    if (status != ATTNRT_OK) return status;
    if (r.kv_length > longest) longest = r.kv_length;
  }
  double* scores = malloc((size_t)(longest + p->head_dim_v) * sizeof(double));
  if (scores == NULL)
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "scores of %d keys", (int)longest);
  for (int64_t b = 0; b < batch; ++b) {
    find_rows(p, a, b, &r, NULL);
    for (int64_t i = 0; i < r.q_length - (FAKE_FAULT == FAULT_PARTIAL); ++i) {
      for (int64_t h = 0; h < p->heads_q; ++h)
        attend_row(p, a, &r, b, h, i, scores, scores + longest);
    }
  }
  free(scores);
  return ATTNRT_OK;
}
