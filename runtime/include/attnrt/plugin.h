/* attnrt/plugin.h: what a backend is to the runtime; the plugin ABI, version 1. C11 and C++20.
 *
 * A plugin is a shared library that exports exactly one symbol, and that symbol is data: a const attnrt_plugin named
 * attnrt_plugin_v1. The runtime reads the plugin's manifest (ELF section .attnrt_manifest) without running any of its
 * code, and loads it only when a problem asks for its kind of device.
 *
 * Three rules hold everywhere:
 *  1. SIZES. A struct whose first field is struct_size grows only at its end. The side that fills it sets struct_size to
 *     what it knows; the side that reads it touches a field only if ATTNRT_HAS(pointer, type, field). Structs without
 *     struct_size (attnrt_dtype, attnrt_tensor, attnrt_option) are frozen. No struct has implicit padding. Fields named
 *     reserved are zero.
 *  2. ERRORS. A call that can fail returns an attnrt_status and fills the caller's attnrt_error (attnrt_fail does both).
 *     No exception, signal or exit crosses the boundary; a plugin writes nothing to stdout or stderr (there is host->log).
 *  3. STRINGS are UTF-8, end with NUL, and are never NULL unless the field says so. Those that a plugin gives live as
 *     long as its library; those that the host gives live as long as the call.
 *
 * VERSIONS. The major version is in the symbol's name. A minor version appends fields and extensions; an appended field
 * means "off" when zero, so the host can refuse a problem that uses it from a plugin that is too old to know it.
 */
#ifndef ATTNRT_PLUGIN_H
#define ATTNRT_PLUGIN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ATTNRT_ABI_MAJOR 1
#define ATTNRT_ABI_MINOR 0

/* True if the struct that p points to reaches past the end of field (rule 1). */
#define ATTNRT_HAS(p, type, field) \
  ((p)->struct_size >= (int32_t)(offsetof(type, field) + sizeof(((type*)NULL)->field)))

/* ---- Statuses: what the host does next depends on the class, so return the one that is true. ---- */
enum {
  ATTNRT_OK = 0,
  ATTNRT_UNSUPPORTED =
      1, /* this backend cannot do this problem; another may: the next candidate is asked */
  ATTNRT_OUT_OF_MEMORY =
      2, /* memory ran out; another backend may need less: the next candidate is asked */
  ATTNRT_INVALID_ARGUMENT = 3, /* the caller's fault: never retried elsewhere */
  ATTNRT_INTERNAL =
      4, /* the backend's fault: the next candidate is asked, and the failure is logged */
  ATTNRT_DEVICE_LOST = 5, /* the device is gone: nothing is retried */
  ATTNRT_NOT_FOUND = 6    /* host only: a name that no plugin has */
};
typedef int32_t attnrt_status;

/* Caller-owned; the caller sets struct_size and may pass NULL where it does not want the text. */
typedef struct attnrt_error {
  int32_t struct_size;
  attnrt_status code;
  char message[256]; /* one line: what was found, what was expected */
} attnrt_error;

/* clang-format off */
#define ATTNRT_ERROR_INIT {(int32_t)sizeof(attnrt_error), ATTNRT_OK, {0}}
/* clang-format on */

/* Fills error (if there is one) and returns code: return attnrt_fail(error, ATTNRT_UNSUPPORTED, "head_dim %d ...", n). */
#if defined(__GNUC__)
static inline attnrt_status attnrt_fail(attnrt_error* error, attnrt_status code, const char* format,
                                        ...) __attribute__((format(printf, 3, 4)));
#endif
static inline attnrt_status attnrt_fail(attnrt_error* error, attnrt_status code, const char* format,
                                        ...) {
  if (error != NULL && ATTNRT_HAS(error, attnrt_error, message)) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    error->code = code;
  }
  return code;
}

/* ---- Devices, element types, tensors: DLPack's numbers. ---- */
enum { ATTNRT_DEVICE_CPU = 1, ATTNRT_DEVICE_CUDA = 2, ATTNRT_DEVICE_ROCM = 10 };

