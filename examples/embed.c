/* examples/embed.c: attention in C: open, explain, plan and run, then once more in one call
 *
 *   embed_c BACKEND      exit status 0 if BACKEND was chosen and the result is right */
#include <attnrt/attnrt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SEQ = 4, HEADS = 2, DIM = 8 };
static float q[SEQ][HEADS][DIM], k[SEQ][HEADS][DIM], v[SEQ][HEADS][DIM], out[SEQ][HEADS][DIM];

/* Describes one of the arrays above: batch 1, dense. Strides count elements. */
static attnrt_tensor tensor(float (*data)[HEADS][DIM]) {
  attnrt_tensor t = {data,
                     {ATTNRT_DTYPE_FLOAT, 32, 1},
                     4,
                     {1, SEQ, HEADS, DIM},
                     {SEQ * HEADS * DIM, HEADS * DIM, DIM, 1},
                     0,
                     {0, 0}};
  return t;
}

/* All queries are zero, so all visible keys weigh the same: causal row i is the mean of the
 * values 0 to i. */
static int result_is_right(void) {
  for (int i = 0; i < SEQ; ++i)
    for (int h = 0; h < HEADS; ++h)
      for (int d = 0; d < DIM; ++d) {
        float mean = 0.0F;
        for (int j = 0; j <= i; ++j) mean += v[j][h][d] / (float)(i + 1);
        if (!(fabsf(out[i][h][d] - mean) <= 1e-5F)) return 0;
      }
  return 1;
}

static int fail(const attnrt_error* error) {
  fprintf(stderr, "%s\n", error->message);
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  for (int j = 0; j < SEQ; ++j)
    for (int h = 0; h < HEADS; ++h)
      for (int d = 0; d < DIM; ++d)
        k[j][h][d] = 1.0F, v[j][h][d] = (float)(j * 100 + h * 10 + d) / 64.0F;

  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_runtime* runtime = NULL;
  if (attnrt_runtime_open(NULL, &runtime, &error) != ATTNRT_OK) return fail(&error);

  /* The tensors say dtype and shapes; the caller says the rest, here causal. */
  attnrt_args args = {.struct_size = (int32_t)sizeof args,
                      .q = tensor(q),
                      .k = tensor(k),
                      .v = tensor(v),
                      .out = tensor(out)};
  attnrt_problem problem = ATTNRT_PROBLEM_INIT;
  problem.causal = 1;
  if (attnrt_problem_infer(&problem, &args, &error) != ATTNRT_OK) return fail(&error);

  char* text = NULL;
  if (attnrt_explain(runtime, &problem, NULL, NULL, ATTNRT_TEXT, &text, &error) != ATTNRT_OK)
    return fail(&error);
  printf("attnrt %s\n%s\n", attnrt_version(), text);
  attnrt_text_free(text);

  /* A plan is made once and can run many times. */
  attnrt_plan* plan = NULL;
  if (attnrt_plan_create(runtime, &problem, NULL, &plan, &error) != ATTNRT_OK) return fail(&error);
  if (attnrt_plan_run(plan, &args, &error) != ATTNRT_OK) return fail(&error);
  printf("%s %s ran %s\n", attnrt_plan_backend(plan), attnrt_plan_version(plan),
         attnrt_plan_kernel(plan));
  int right = result_is_right() && strcmp(attnrt_plan_backend(plan), argv[1]) == 0;
  attnrt_plan_destroy(plan);

  /* The one-shot call finds or makes a plan of its own. */
  memset(out, 0, sizeof out);
  attnrt_problem attributes = ATTNRT_PROBLEM_INIT;
  attributes.causal = 1;
  if (attnrt_attention(runtime, &attributes, &args, NULL, &error) != ATTNRT_OK) return fail(&error);
  right = right && result_is_right();
  attnrt_runtime_close(runtime);
  puts(right ? "right" : "wrong");
  return right ? 0 : 1;
}
