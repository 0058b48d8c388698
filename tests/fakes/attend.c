/* tests/fakes/attend.c: computes attention in double, with every feature, in plain C */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

static int64_t number(const attnrt_tensor* t, int64_t i, int64_t j) {
  return ((const int32_t*)t->data)[i * t->stride[0] + (t->ndim > 1 ? j * t->stride[1] : 0)];
}

static int64_t batch_of(const attnrt_problem* p, const attnrt_args* a) {
  return p->varlen ? a->offsets_q.shape[0] - 1 : a->q.shape[0];
}

attnrt_status fake_find_rows(const attnrt_problem* p, const attnrt_args* a, int64_t b, fake_rows* r,
                             attnrt_error* error) {
  const int check = FAKE_FAULT != FAULT_INDICES;
  *r = (fake_rows){0, a->q.shape[1], 0, a->k.shape[1], 0};
#ifndef FAKE_HEADER_IS_OLDER
  if (p->diagonal_offset && FAKE_FAULT != FAULT_DIAGONAL)
    r->diagonal_offset = number(&a->diagonal_offset, b, 0);
#endif
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

static int64_t row_of_query(const attnrt_problem* p, const attnrt_tensor* t, const fake_rows* r,
                            int64_t b, int64_t i, int64_t h) {
  if (p->varlen) return (r->q_first + i) * t->stride[0] + h * t->stride[1];
  return b * t->stride[0] + i * t->stride[1] + h * t->stride[2];
}

static int64_t place_of_lse(const attnrt_problem* p, const attnrt_args* a, const fake_rows* r,
                            int64_t b, int64_t i, int64_t h) {
  const attnrt_tensor* l = &a->lse;
  if (p->varlen) return h * l->stride[0] + (r->q_first + i) * l->stride[1];
  return b * l->stride[0] + h * l->stride[1] + i * l->stride[2];
}

static int64_t row_of_key(const attnrt_problem* p, const attnrt_args* a, const attnrt_tensor* t,
                          const fake_rows* r, int64_t b, int64_t j, int64_t h) {
  if (p->page_size)
    return number(&a->page_table, b, j / p->page_size) * t->stride[0] +
           j % p->page_size * t->stride[1] + h * t->stride[2];
  if (p->varlen) return (r->kv_first + j) * t->stride[0] + h * t->stride[1];
  return b * t->stride[0] + j * t->stride[1] + h * t->stride[2];
}

/* The element of k_scale or v_scale beside a row of keys; 1: there are none. */
static double scale_of(const attnrt_problem* p, const attnrt_args* a, const attnrt_tensor* scale,
                       const fake_rows* r, int64_t b, int64_t j, int64_t h) {
  if (p->kv_scale == ATTNRT_KV_SCALE_NONE) return 1;
  if (FAKE_FAULT == FAULT_KV_SCALE && scale == &a->v_scale) return 1.0 / 30;
  return fake_load(scale, row_of_key(p, a, scale, r, b, j, h));
}

static int64_t diagonal_of(const attnrt_problem* p, const fake_rows* r, int64_t i) {
  const int64_t diagonal = p->align == ATTNRT_ALIGN_TOP_LEFT ? i : i + r->kv_length - r->q_length;
  return diagonal + r->diagonal_offset;
}

/* The score of key j. Sets *hidden, and returns -INFINITY, if the key is not visible. */
static double score_of(const attnrt_problem* p, const attnrt_args* a, const fake_rows* r, int64_t b,
                       int64_t h, int64_t i, int64_t j, int* hidden) {
  const int64_t diagonal = diagonal_of(p, r, i);
  const attnrt_tensor* m = &a->mask;
  const int64_t at = b * m->stride[0] + h * m->stride[1] + i * m->stride[2] + j * m->stride[3];
  double added = 0;
  *hidden = 1;
  if (p->causal && j > diagonal) return -INFINITY;
  if (p->window_left >= 0 && diagonal - j > p->window_left) return -INFINITY;
  if (p->window_right >= 0 && j - diagonal > p->window_right) return -INFINITY;
  if (p->mask == ATTNRT_MASK_BOOLEAN && !((const uint8_t*)m->data)[at]) return -INFINITY;
  if (p->mask == ATTNRT_MASK_ADDITIVE) added = fake_load(m, at);
  if (added == -INFINITY) return -INFINITY;
  *hidden = 0;
  const int64_t q = row_of_query(p, &a->q, r, b, i, h);
  const int64_t h_kv = h / (p->heads_q / p->heads_kv);
  const int64_t k = row_of_key(p, a, &a->k, r, b, j, h_kv);
  double s = 0;
  for (int64_t x = 0; x < p->head_dim; ++x) s += fake_load(&a->q, q + x) * fake_load(&a->k, k + x);
  s *= scale_of(p, a, &a->k_scale, r, b, j, h_kv);
  s *= p->scale != 0 ? (double)p->scale : 1 / sqrt((double)p->head_dim);
  if (p->softcap != 0) s = p->softcap * tanh(s / p->softcap);
  s += added;
  if (p->alibi)
    s -=
        fake_load(&a->alibi_slopes, b * a->alibi_slopes.stride[0] + h * a->alibi_slopes.stride[1]) *
        fabs((double)(diagonal - j));
  return s;
}

static void attend_row(const attnrt_problem* p, const attnrt_args* a, const fake_rows* r, int64_t b,
                       int64_t h, int64_t i, double* scores, double* sum) {
  double max = p->sinks ? fake_load(&a->sinks, h * a->sinks.stride[0]) : -INFINITY;
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
  const attnrt_tensor* values = p->v_in_k ? &a->k : &a->v;
  const int64_t h_kv = h / (p->heads_q / p->heads_kv);
  const int64_t shift = FAKE_FAULT == FAULT_V_IN_K && p->v_in_k ? p->head_dim - p->head_dim_v : 0;
  for (int64_t j = 0; j < r->kv_length; ++j) {
    if (scores[j] == -INFINITY) continue;
    const double weight = exp(scores[j] - max);
    const int64_t v = row_of_key(p, a, values, r, b, j, h_kv) + shift;
    const double scale = scale_of(p, a, p->v_in_k ? &a->k_scale : &a->v_scale, r, b, j, h_kv);
    total += weight;
    for (int64_t x = 0; x < p->head_dim_v; ++x)
      sum[x] += weight * (scale * fake_load(values, v + x));
  }
  if (FAKE_FAULT == FAULT_LEAK && !p->varlen && !p->page_size) {
    for (int64_t j = r->kv_length; j < values->shape[1]; ++j)
      sum[0] += 0 * fake_load(values, row_of_key(p, a, values, r, b, j, h_kv));
  }
  const int64_t out = row_of_query(p, &a->out, r, b, i, h);
  for (int64_t x = 0; x < p->head_dim_v; ++x) {
    double value = total > 0 || isnan(total) ? sum[x] / total : sum[x];
    if (FAKE_FAULT == FAULT_GARBAGE) value = 1 + (double)x;
    if (FAKE_FAULT == FAULT_ROUGH) value *= x % 2 ? 1.02 : 0.98;
    if (FAKE_FAULT == FAULT_BATCH && batch_of(p, a) > 1) value *= 1 + ldexp(1, -23);
    if (FAKE_FAULT == FAULT_SCHEDULE_BITS && a->schedule != NULL) value *= 1 + ldexp(1, -23);
    if (FAKE_FAULT == FAULT_OUT_DTYPE && p->out_dtype.bits != 0) value = fake_rounded(&a->q, value);
    fake_store(&a->out, out + x, value);
  }
  if (FAKE_FAULT == FAULT_GAP) fake_store(&a->out, out + p->head_dim_v, 0);
  if (!p->lse) return;
  fake_store(&a->lse, place_of_lse(p, a, r, b, i, h), total == 0 ? -INFINITY : max + log(total));
}

/* Gives NaN for the rows of a sequence whose lengths are not those of the schedule. */
static void spoil_sequence(const attnrt_problem* p, const attnrt_args* a, const fake_rows* r,
                           int64_t b, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t h = 0; h < p->heads_q; ++h) {
      const int64_t out = row_of_query(p, &a->out, r, b, i, h);
      for (int64_t x = 0; x < p->head_dim_v; ++x) fake_store(&a->out, out + x, NAN);
      if (p->lse) fake_store(&a->lse, place_of_lse(p, a, r, b, i, h), NAN);
    }
  }
}