enum {
  ATTNRT_DTYPE_INT = 0,
  ATTNRT_DTYPE_UINT = 1,
  ATTNRT_DTYPE_FLOAT = 2,
  ATTNRT_DTYPE_BFLOAT = 4,
  ATTNRT_DTYPE_BOOL = 6
};

/* f32 is {FLOAT, 32, 1}, f16 {FLOAT, 16, 1}, bf16 {BFLOAT, 16, 1}, a boolean mask {BOOL, 8, 1}, int32 {INT, 32, 1}. */
typedef struct attnrt_dtype {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes; /* always 1 */
} attnrt_dtype;

/* A view of memory that somebody else owns. Strides count elements; 0 broadcasts; never negative. */
typedef struct attnrt_tensor {
  void* data; /* NULL: the tensor is absent. Inputs are never written to. */
  attnrt_dtype dtype;
  int32_t ndim; /* 1 to 4: how many of shape and stride count */
  int64_t shape[4];
  int64_t stride[4]; /* always given */
} attnrt_tensor;

/* ---- The problem: what is asked. ----
 *
 * Tensors are logical [batch, seq, heads, head_dim]; any strides, but head_dim's is 1:
 *   q [batch, seq_q, heads_q, head_dim]      k [batch, seq_kv, heads_kv, head_dim]
 *   v [batch, seq_kv, heads_kv, head_dim_v]  out [batch, seq_q, heads_q, head_dim_v]       all in dtype
 *   mask [batch, heads_q, seq_q, seq_kv], stride 0 where it is broadcast: boolean, one byte each, nonzero = visible; or
 *     additive, in dtype or f32
 *   lse [batch, heads_q, seq_q] f32; alibi_slopes [heads_q] f32; sinks [heads_q] f32
 * heads_q is a multiple of heads_kv; query head h reads key head h / (heads_q / heads_kv).
 *
 * batch, seq_q and seq_kv are upper bounds, at least 1: a plan serves every run whose tensors are within them (0
 * included: there is nothing to do) and agree in everything else. What counts at run is the tensors' own shape.
 *
 *   s(i, j) = scale * dot(q[i], k[j]);  if softcap: s = softcap * tanh(s / softcap);  s += additive mask;
 *   if alibi: s -= alibi_slopes[head] * |diagonal(i) - j|
 *   j is visible to i if it exists, and the boolean mask is true (the additive mask is not -inf) there, and
 *     (not causal or j <= diagonal(i)), and diagonal(i) - window_left <= j <= diagonal(i) + window_right
 *   diagonal(i) = i (top_left) or i + seq_kv - seq_q (bottom_right), of that run and sequence
 *   out[i] = sum over visible j of softmax(s)(i, j) * v[j]; with sinks, exp(sinks[head]) joins the denominator
 *   lse[i] = log of that denominator
 *
 * A row that sees nothing gives zeros, and lse -inf (or the sink alone). What does not exist (past kv_lengths, padding)
 * never reaches a result, whatever its bytes are. Of a key that exists and is masked, k never reaches a result; its v
 * must be finite. NaN in what is visible reaches the rows that see it. Scores and sums are kept in f32 or better.
 *
 * kv_lengths: int32 [batch]; keys from there on do not exist, and diagonal() uses the length in place of seq_kv.
 * varlen: q, out [total_q, heads_q, .] and k, v [total_kv, heads_kv, .] are packed, with int32 offsets_q and offsets_kv
 *   [batch + 1]; seq_q and seq_kv bound one sequence; lse is [heads_q, total_q]; no mask; rows of out past the last
 *   offset are left untouched.
 * page_size > 0: k and v are [pages, page_size, heads_kv, .] with an int32 page_table [batch, max_pages] and kv_lengths;
 *   with varlen q is packed and there is no offsets_kv.
 * alibi_slopes, sinks and these index arrays are contiguous and live where the other tensors live. A cpu backend checks
 * index arrays (INVALID_ARGUMENT); a device backend clamps them, so that no value can make it read or write out of
 * bounds. */
enum { ATTNRT_MASK_NONE = 0, ATTNRT_MASK_BOOLEAN = 1, ATTNRT_MASK_ADDITIVE = 2 };
enum { ATTNRT_ALIGN_BOTTOM_RIGHT = 0, ATTNRT_ALIGN_TOP_LEFT = 1 };

