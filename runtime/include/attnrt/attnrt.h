/* attnrt/attnrt.h: the C API of the attention runtime, for applications
 *
 * C11 and C++20; attnrt.hpp is the same for C++.
 *
 *   attnrt_runtime* runtime = NULL;
 *   attnrt_runtime_open(NULL, &runtime, &error);               finds plugins, reads the policy
 *   attnrt_attention(runtime, &problem, &args, NULL, &error);  selects, plans (once) and runs
 *   attnrt_runtime_close(runtime);
 *
 * Conventions:
 *  1. ERRORS. Each call that can fail returns an attnrt_status and fills error with one line:
 *     where, what was found, what was expected. Pass NULL if you do not want the text. Outputs are
 *     written only on success.
 *  2. STRUCTS follow the rules of plugin.h. Set struct_size (the INIT macros do); zero means
 *     default.
 *  3. OWNERSHIP. What a call hands out through a pointer to a pointer is yours: close, destroy or
 *     free it with the call that its comment names. Tensors and their memory always stay yours.
 *  4. THREADS. A runtime may be used from any threads at once. A plan has one run in flight at a
 *     time. When the process ends, threads may still be inside calls.
 *  5. FORK. A child may use the runtimes and plans that it inherits, also if other threads were
 *     inside a call at the fork. What they were doing is not done in the child. A plan that they
 *     were running stays in use and is lost there. The pool starts new threads. A backend whose
 *     device was opened before the fork answers UNSUPPORTED, because a device's context does not
 *     survive a fork. A runtime that the child opens may use the device, if the driver allows it.
 *     REQUIRES: the application's own log and parallel_for work in the child.
 *  6. FLOATING POINT. Backends run with the default rounding mode, denormals and traps, whatever
 *     the calling thread has set, and the thread has its own again after each call.
 *  7. TEXT is UTF-8. ATTNRT_TEXT is for people and may change. ATTNRT_JSON follows the schema
 *     "attnrt/1" (docs/json.md).
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

typedef struct attnrt_runtime attnrt_runtime;   /* a policy and the plugins that it finds */
typedef struct attnrt_plan attnrt_plan;         /* prepared work for one problem */
typedef struct attnrt_schedule attnrt_schedule; /* how runs divide their work */

/* Returns the runtime's version, "MAJOR.MINOR.PATCH". It is static. */
ATTNRT_API const char* attnrt_version(void);

/* ---- Runtime ---- */

/* Allocates and frees device memory for workspaces and staging buffers, in place of the backend's
 * calls. self: allocator_self. bytes is at least 1; any alignment will do. stream: the call's
 * stream, or one of attnrt's own if the memory may be used on any stream. free may get another
 * stream than allocate got. Never called for the cpu.
 * REQUIRES: the memory may be used by work on stream, and by work that waits for stream.
 * RETURNS OK with *pointer set; UNSUPPORTED: the backend's own memory is used. ERRORS: any other
 * status fails the plan with it.
 * OWNERSHIP: all work that uses the memory has completed when free is called.
 * THREADS: from any thread. While a stream of the device is being captured, both may be called for
 * other streams, and must not invalidate the capture. They must not call this runtime. */
typedef attnrt_status (*attnrt_device_allocate)(void* self, int32_t device_type, int32_t device_id,
                                                int64_t bytes, void* stream, void** pointer,
                                                attnrt_error* error);
typedef void (*attnrt_device_free)(void* self, int32_t device_type, int32_t device_id,
                                   void* pointer, void* stream);

typedef struct attnrt_runtime_options {
  int32_t struct_size;
  int32_t thread_count;    /* threads of the pool, or of parallel_for; 0: the policy's `threads` */
  const char* policy_path; /* a YAML file; NULL: $ATTNRT_POLICY, else the built-in policy */
  const char* policy_text; /* the YAML itself, in place of policy_path; NULL: none */
  /* Directories separated by ':', in place of the policy's and of $ATTNRT_PLUGIN_PATH; NULL: those.
   * */
  const char* plugin_path;
  /* Gets each line of the log; severity is ATTNRT_LOG_*. NULL: lines go to stderr, from the level
   * of $ATTNRT_LOG on (warning if it is not set). If $ATTNRT_LOG names decision, each new decision
   * is a line, too (docs/stats.md). THREADS: called from any thread. It must not call this runtime.
   */
  void (*log)(void* self, int32_t severity, const char* text);
  void* log_self; /* the first argument of log */
  /* Runs work on the application's own threads, in place of the pool; plugin.h has its contract.
   * NULL: the pool. REQUIRES: thread_count is given. */
  attnrt_parallel_for parallel_for;
  void* parallel_self; /* the first argument of parallel_for */
  /* The application's allocator: both or neither. It outlives the runtime and its plans. */
  attnrt_device_allocate allocate;
  attnrt_device_free free;
  void* allocator_self; /* the first argument of both */
} attnrt_runtime_options;