attnrt_status fake_attend(const attnrt_problem* p, const attnrt_args* a, attnrt_error* error) {
  const int64_t batch = batch_of(p, a);
  fake_rows r;
  int64_t longest = 1;
  for (int64_t b = 0; b < batch; ++b) { /* checks all before computing the first */
    const attnrt_status status = fake_find_rows(p, a, b, &r, error);
    if (status != ATTNRT_OK) return status;
    if (r.kv_length > longest) longest = r.kv_length;
    const fake_rows* built = fake_scheduled(a, b);
    if (built != NULL && built->kv_length > longest) longest = built->kv_length;
  }
  double* scores = malloc((size_t)(longest + p->head_dim_v) * sizeof(double));
  if (scores == NULL)
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "scores of %d keys", (int)longest);
  for (int64_t b = 0; b < batch; ++b) {
    fake_find_rows(p, a, b, &r, NULL);
    const fake_rows* built = fake_scheduled(a, b);
    if (built != NULL && memcmp(built, &r, sizeof r) != 0) {
      if (FAKE_FAULT != FAULT_SCHEDULE_LENGTHS) {
        spoil_sequence(p, a, &r, b, built->q_length < r.q_length ? built->q_length : r.q_length);
        continue;
      }
      r = *built;
    }
    for (int64_t i = 0; i < r.q_length - (FAKE_FAULT == FAULT_PARTIAL); ++i) {
      for (int64_t h = 0; h < p->heads_q; ++h)
        attend_row(p, a, &r, b, h, i, scores, scores + longest);
    }
  }
  free(scores);
  return ATTNRT_OK;
}