typedef struct attnrt_problem {
  int32_t struct_size;
  int32_t device_type; /* where the tensors live */
  int32_t device_id;
  attnrt_dtype dtype;
  int64_t batch;
  int64_t heads_q;
  int64_t heads_kv;
  int64_t seq_q;
  int64_t seq_kv;
  int64_t head_dim;
  int64_t head_dim_v;
  float scale;  /* 0: 1 / sqrt(head_dim) */
  int32_t mask; /* ATTNRT_MASK_* */
  attnrt_dtype mask_dtype;
  int32_t causal;       /* 0 or 1, as all flags below */
  int32_t align;        /* ATTNRT_ALIGN_*: where the diagonal of causal, windows and alibi starts */
  float softcap;        /* 0: none */
  int64_t window_left;  /* -1: unbounded */
  int64_t window_right; /* -1: unbounded */
  int32_t alibi;
  int32_t sinks;
  int32_t kv_lengths;
  int32_t varlen;
  int32_t page_size; /* 0: not paged */
  int32_t lse;       /* 1: lse is wanted */
  int32_t
      alignment_bytes; /* every row of q, k, v and out starts at a multiple of this; the host checks it at run */
  int32_t deterministic; /* 1: the same inputs give the same bits */
} attnrt_problem;

/* One f32 problem with nothing on; the seven dimensions are yours to set. */
/* clang-format off */
#define ATTNRT_PROBLEM_INIT                                                                                      \
  {(int32_t)sizeof(attnrt_problem), ATTNRT_DEVICE_CPU, 0, {ATTNRT_DTYPE_FLOAT, 32, 1}, 1, 1, 1, 1, 1, 0, 0, 0.0F, \
   ATTNRT_MASK_NONE, {ATTNRT_DTYPE_BOOL, 8, 1}, 0, ATTNRT_ALIGN_BOTTOM_RIGHT, 0.0F, -1, -1, 0, 0, 0, 0, 0, 0, 16, 0}
/* clang-format on */

/* ---- The arguments: one run's pointers. A tensor that the problem does not use is absent (data NULL). ---- */
typedef struct attnrt_args {
  int32_t struct_size;
  int32_t reserved;
  attnrt_tensor q;
  attnrt_tensor k;
  attnrt_tensor v;
  attnrt_tensor out;
  attnrt_tensor mask;
  attnrt_tensor lse;
  attnrt_tensor alibi_slopes;
  attnrt_tensor sinks;
  attnrt_tensor kv_lengths;
  attnrt_tensor offsets_q;
  attnrt_tensor offsets_kv;
  attnrt_tensor page_table;
  void*
      workspace; /* at least what plan asked for, and aligned so; the host owns it. Not kept between runs. */
  int64_t workspace_bytes;
  void*
      stream; /* the device's stream (hipStream_t, cudaStream_t); NULL: the default stream; unused on cpu */
} attnrt_args;

/* The tensors of attnrt_args, in their order: ATTNRT_TENSORS(X) is X(q) X(k) ... Whoever treats them all alike (to copy,
 * check, name or translate them) goes through this list, so that a new tensor needs no change there. */
/* clang-format off */
#define ATTNRT_TENSORS(X) \
  X(q) X(k) X(v) X(out) X(mask) X(lse) X(alibi_slopes) X(sinks) X(kv_lengths) X(offsets_q) \
  X(offsets_kv) X(page_table)
/* clang-format on */

/* ---- What plugins tell the host. ---- */
typedef struct attnrt_device {
  int32_t struct_size;
  int32_t device_type;
  int32_t device_id;
  int32_t reserved;
  const char* arch;           /* "gfx1100", "sm_90"; "" for a cpu */
  const char* name;           /* for people */
  int64_t total_memory_bytes; /* 0: not known */
} attnrt_device;

typedef struct attnrt_plan_info {
  int32_t struct_size;
  int32_t reserved;
  int64_t workspace_bytes;     /* for every run of this plan, at its problem's bounds */
  int64_t workspace_alignment; /* a power of two; 0: 64 */
  const char* kernel;          /* what will run, for people and traces */
} attnrt_plan_info;