/* clang-format off */
#define ATTNRT_RUNTIME_OPTIONS_INIT \
  {(int32_t)sizeof(attnrt_runtime_options), 0,    NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
   NULL,                                    NULL, NULL}
/* clang-format on */

/* Reads the policy and the environment, and scans the plugin directories. No plugin code runs yet.
 * A broken plugin is no error here; attnrt_plugins lists it. options: NULL means all defaults.
 * ERRORS: INVALID_ARGUMENT for a policy with an error, with file:line:column; INTERNAL or
 * OUT_OF_MEMORY if file descriptors or memory ran out, or reading failed: it may work later.
 * OWNERSHIP: attnrt_runtime_close closes *runtime, after its plans are destroyed. It waits for the
 * runs of one-shot calls, and writes the counters to the file that $ATTNRT_STATS names. Launches of
 * graphs that captured one-shot calls have completed, and there are no more of them. */
ATTNRT_API attnrt_status attnrt_runtime_open(const attnrt_runtime_options* options,
                                             attnrt_runtime** runtime, attnrt_error* error);
ATTNRT_API void attnrt_runtime_close(attnrt_runtime* runtime);

/* Reads the policy and the plugin directories again, but not the environment. New plans use what is
 * found now; existing plans keep their backend. A file whose new bytes cannot be used keeps its
 * last good ones, with a warning. New bytes of a file that serves do so when their probe has
 * passed, which reload does not wait for. Looks again for devices, as attnrt_runtime_retry does. If
 * it fails, everything stays as it was.
 * ERRORS: as attnrt_runtime_open; INTERNAL if a directory that could be read before cannot be. */
ATTNRT_API attnrt_status attnrt_runtime_reload(attnrt_runtime* runtime, attnrt_error* error);

/* Watches the policy file and the plugin directories, for an application with a loop of its own.
 * (With `watch: true` in the policy, a thread of the runtime does that.) *descriptor is readable
 * when attnrt_runtime_handle_events has something to do: poll, select, epoll and event libraries
 * take it. From the first call on, the runtime has no thread that watches. Later calls give the
 * same descriptor.
 * OWNERSHIP: attnrt_runtime_close closes *descriptor. Take it out of your loop before that, and
 * neither read nor close it.
 * FORK: a child handles no events; a runtime that it opens can.
 * ERRORS: INTERNAL or OUT_OF_MEMORY if descriptors, inotify's instances or memory ran out;
 * UNSUPPORTED in a child of the process that opened the runtime. */
ATTNRT_API attnrt_status attnrt_runtime_watch(attnrt_runtime* runtime, int32_t* descriptor,
                                              attnrt_error* error);

/* Takes the events that have come. When 500 ms have passed after the last one, or 5 s after the
 * first one, it does what attnrt_runtime_reload does (files that are open for writing are waited
 * for, a policy up to 60 s); otherwise it returns OK at once. Warnings
 * that the last reload gave are not repeated. A reload that could not look is tried again after
 * 1 s, then after twice as long each time, up to 60 s.
 * ERRORS: as attnrt_runtime_reload, and everything stays as it was; INVALID_ARGUMENT without a
 * descriptor. */
ATTNRT_API attnrt_status attnrt_runtime_handle_events(attnrt_runtime* runtime, attnrt_error* error);

/* Destroys idle plans of one-shot calls, the least recently used first, until the rest hold at most
 * `bytes`; 0: destroys all. Waits for the last runs of what it destroys. Plans that captured graphs
 * use are kept. ERRORS: INVALID_ARGUMENT if bytes is negative. */
ATTNRT_API attnrt_status attnrt_runtime_trim(attnrt_runtime* runtime, int64_t bytes,
                                             attnrt_error* error);

/* Looks again for devices that were missing or lost (DEVICE_LOST), and for what prevented a plugin
 * from being loaded. Does not scan the directories. A backend without a device, or with a lost one,
 * gets a new instance of its library when it is next asked. A plugin that could not be loaded is
 * loaded again then, which may read its file. New plans use the new instance; existing plans keep
 * theirs. Forgets that a plugin was refused by its probe, which runs again when it is next asked.
 * Does nothing else if all loaded backends have their devices. */
