/* examples/minimal_plugin/plugin.c: a complete backend in C: f32 attention on the cpu, row by row
 *
 * It is written to be read, not to be fast. The runtime checks shapes, strides, dtypes and
 * alignment before it calls run. */
#include <attnrt/plugin.h>
#include <math.h>

/* Returns the row of a tensor at (batch, seq, head). */
static float* row(const attnrt_tensor* t, int64_t batch, int64_t seq, int64_t head) {
  return (float*)t->data + batch * t->stride[0] + seq * t->stride[1] + head * t->stride[2];
}

/* Computes the visible keys of query i, [*first, *end). They are an interval, because the manifest
 * allows no mask. A window may be as large as int64_t holds, so it is compared and never added. */
static void visible_keys(const attnrt_problem* problem, int64_t i, int64_t seq_q, int64_t seq_kv,
                         int64_t* first, int64_t* end) {
  const int64_t diagonal = problem->align == ATTNRT_ALIGN_TOP_LEFT ? i : i + seq_kv - seq_q;
  const int64_t right = problem->causal ? 0 : problem->window_right;
  *first = 0;
  *end = seq_kv;
  if (problem->window_left >= 0 && problem->window_left < diagonal)
    *first = diagonal - problem->window_left;
  if (right >= 0 && right < seq_kv - 1 - diagonal) *end = diagonal + right + 1;
}

/* Computes the score of one query and one key: scaled, and bounded by softcap if there is one. */
static double score(const attnrt_problem* problem, const float* q, const float* k,
                    int64_t head_dim) {
  double s = 0.0;
  for (int64_t d = 0; d < head_dim; ++d) s += (double)q[d] * (double)k[d];
  s *= problem->scale != 0.0F ? (double)problem->scale : 1.0 / sqrt((double)head_dim);
  return problem->softcap != 0.0F ? (double)problem->softcap * tanh(s / (double)problem->softcap)
                                  : s;
}

/* Computes one query row of one head. Each score is computed twice, first for the maximum and then
 * for its weight, so that no memory is needed to keep the scores. */
static void attend(const attnrt_problem* problem, const attnrt_args* args, int64_t batch, int64_t i,
                   int64_t head) {
  const int64_t head_dim = args->q.shape[3], head_dim_v = args->v.shape[3];
  const int64_t head_kv = head / (args->q.shape[2] / args->k.shape[2]);
  const float* q = row(&args->q, batch, i, head);
  float* out = row(&args->out, batch, i, head);
  int64_t first = 0, end = 0;
  visible_keys(problem, i, args->q.shape[1], args->k.shape[1], &first, &end);

  double maximum = -(double)INFINITY, sum = 0.0;
  for (int64_t j = first; j < end; ++j)
    maximum = fmax(maximum, score(problem, q, row(&args->k, batch, j, head_kv), head_dim));
  for (int64_t d = 0; d < head_dim_v; ++d) out[d] = 0.0F;
  for (int64_t j = first; j < end; ++j) {
    const double weight =
        exp(score(problem, q, row(&args->k, batch, j, head_kv), head_dim) - maximum);
    const float* v = row(&args->v, batch, j, head_kv);
    for (int64_t d = 0; d < head_dim_v; ++d) out[d] += (float)weight * v[d];
    sum += weight;
  }
  for (int64_t d = 0; first < end && d < head_dim_v; ++d) out[d] /= (float)sum;
  if (problem->lse) { /* lse is [batch, head, seq]; it is -inf if the row sees nothing */
    const attnrt_tensor* lse = &args->lse;
    float* element =
        (float*)lse->data + batch * lse->stride[0] + head * lse->stride[1] + i * lse->stride[2];
    *element = first < end ? (float)(maximum + log(sum)) : -INFINITY;
  }
}

static attnrt_status run(void* instance, void* plan, const attnrt_problem* problem,
                         const attnrt_args* args, attnrt_error* error) {
  (void)instance, (void)plan, (void)error;
  for (int64_t batch = 0; batch < args->q.shape[0]; ++batch)
    for (int64_t i = 0; i < args->q.shape[1]; ++i)
      for (int64_t head = 0; head < args->q.shape[2]; ++head) attend(problem, args, batch, i, head);
  return ATTNRT_OK;
}

/* Entries that are not set are NULL: the plugin has no instance, its device is the cpu, the
 * manifest alone decides what it supports, and there is nothing to plan. */
ATTNRT_PLUGIN_EXPORT const attnrt_plugin attnrt_plugin_v1 = {
    .struct_size = (int32_t)sizeof(attnrt_plugin),
    .abi_minor = ATTNRT_ABI_MINOR,
    .name = ATTNRT_PLUGIN_NAME,
    .version = ATTNRT_PLUGIN_VERSION,
    .run = run,
};