/* Frozen. From the policy: backends.<name>.options. */
typedef struct attnrt_option {
  const char* key;
  const char* value;
} attnrt_option;

/* The callee copies what it is given before it returns. */
typedef void (*attnrt_add_device)(void* sink, const attnrt_device* device);
typedef void (*attnrt_add_reason)(void* sink, const char* reason);

/* ---- What the host gives: alive from open until close returns. ---- */
enum {
  ATTNRT_LOG_DEBUG = 0,
  ATTNRT_LOG_INFO = 1,
  ATTNRT_LOG_WARNING = 2,
  ATTNRT_LOG_ERROR = 3,
  ATTNRT_LOG_OFF = 4
};

typedef void (*attnrt_parallel_body)(void* arg, int64_t index, int32_t worker);
/* Calls body(arg, index, worker) once for each index in [0, count) and returns when all have returned. Calls with one
 * worker number never overlap within one parallel_for, and worker < thread_count. The caller's thread takes part. */
typedef void (*attnrt_parallel_for)(void* self, int64_t count, attnrt_parallel_body body,
                                    void* arg);

typedef struct attnrt_host {
  int32_t struct_size;
  int32_t abi_minor;
  int32_t thread_count; /* at least 1 */
  int32_t reserved;
  void* self; /* the first argument of the calls below */
  void (*log)(void* self, int32_t severity, const char* text); /* from any thread */
  attnrt_parallel_for
      parallel_for; /* plugins own no threads; not from inside a body; from any other thread */
} attnrt_host;

/* ---- The plugin: one const table, in the order in which the host calls it. ----
 *
 * May be NULL: open and close (no instance: the calls get NULL), devices (the cpu), supports (the manifest decides), plan
 * and plan_destroy (no state: run gets a NULL plan and no workspace), get_extension.
 * THREADS: supports and plan may be called from any threads at once, run at once on different plans. A plan has one run in
 * flight, and the caller completes it before plan_destroy. open, devices and close are called once, one after another. */
typedef struct attnrt_plugin {
  int32_t struct_size;
  int32_t abi_minor;   /* ATTNRT_ABI_MINOR of the header that it was built with */
  const char* name;    /* [a-z][a-z0-9_]*, as in the manifest */
  const char* version; /* its own semantic version, as in the manifest */

  /* Makes the instance. An option that the plugin does not know is INVALID_ARGUMENT, naming it. No device is needed yet:
   * where none is, open still succeeds, and devices adds none. */
  attnrt_status (*open)(const attnrt_host* host, const attnrt_option* options, int32_t count,
                        void** instance, attnrt_error* error);

  /* Adds every device that it can use now. None is legal; an error's text says why there is none. */
  attnrt_status (*devices)(void* instance, attnrt_add_device add, void* sink, attnrt_error* error);

  /* OK or UNSUPPORTED with every reason added; only what the manifest cannot say. No device work, no clock: the same
   * problem gets the same answer. If manifest and supports say yes, plan and run succeed (memory apart). */
  attnrt_status (*supports)(void* instance, const attnrt_problem* problem, attnrt_add_reason add,
                            void* sink);

  /* Prepares; may allocate. OWNERSHIP: the host destroys *plan with plan_destroy, and owns the workspace. */
  attnrt_status (*plan)(void* instance, const attnrt_problem* problem, attnrt_plan_info* info,
                        void** plan, attnrt_error* error);

  /* Computes, or for a device enqueues on args->stream. The host has checked shapes, dtypes, strides and alignment
   * against the problem, and that neither out nor lse overlaps another tensor. It allocates nothing; for device tensors it never synchronises, can be captured into a graph,
   * and leaves the thread's current device as it was. Output is undefined until it succeeds, and inputs are const, so
   * that a failed run can be repeated elsewhere. */
  attnrt_status (*run)(void* instance, void* plan, const attnrt_problem* problem,
                       const attnrt_args* args, attnrt_error* error);

  void (*plan_destroy)(void* instance, void* plan);
  void (*close)(void* instance); /* after all its plans are destroyed */

  /* An extension's struct for its id, or NULL. Ids are attnrt.NAME/REV; third parties: reverse.domain.NAME/REV. */
  const void* (*get_extension)(void* instance, const char* id);
} attnrt_plugin;