ATTNRT_API attnrt_status attnrt_runtime_retry(attnrt_runtime* runtime, attnrt_error* error);

/* Ends the rollout of a backend's new versions (`rollout` in the policy; docs/swap.md). After
 * promote they are ranked as if there were no rollout; after roll_back they serve nothing new.
 * Existing plans keep their version. It holds until the policy's `rollout` of the backend changes,
 * or the runtime is closed.
 * ERRORS: NOT_FOUND if no installed version of the backend has a rollout. */
ATTNRT_API attnrt_status attnrt_runtime_promote(attnrt_runtime* runtime, const char* backend,
                                                attnrt_error* error);
ATTNRT_API attnrt_status attnrt_runtime_roll_back(attnrt_runtime* runtime, const char* backend,
                                                  attnrt_error* error);

/* ---- Problems ---- */

/* What a single call may ask for beyond the policy. */
typedef struct attnrt_call {
  int32_t struct_size;
  int32_t reserved;
  const char* backend; /* a name: this backend or an error; NULL: the policy decides */
  /* For attnrt_plan_create: the plan's workspace may be used on this stream, and on streams that
   * wait for it. NULL: the workspace may be used on any stream. attnrt_attention has args->stream.
   */
  void* stream;
} attnrt_call;

/* clang-format off */
#define ATTNRT_CALL_INIT {(int32_t)sizeof(attnrt_call), 0, NULL, NULL}
/* clang-format on */

/* Fills in everything of the problem that the tensors in args can say: dtype, dimensions, mask and
 * its dtype, alibi, sinks, kv_lengths, varlen, page_size, lse, alignment_bytes, kv_dtype, kv_scale,
 * out_dtype (if out is given), diagonal_offset. The rest is yours to set: device, scale, causal,
 * align, windows, softcap, deterministic, batch_invariant and v_in_k. With v_in_k, head_dim_v is
 * that of out if it is given. Offsets and page tables are not read; with them, seq_q and seq_kv are
 * the most that one sequence could have.
 * ERRORS: INVALID_ARGUMENT if tensors disagree with each other. */
ATTNRT_API attnrt_status attnrt_problem_infer(attnrt_problem* problem, const attnrt_args* args,
                                              attnrt_error* error);

/* Sets a problem from words: "dtype=f16 heads_q=9 seq_q=128 causal=true device=rocm arch=gfx1100".
 * A word that is not named keeps its value. (In ATTNRT_PROBLEM_INIT the dimensions are 1, but
 * head_dim is 0 and must be named.) arch, a buffer of capacity bytes, gets the value of the word
 * arch with its NUL; "" if it is not named. arch NULL: the word is not allowed.
 * ERRORS: INVALID_ARGUMENT that names the word and the nearest known one. */
ATTNRT_API attnrt_status attnrt_problem_parse(const char* words, attnrt_problem* problem,
                                              char* arch, int32_t capacity, attnrt_error* error);

/* ---- Decisions ---- */
enum { ATTNRT_TEXT = 0, ATTNRT_JSON = 1 };

/* Gives the decision for a problem, with the reasons of each candidate. Nothing is planned or run.
 * If nothing supports the problem, the text says so, and the status is still OK. arch: decide as if
 * a device of this architecture were here; if there is none, manifests alone decide. NULL or "":
 * decide for this machine. format: ATTNRT_TEXT or ATTNRT_JSON, here and below.
 * OWNERSHIP: attnrt_text_free frees *text, here and below. */
ATTNRT_API attnrt_status attnrt_explain(attnrt_runtime* runtime, const attnrt_problem* problem,
                                        const char* arch, const attnrt_call* call, int32_t format,
                                        char** text, attnrt_error* error);

/* Lists each plugin file that was found: name, version, devices, state and, if it cannot be used,
 * the reason. */
ATTNRT_API attnrt_status attnrt_plugins(attnrt_runtime* runtime, int32_t format, char** text,
                                        attnrt_error* error);

/* Lists the effective policy, and where each value comes from: file, environment, built-in or
 * call. */
ATTNRT_API attnrt_status attnrt_policy(attnrt_runtime* runtime, int32_t format, char** text,
                                       attnrt_error* error);

/* ---- Counters ---- */

/* Gives what was counted since the runtime was opened: each candidate's plans, runs, failures by
 * class, failovers and quarantines, and what its plans hold; rollouts, reloads, decisions and
 * caches. JSON is a document of kind "stats". Counters go on after reloads. They are read one by
 * one while other calls go on. */
