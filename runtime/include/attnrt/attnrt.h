/* attnrt/attnrt.h: the embedding API of the attention runtime. C11 and C++20 (attnrt.hpp is the C++ face of it).
 *
 *   attnrt_runtime* runtime = NULL;
 *   attnrt_runtime_open(NULL, &runtime, &error);          finds plugins, reads the policy
 *   attnrt_attention(runtime, &problem, &args, NULL, &error);  selects, plans (once) and runs
 *   attnrt_runtime_close(runtime);
 *
 * Conventions:
 *  1. Every call that can fail returns an attnrt_status and fills error (NULL: not wanted) with one line that says where,
 *     what was found, what was expected. Outputs are written on success only.
 *  2. Structs follow the rules of plugin.h: set struct_size (the INIT macros do), zero means default.
 *  3. OWNERSHIP: what a call hands out through a pointer to pointer is yours: close it, destroy it or free it with the
 *     call named beside it. Tensors and their memory always stay yours.
 *  4. THREADS: a runtime may be used from any threads at once. A plan has one run in flight at a time.
 *  5. Text is UTF-8. ATTNRT_TEXT is for people and may change; ATTNRT_JSON follows docs of schema "attnrt/1".
 */
#ifndef ATTNRT_ATTNRT_H
#define ATTNRT_ATTNRT_H

#include <attnrt/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(ATTNRT_BUILD)
#define ATTNRT_API ATTNRT_VISIBLE
#else
#define ATTNRT_API
#endif

typedef struct attnrt_runtime attnrt_runtime;
typedef struct attnrt_plan attnrt_plan;

/* "MAJOR.MINOR.PATCH" of the runtime; static. */
ATTNRT_API const char* attnrt_version(void);

/* ---- Runtime ---- */
typedef struct attnrt_runtime_options {
  int32_t struct_size;
  int32_t
      thread_count; /* of the runtime's pool, or of parallel_for below; 0: the policy's `threads` */
  const char* policy_path; /* a YAML file; NULL: $ATTNRT_POLICY, else the built-in policy */
  const char* policy_text; /* the YAML itself; not both */
  const char*
      plugin_path; /* directories separated by ':', replace the policy's and $ATTNRT_PLUGIN_PATH; NULL: those */
  /* NULL: stderr, ATTNRT_LOG (warning) and worse. Called from any thread; must not call this runtime. */
  void (*log)(void* self, int32_t severity, const char* text);
  void* log_self;
  attnrt_parallel_for
      parallel_for; /* the application's own threads, contract in plugin.h; needs thread_count */
  void* parallel_self;
} attnrt_runtime_options;