/* A plugin ends with: ATTNRT_PLUGIN_EXPORT const attnrt_plugin attnrt_plugin_v1 = {...}; */
#define ATTNRT_PLUGIN_SYMBOL "attnrt_plugin_v1"
#if defined(__GNUC__)
#define ATTNRT_VISIBLE __attribute__((visibility("default")))
#else
#define ATTNRT_VISIBLE
#endif
#ifdef __cplusplus
#define ATTNRT_PLUGIN_EXPORT extern "C" ATTNRT_VISIBLE
#else
#define ATTNRT_PLUGIN_EXPORT ATTNRT_VISIBLE
#endif

/* ---- Extension attnrt.memory/1: every backend of a device other than cpu must offer it. ----
 * The host allocates workspaces and staging buffers with it. Any call may come from any thread. */
#define ATTNRT_MEMORY "attnrt.memory/1"

enum { ATTNRT_COPY_TO_DEVICE = 0, ATTNRT_COPY_TO_HOST = 1, ATTNRT_COPY_ON_DEVICE = 2 };

typedef struct attnrt_memory {
  int32_t struct_size;
  int32_t reserved;
  attnrt_status (*allocate)(void* instance, int32_t device_id, int64_t bytes, void** pointer,
                            attnrt_error* error);
  /* Returns only when no work enqueued before can touch the memory any more (as hipFree and cudaFree do). NULL: nothing.
   * free_pinned likewise. */
  void (*free)(void* instance, int32_t device_id, void* pointer);
  attnrt_status (*allocate_pinned)(void* instance, int32_t device_id, int64_t bytes, void** pointer,
                                   attnrt_error* error);
  void (*free_pinned)(void* instance, int32_t device_id, void* pointer);
  /* Enqueues on stream; host memory is pinned. direction: ATTNRT_COPY_*. */
  attnrt_status (*copy)(void* instance, int32_t device_id, void* to, const void* from,
                        int64_t bytes, int32_t direction, void* stream, attnrt_error* error);
  attnrt_status (*stream_create)(void* instance, int32_t device_id, void** stream,
                                 attnrt_error* error);
  void (*stream_destroy)(void* instance, int32_t device_id, void* stream);
  attnrt_status (*stream_synchronize)(void* instance, int32_t device_id, void* stream,
                                      attnrt_error* error);
  /* *capturing = 1 while a graph is being captured on stream. */
  attnrt_status (*is_capturing)(void* instance, int32_t device_id, void* stream, int32_t* capturing,
                                attnrt_error* error);
} attnrt_memory;

/* ---- Extension attnrt.timing/1: what work costs on the device; a backend of a device other than cpu may offer it. ----
 * A timestamp is the device's clock when a stream has passed a place: record one, run, record another, and the two tell
 * how long the run took without the host's share. (On the cpu a run is over when it returns, and the host's clock tells.)
 * Any call may come from any thread; a timestamp is used by one at a time. */
#define ATTNRT_TIMING "attnrt.timing/1"

typedef struct attnrt_timing {
  int32_t struct_size;
  int32_t reserved;
  attnrt_status (*timestamp_create)(void* instance, int32_t device_id, void** timestamp,
                                    attnrt_error* error);
  void (*timestamp_destroy)(void* instance, int32_t device_id, void* timestamp);
  /* Enqueues on stream, which is of the same device; never waits. Recorded again, it forgets what it was. */
  attnrt_status (*record)(void* instance, int32_t device_id, void* timestamp, void* stream,
                          attnrt_error* error);
  /* Waits until `to` has been passed. REQUIRES: both are recorded, `from` before `to`, on one stream. */
  attnrt_status (*elapsed)(void* instance, int32_t device_id, void* from, void* to, double* seconds,
                           attnrt_error* error);
} attnrt_timing;

#ifdef __cplusplus
}
#endif

#endif /* ATTNRT_PLUGIN_H */