ATTNRT_API attnrt_status attnrt_stats(attnrt_runtime* runtime, int32_t format, char** text,
                                      attnrt_error* error);

/* Gives the last decisions that were made, the oldest first: at most 1,024 of them, and 4 MiB. Each
 * is a line of JSON, a document of kind "decision" with its number ("sequence", from 1 on) and its
 * time. Decisions that a cache gave, and those of attnrt_explain, are not among them.
 * after: only decisions with a higher number; 0: all. *lines is "" if there are none.
 * OWNERSHIP: attnrt_text_free frees *lines. */
ATTNRT_API attnrt_status attnrt_decisions(attnrt_runtime* runtime, int64_t after, char** lines,
                                          attnrt_error* error);
ATTNRT_API void attnrt_text_free(char* text);

/* ---- Plans ---- */

/* Selects a backend and prepares the work. If the winner's plan fails with UNSUPPORTED,
 * OUT_OF_MEMORY or INTERNAL, the next candidate is taken, unless a backend was asked for by name or
 * the policy's on_fallback is error. What failed is not asked again for a while (docs/explain.md).
 * ERRORS: UNSUPPORTED (every candidate's reason, in one line), NOT_FOUND (no plugin has that name),
 * INVALID_ARGUMENT (the problem), DEVICE_LOST (its device was lost), OUT_OF_MEMORY, or the last
 * candidate's error.
 * OWNERSHIP: attnrt_plan_destroy destroys *plan, after its last run has completed. */
ATTNRT_API attnrt_status attnrt_plan_create(attnrt_runtime* runtime, const attnrt_problem* problem,
                                            const attnrt_call* call, attnrt_plan** plan,
                                            attnrt_error* error);
/* Checks args against the plan's problem, then runs. If args->workspace is NULL, the plan's own is
 * used. For device tensors it enqueues on args->stream and returns. It allocates nothing, except
 * that a plan with staged tensors grows its buffers when a run needs more; such a run waits for its
 * results.
 * REQUIRES: out and lse overlap no other tensor, from their first byte to their last, and do not
 * overlap themselves (plugin.h).
 * ERRORS: INVALID_ARGUMENT for args that do not fit; UNSUPPORTED, before anything is enqueued, if
 * args->stream is being captured into a graph and the plan cannot be; or the backend's error. No
 * other backend is tried. */
ATTNRT_API attnrt_status attnrt_plan_run(attnrt_plan* plan, const attnrt_args* args,
                                         attnrt_error* error);
ATTNRT_API void attnrt_plan_destroy(attnrt_plan* plan);

/* Facts about a plan. The strings live as long as the plan. */
ATTNRT_API const char* attnrt_plan_backend(const attnrt_plan* plan); /* the plugin's name: "cpu" */
ATTNRT_API const char* attnrt_plan_version(const attnrt_plan* plan); /* the plugin's: "1.0.0" */
ATTNRT_API const char* attnrt_plan_kernel(const attnrt_plan* plan);  /* in the plugin's words */
ATTNRT_API int64_t attnrt_plan_workspace_bytes(const attnrt_plan* plan); /* held for its runs */

/* Gives the decision that the plan was made by, as attnrt_explain does. A backend that failed while
 * this plan was made is in there with its reason. */
ATTNRT_API attnrt_status attnrt_plan_explain(const attnrt_plan* plan, int32_t format, char** text,
                                             attnrt_error* error);

/* ---- Schedules ----
 * Where the lengths of sequences are in device memory, a backend reads them there to divide a run's
 * work evenly. All layers of a step have the same lengths, so a schedule is built once a step, and
 * each layer's run uses it. Its device memory stays in place: a graph that captured the build and
 * the runs may be launched with other lengths each time.
 *   attnrt_schedule_create(plan, &schedule, &error);                    once
 *   attnrt_schedule_build(schedule, &args, &error);                     each step, for one layer's
 *   attnrt_plan_run_scheduled(plan, schedule, &args, &error);           each layer
 * It changes no bit of a deterministic result. Where a backend needs none, or offers none, it does
 * nothing, so that an application is written once. */

/* Allocates a schedule for the plan's problem: once, from the application's allocator or the
 * backend's memory, for any stream.
 * REQUIRES: the plan outlives the schedule.
 * ERRORS: OUT_OF_MEMORY, or the backend's error.
 * OWNERSHIP: attnrt_schedule_destroy destroys *schedule, after its last build and the last run with
 * it have completed, and when no graph that captured one of them is launched any more. */