/* clang-format off */
#define ATTNRT_RUNTIME_OPTIONS_INIT \
  {(int32_t)sizeof(attnrt_runtime_options), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
/* clang-format on */

/* Reads policy and environment, scans the plugin directories. No plugin code runs yet, and a broken plugin is a row in
 * attnrt_plugins, not an error. Errors: INVALID_ARGUMENT (policy: file:line:column). Free: attnrt_runtime_close, after
 * its plans are destroyed. */
ATTNRT_API attnrt_status attnrt_runtime_open(const attnrt_runtime_options* options,
                                             attnrt_runtime** runtime, attnrt_error* error);
ATTNRT_API void attnrt_runtime_close(attnrt_runtime* runtime);

/* Reads policy, environment and directories again. New plans use what is found now, existing plans keep their backend;
 * on an error everything stays as it was. */
ATTNRT_API attnrt_status attnrt_runtime_reload(attnrt_runtime* runtime, attnrt_error* error);

/* ---- Problems ---- */

/* What one call may ask beyond the policy. */
typedef struct attnrt_call {
  int32_t struct_size;
  int32_t reserved;
  const char* backend; /* this backend or an error; NULL: the policy decides */
} attnrt_call;

/* clang-format off */
#define ATTNRT_CALL_INIT {(int32_t)sizeof(attnrt_call), 0, NULL}
/* clang-format on */

/* Fills in, from the tensors in args, everything of the problem that tensors can say: dtype, dimensions, mask and its
 * dtype, alibi, sinks, kv_lengths, varlen, page_size, lse, alignment_bytes. Attributes (device, scale, causal, align,
 * windows, softcap, deterministic) are the caller's. With offsets or pages, which are not read, seq_q and seq_kv are the
 * most that one sequence could have. Errors: INVALID_ARGUMENT where tensors disagree with each other. */
ATTNRT_API attnrt_status attnrt_problem_infer(attnrt_problem* problem, const attnrt_args* args,
                                              attnrt_error* error);

/* Sets a problem from words: "dtype=f16 heads_q=9 seq_q=128 causal=true device=rocm arch=gfx1100". arch receives the
 * value of arch (empty where absent), at most capacity bytes with the NUL; NULL: arch is not allowed. What the words do
 * not name keeps the value that it had (of ATTNRT_PROBLEM_INIT, dimensions are 1, but head_dim is 0 and must be named).
 * Errors: INVALID_ARGUMENT naming the word and the nearest known one. */
ATTNRT_API attnrt_status attnrt_problem_parse(const char* words, attnrt_problem* problem,
                                              char* arch, int32_t capacity, attnrt_error* error);

/* ---- Decisions ---- */
enum { ATTNRT_TEXT = 0, ATTNRT_JSON = 1 };

/* The decision for a problem, with the reasons of every candidate; nothing is planned or run. arch: decide as if a device
 * of this architecture were there (by manifests alone); NULL or "": this machine's. OK also where nothing supports the
 * problem: the text says so. Free: attnrt_text_free. */
ATTNRT_API attnrt_status attnrt_explain(attnrt_runtime* runtime, const attnrt_problem* problem,
                                        const char* arch, const attnrt_call* call, int32_t format,
                                        char** text, attnrt_error* error);
/* Every plugin file that was found: name, version, devices, state and, if it cannot be used, the reason. */
ATTNRT_API attnrt_status attnrt_plugins(attnrt_runtime* runtime, int32_t format, char** text,
                                        attnrt_error* error);
/* The effective policy, and where each value comes from (file, environment, built-in, call). */
ATTNRT_API attnrt_status attnrt_policy(attnrt_runtime* runtime, int32_t format, char** text,
                                       attnrt_error* error);
ATTNRT_API void attnrt_text_free(char* text);

/* ---- Plans ---- */

/* Selects and prepares. If the winner's plan fails with UNSUPPORTED, OUT_OF_MEMORY or INTERNAL the next candidate is
 * taken (unless a name was forced). Errors: UNSUPPORTED (every reason, in one line), NOT_FOUND (no plugin has that name).
 * Free: attnrt_plan_destroy, after its last run has completed. */
ATTNRT_API attnrt_status attnrt_plan_create(attnrt_runtime* runtime, const attnrt_problem* problem,
                                            const attnrt_call* call, attnrt_plan** plan,
                                            attnrt_error* error);
/* Checks args against the plan's problem, then runs; the plan's own workspace is used if args->workspace is NULL. out and
 * lse overlap no other tensor, from their first byte to their last: else INVALID_ARGUMENT (of attnrt_attention, too). For
 * device tensors it enqueues on args->stream and returns. No allocation. Errors: INVALID_ARGUMENT, or the backend's; no
 * other backend is tried. */
ATTNRT_API attnrt_status attnrt_plan_run(attnrt_plan* plan, const attnrt_args* args,
                                         attnrt_error* error);
ATTNRT_API void attnrt_plan_destroy(attnrt_plan* plan);

/* Of the plan: strings that live as long as it does. */
ATTNRT_API const char* attnrt_plan_backend(const attnrt_plan* plan); /* "cpu" */
ATTNRT_API const char* attnrt_plan_version(const attnrt_plan* plan); /* "1.0.0", the plugin's */
ATTNRT_API const char* attnrt_plan_kernel(
    const attnrt_plan* plan); /* what runs, in the plugin's words */
ATTNRT_API int64_t attnrt_plan_workspace_bytes(const attnrt_plan* plan);

/* ---- One shot ---- */

/* attnrt_problem_infer, plan and run in one call. problem gives the attributes and is not changed. Plans are kept in a
 * bounded cache, with batch, seq_q and seq_kv rounded up to powers of two, so a growing decode loop plans once for each
 * doubling. A run that fails is repeated on the next candidate, except while args->stream captures a graph. Who serves: a
 * log line of level INFO for each plan that is made says it (`plan: cpu 1.0.0 on cpu: kernel ...; for dtype=...`); a plan
 * of attnrt_plan_create says it of itself. */
ATTNRT_API attnrt_status attnrt_attention(attnrt_runtime* runtime, const attnrt_problem* problem,
                                          const attnrt_args* args, const attnrt_call* call,
                                          attnrt_error* error);

#ifdef __cplusplus
}
#endif

#endif /* ATTNRT_ATTNRT_H */