ATTNRT_API attnrt_status attnrt_schedule_create(attnrt_plan* plan, attnrt_schedule** schedule,
                                                attnrt_error* error);

/* Builds the schedule for runs on tensors of these sizes and lengths, in place of the last build's.
 * Checks args as attnrt_plan_run does, enqueues on args->stream and returns. kv_lengths, offsets_q,
 * offsets_kv and diagonal_offset are read on the device, in stream order; of all other tensors only
 * the shapes count, so args may be those of any layer. Allocates nothing. Without a sequence or a
 * query it does nothing.
 * STREAMS: runs with the schedule are on this stream, or on one that waits for it.
 * THREADS: a build counts as a run of the schedule's plan. No other thread uses the schedule
 * meanwhile.
 * ERRORS: as attnrt_plan_run. If the backend fails, the schedule counts as not built: runs with it
 * are INVALID_ARGUMENT until a build succeeds. */
ATTNRT_API attnrt_status attnrt_schedule_build(attnrt_schedule* schedule, const attnrt_args* args,
                                               attnrt_error* error);

/* Runs as attnrt_plan_run does, with a schedule of this plan, or of any other plan of an equal
 * problem with the same backend and device.
 * LENGTHS. Lengths and offsets on the device are those of the last build. Otherwise the rows of out
 * and lse of each sequence whose lengths differ are NaN; with varlen, rows that it did not have at
 * the build keep what they held. Nothing is read or written out of bounds.
 * THREADS: runs of several plans may use one schedule at once.
 * VERSIONS. A schedule of another version of the same backend is not used: the run divides its work
 * itself. (A rollout or a reload may give layers different versions.)
 * ERRORS: as attnrt_plan_run; INVALID_ARGUMENT for a schedule of another problem, backend or
 * device, one that was not built, and one that was built for tensors of other sizes. */
ATTNRT_API attnrt_status attnrt_plan_run_scheduled(attnrt_plan* plan,
                                                   const attnrt_schedule* schedule,
                                                   const attnrt_args* args, attnrt_error* error);
ATTNRT_API void attnrt_schedule_destroy(attnrt_schedule* schedule);

/* Device memory that the schedule holds, in bytes. 0: it does nothing. */
ATTNRT_API int64_t attnrt_schedule_bytes(const attnrt_schedule* schedule);

/* ---- One shot ---- */

/* Infers the problem (attnrt_problem_infer), plans and runs in one call. problem gives the
 * attributes that tensors cannot say, and is not changed; NULL: all defaults. It decides as
 * attnrt_explain does for this problem. Plans are kept in a cache that the policy bounds
 * (plan_cache). In them batch, seq_q and seq_kv are rounded up to powers of two, so a growing
 * decode loop plans once for each doubling. Each new plan writes one line to the log at level INFO
 * (`plan: cpu 1.0.0 on cpu: kernel ...; for device=...`).
 * If a run fails, it is repeated on the next candidate, except while a graph is being captured on
 * args->stream.
 * CAPTURE: a call on a stream that is being captured becomes a part of the graph. What it uses is
 * kept until the runtime is closed, so the graph may be launched until then.
 * REQUIRES and ERRORS are those of attnrt_plan_create and attnrt_plan_run. */
ATTNRT_API attnrt_status attnrt_attention(attnrt_runtime* runtime, const attnrt_problem* problem,
                                          const attnrt_args* args, const attnrt_call* call,
                                          attnrt_error* error);

/* ---- Partial results ---- */

/* Merges the results of count runs, each over a part of the keys, into the result over all keys;
 * attnrt.merge/1 in plugin.h has the formula, shapes and strides. The backend is the first in the
 * policy's order of priorities that is enabled, has the device, and offers attnrt.merge/1. For
 * device tensors it enqueues on stream and returns. lse: NULL or a tensor without data, if it is
 * not wanted.
 * ERRORS: INVALID_ARGUMENT for tensors that do not fit together, UNSUPPORTED if no such backend is
 * here, or the backend's error. */
ATTNRT_API attnrt_status attnrt_merge(attnrt_runtime* runtime, int32_t device_type,
                                      int32_t device_id, const attnrt_tensor* outs,
                                      const attnrt_tensor* lses, int32_t count,
                                      const attnrt_tensor* out, const attnrt_tensor* lse,
                                      void* stream, attnrt_error* error);

#ifdef __cplusplus
}
#endif

#endif /* ATTNRT_ATTNRT_H */
