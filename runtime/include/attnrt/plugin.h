/* attnrt/plugin.h: the plugin ABI, version 1: how the runtime calls an attention backend
 *
 * C11 and C++20.
 *
 * A plugin is a shared library that exports exactly one symbol, and that symbol is data: a const
 * attnrt_plugin named attnrt_plugin_v1. The runtime reads the plugin's manifest (ELF section
 * .attnrt_manifest) without running any of its code. It loads the plugin only when a problem asks
 * for the plugin's kind of device.
 *
 * Three rules hold everywhere:
 *  1. SIZES. A struct whose first field is struct_size grows only at its end. The side that fills
 *     it sets struct_size to the bytes that it knows. The side that reads it touches a field only
 *     if ATTNRT_HAS(pointer, type, field). Structs without struct_size (attnrt_dtype,
 *     attnrt_tensor, attnrt_option) are frozen. No struct has implicit padding. Fields named
 *     reserved are zero.
 *  2. ERRORS. A call that can fail returns an attnrt_status and fills the caller's attnrt_error;
 *     attnrt_fail does both. No exception, signal or exit crosses the boundary. A plugin writes
 *     nothing to stdout or stderr: it has host->log.
 *  3. STRINGS are UTF-8, end with NUL, and are never NULL unless the field says so. Strings that a
 *     plugin gives live as long as its library. Strings that the host gives live as long as the
 *     call.
 *
 * VERSIONS. The major version is in the symbol's name. A minor version appends fields, values and
 * extensions. An appended field means "off" when it is zero. If a plugin is too old to know a
 * field, the host refuses it for problems in which that field is not zero; likewise for a value.
 */
#ifndef ATTNRT_PLUGIN_H
#define ATTNRT_PLUGIN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ATTNRT_ABI_MAJOR 1
#define ATTNRT_ABI_MINOR 0

/* True if the struct that p points to is long enough to hold the whole field (rule 1). */
#define ATTNRT_HAS(p, type, field) \
  ((p)->struct_size >= (int32_t)(offsetof(type, field) + sizeof(((type*)NULL)->field)))

/* ---- Statuses: the host acts on them, so return the one that is true. ---- */
enum {
  ATTNRT_OK = 0,
  /* This backend cannot do this problem, but another may: the host tries the next candidate. */
  ATTNRT_UNSUPPORTED = 1,
  /* Memory ran out, but another backend may need less: the host tries the next candidate. */
  ATTNRT_OUT_OF_MEMORY = 2,
  /* The caller's fault: the host tries nothing else. */
  ATTNRT_INVALID_ARGUMENT = 3,
  /* The backend's fault: the host logs the failure and tries the next candidate. */
  ATTNRT_INTERNAL = 4,
  /* The device no longer works: the host tries nothing else. */
  ATTNRT_DEVICE_LOST = 5,
  /* No plugin has the name that was asked for. Only the host returns it. */
  ATTNRT_NOT_FOUND = 6
};
typedef int32_t attnrt_status;

/* Why a call failed. OWNERSHIP: the caller owns it and sets struct_size. A caller that does not
 * want the text passes NULL. */
typedef struct attnrt_error {
  int32_t struct_size;
  attnrt_status code; /* the status that the call returned */
  char message[256];  /* one line, NUL included: what was found, what was expected */
} attnrt_error;

/* clang-format off */
#define ATTNRT_ERROR_INIT {(int32_t)sizeof(attnrt_error), ATTNRT_OK, {0}}
/* clang-format on */

/* Fills error, if there is one, and returns code:
 *     return attnrt_fail(error, ATTNRT_UNSUPPORTED, "head_dim %d is above 256", n);
 * format is printf's. A message that is too long is cut between two characters, and ends with
 * "...". */
#if defined(__GNUC__)
static inline attnrt_status attnrt_fail(attnrt_error* error, attnrt_status code, const char* format,
                                        ...) __attribute__((format(printf, 3, 4)));
#endif
static inline attnrt_status attnrt_fail(attnrt_error* error, attnrt_status code, const char* format,
                                        ...) {
  if (error != NULL && ATTNRT_HAS(error, attnrt_error, message)) {
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(error->message, sizeof error->message, format, arguments) >=
        (int)sizeof error->message) {
      size_t end = sizeof error->message - sizeof "...";
      while (end > 0 && ((unsigned char)error->message[end] & 0xC0U) == 0x80U) --end;
      memcpy(error->message + end, "...", sizeof "...");
    }
    va_end(arguments);
    error->code = code;
  }
  return code;
}

/* ---- Devices, element types and tensors. All numbers are DLPack's. ---- */
enum { ATTNRT_DEVICE_CPU = 1, ATTNRT_DEVICE_CUDA = 2, ATTNRT_DEVICE_ROCM = 10 };

enum {
  ATTNRT_DTYPE_INT = 0,
  ATTNRT_DTYPE_UINT = 1,
  ATTNRT_DTYPE_FLOAT = 2,
  ATTNRT_DTYPE_BFLOAT = 4,
  ATTNRT_DTYPE_BOOL = 6,
  /* 1 sign, 4 exponent and 3 mantissa bits; no infinity. E4M3FN: bias 7; 0x7f and 0xff are NaN.
   * E4M3FNUZ: bias 8; 0x80 is NaN, and there is no -0. */
  ATTNRT_DTYPE_FLOAT8_E4M3FN = 10,
  ATTNRT_DTYPE_FLOAT8_E4M3FNUZ = 11
};

/* An element type: f32 is {FLOAT, 32, 1}, f16 {FLOAT, 16, 1}, bf16 {BFLOAT, 16, 1}, i8 {INT, 8, 1},
 * int32 {INT, 32, 1}, f8_e4m3fn {FLOAT8_E4M3FN, 8, 1}, f8_e4m3fnuz {FLOAT8_E4M3FNUZ, 8, 1}, and a
 * boolean mask is {BOOL, 8, 1}. */
typedef struct attnrt_dtype {
  uint8_t code;   /* ATTNRT_DTYPE_* */
  uint8_t bits;   /* of one element */
  uint16_t lanes; /* always 1 */
} attnrt_dtype;

/* A view of memory. OWNERSHIP: the application's; inputs are never written to. */
typedef struct attnrt_tensor {
  void* data;         /* the memory; NULL: the tensor is absent */
  attnrt_dtype dtype; /* of its elements */
  int32_t ndim;       /* number of dimensions, 1 to 4 */
  int64_t shape[4];   /* elements in each of the ndim dimensions; the rest of the array is unused */
  int64_t stride[4];  /* elements from one index to the next; 0 broadcasts, never negative */
  /* From data to the first element, at least 0. The host adds it to data, so plugins find 0. */
  int64_t byte_offset;
  int32_t reserved[2]; /* zero */
} attnrt_tensor;

/* ---- The problem: what is to be computed. ----
 *
 * TENSORS are logical [batch, seq, heads, head_dim]. The stride of head_dim is 1; all other strides
 * are free. q, k, v and out have the problem's dtype, unless kv_dtype and out_dtype say otherwise.
 * out and lse do not overlap themselves: if their dimensions are sorted by stride, each stride is
 * at least the number of elements from the first to the last that the dimensions before it reach.
 * (This rule is stricter than needed: it also refuses some tensors whose elements share nothing.)
 *   q    [batch, seq_q, heads_q, head_dim]
 *   k    [batch, seq_kv, heads_kv, head_dim]
 *   v    [batch, seq_kv, heads_kv, head_dim_v]
 *   out  [batch, seq_q, heads_q, head_dim_v]
 *   mask [batch, heads_q, seq_q, seq_kv], stride 0 in a broadcast dimension. It is boolean (one
 *        byte each, nonzero means visible) or additive (in dtype or f32)
 *   lse  [batch, heads_q, seq_q] f32;  sinks [heads_q] f32
 *   alibi_slopes  [batch, heads_q] f32; the application may give [heads_q]
 *   diagonal_offset  int32 [batch]
 *   k_scale, v_scale  f32, the shape of k and v without head_dim; see KV TYPES
 * heads_q is a multiple of heads_kv. Query head h reads key head h / (heads_q / heads_kv).
 *
 * BOUNDS. batch, seq_q and seq_kv are upper bounds, at least 1. A plan serves every run whose
 * tensors are within them and agree in everything else. Sizes of 0 are within them: a run without
 * batch or queries has nothing to do, and in a run without keys every row sees nothing. Results
 * depend on the sizes of the run's tensors, not on the bounds.
 *
 * FORMULA, for query i and key j of one batch entry and head:
 *   s(i, j) = scale * dot(q[i], k[j]);  if softcap: s = softcap * tanh(s / softcap);
 *   s += additive mask;  if alibi: s -= alibi_slopes[head] * |diagonal(i) - j|
 *   j is visible to i if all of these hold:
 *     j exists; the boolean mask is true there (the additive mask is not -inf);
 *     if causal: j <= diagonal(i);
 *     diagonal(i) - window_left <= j <= diagonal(i) + window_right, without a side that is -1
 *   diagonal(i) = i (top_left) or i + seq_kv - seq_q (bottom_right), with that sequence's lengths,
 *     plus diagonal_offset[batch], which may be negative
 *   out[i] = sum over visible j of softmax(s)(i, j) * v[j]; with sinks, exp(sinks[head]) is added
 *     to the softmax's denominator
 *   lse[i] = log of that denominator
 *
 * EDGE CASES. A row that sees nothing gives zeros, and its lse is -inf (or the sink alone). A key
 * whose score is -inf counts as one that is not visible; so a row whose scores all are gives zeros.
 * dot(q[i], k[j]), and a score with an additive mask or alibi, is infinite if it is beyond f32. A
 * NaN sink reaches out and lse of every row of its head, also where a row sees nothing. A key
 * that does not exist (past kv_lengths, padding) never reaches a result, whatever its bytes are. If
 * a key exists but is masked, its k never reaches a result, but its v must be finite. A NaN in a
 * visible key or value reaches the rows that see it. Scores and sums are kept in f32 or better.
 *
 * KV TYPES. kv_dtype is the element type of k and v where it is not dtype: f8_e4m3fn, f8_e4m3fnuz
 * or i8. The stored numbers are multiplied by f32 scales: k = k_scale * stored k, v = v_scale *
 * stored v. kv_scale says what has a scale of its own, and so which shape the application gives:
 *   none    nothing: the tensors are absent, and the scales are 1
 *   tensor  all of k, and all of v: [1]
 *   head    each key head: [heads_kv]
 *   token   each row: the shape of k (or v) without head_dim; a paged cache has pages of them
 * BROADCAST. Where an application's mask, alibi_slopes or scales lack dimensions, the host adds
 * them with stride 0. Plugins find all dimensions.
 * V IN K. With v_in_k, v is the first head_dim_v columns of k (multi-head latent attention), scaled
 * as k is. The tensors v and v_scale are absent.
 * OUT TYPE. out_dtype is the element type of out where it is not dtype: f32, for partial results
 * that are merged by their lse.
 *
 * REPEATABILITY. deterministic: the same call twice gives the same bits. batch_invariant, which
 * implies it: with one build, device and thread count, the bits of a sequence depend on its own
 * queries, keys, lengths and flags; not on other sequences, its index in the batch or the bounds.
 * (Splitting one sequence's queries over several calls may change them.)
 *
 * LAYOUTS:
 *   kv_lengths     int32 [batch]. Keys at or past a sequence's length do not exist, and diagonal()
 *                  uses the length in place of seq_kv.
 *   varlen         q and out [total_q, heads_q, .], k and v [total_kv, heads_kv, .] are packed,
 *                  with int32 offsets_q and offsets_kv [batch + 1]. seq_q and seq_kv bound one
 *                  sequence. lse is [heads_q, total_q]. There is no mask. Rows of out past the last
 *                  offset are left untouched.
 *   page_size > 0  k and v are [pages, page_size, heads_kv, .], with an int32 page_table [batch,
 *                  max_pages] and kv_lengths. With varlen, q is packed and there is no offsets_kv.
 *                  Entries past a sequence's last page are not used, and may be any number.
 * Rows of page_table and of alibi_slopes may have any stride. sinks, diagonal_offset, kv_lengths
 * and the offsets are contiguous. All live where the other tensors live. A cpu backend checks index
 * arrays (INVALID_ARGUMENT). A device backend clamps them, so that no value can make it read or
 * write out of bounds. */
enum { ATTNRT_MASK_NONE = 0, ATTNRT_MASK_BOOLEAN = 1, ATTNRT_MASK_ADDITIVE = 2 };
enum { ATTNRT_ALIGN_BOTTOM_RIGHT = 0, ATTNRT_ALIGN_TOP_LEFT = 1 };
enum {
  ATTNRT_KV_SCALE_NONE = 0,
  ATTNRT_KV_SCALE_TENSOR = 1,
  ATTNRT_KV_SCALE_HEAD = 2,
  ATTNRT_KV_SCALE_TOKEN = 3
};

typedef struct attnrt_problem {
  int32_t struct_size;
  int32_t device_type;     /* ATTNRT_DEVICE_*: where the tensors live */
  int32_t device_id;       /* which device of that type; 0 on the cpu */
  attnrt_dtype dtype;      /* of q, k, v and out: f32, f16 or bf16 */
  int64_t batch;           /* sequences; an upper bound */
  int64_t heads_q;         /* query heads */
  int64_t heads_kv;        /* key and value heads; divides heads_q */
  int64_t seq_q;           /* queries of a sequence; an upper bound */
  int64_t seq_kv;          /* keys of a sequence; an upper bound */
  int64_t head_dim;        /* elements of a row of q and k */
  int64_t head_dim_v;      /* elements of a row of v and out; 0: head_dim (the host fills it in) */
  float scale;             /* multiplies the scores; 0: 1 / sqrt(head_dim) */
  int32_t mask;            /* ATTNRT_MASK_* */
  attnrt_dtype mask_dtype; /* of the mask tensor; without a mask it means nothing */
  int32_t causal;          /* 1: a query sees keys up to its diagonal. All flags are 0 or 1 */
  int32_t align;           /* ATTNRT_ALIGN_*: the diagonal of causal, windows and alibi */
  float softcap;           /* bound of the scores; 0: none */
  int64_t window_left;     /* keys before the diagonal that are visible; -1: unbounded */
  int64_t window_right;    /* keys after the diagonal that are visible; -1: unbounded */
  int32_t alibi;           /* 1: alibi_slopes is given */
  int32_t sinks;           /* 1: sinks is given */
  int32_t kv_lengths;      /* 1: kv_lengths is given */
  int32_t varlen;          /* 1: sequences are packed, and offsets are given */
  int32_t page_size;       /* keys of a page; 0: not paged */
  int32_t lse;             /* 1: lse is wanted */
  int32_t alignment_bytes; /* rows of q, k, v, out start at multiples of it (the host checks) */
  int32_t deterministic;   /* 1: the same inputs give the same bits */
  attnrt_dtype kv_dtype;   /* of k and v, see KV TYPES; {0, 0, 0}: dtype */
  int32_t kv_scale;        /* ATTNRT_KV_SCALE_*; other than none only with kv_dtype */
  int32_t v_in_k;          /* 1: v is the first head_dim_v columns of k */
  attnrt_dtype out_dtype;  /* of out; {0, 0, 0}: dtype (the host turns dtype itself into it) */
  int32_t diagonal_offset; /* 1: diagonal_offset is given */
  int32_t batch_invariant; /* 1: a sequence's bits do not depend on the rest of the batch */
} attnrt_problem;

/* An f32 problem on the cpu with everything off. Set the seven dimensions yourself. */
/* clang-format off */
#define ATTNRT_PROBLEM_INIT                                                                 \
  {(int32_t)sizeof(attnrt_problem), ATTNRT_DEVICE_CPU, 0, {ATTNRT_DTYPE_FLOAT, 32, 1},      \
   1, 1, 1, 1, 1, 0, 0, 0.0F, ATTNRT_MASK_NONE, {ATTNRT_DTYPE_BOOL, 8, 1},                  \
   0, ATTNRT_ALIGN_BOTTOM_RIGHT, 0.0F, -1, -1, 0, 0, 0, 0, 0, 0, 16, 0,                     \
   {0, 0, 0}, ATTNRT_KV_SCALE_NONE, 0, {0, 0, 0}, 0, 0}
/* clang-format on */

/* ---- The arguments: one run's tensors. ----
 * Their shapes and meanings are given above, with the problem. A tensor that the problem does not
 * use is absent (data NULL). */
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
  attnrt_tensor k_scale;
  attnrt_tensor v_scale;
  attnrt_tensor diagonal_offset;
  /* Scratch memory on the device, as large and as aligned as plan asked for. OWNERSHIP: the host's;
   * its contents are not kept between runs. */
  void* workspace;
  int64_t workspace_bytes;
  /* The device's stream (hipStream_t, cudaStream_t); NULL: the default stream. Unused on a cpu. */
  void* stream;
  /* What attnrt.schedule/1 built for tensors like these, in device memory; NULL: run builds its own
   * in its workspace. The host sets both: applications leave them at zero. OWNERSHIP: the host's.
   */
  void* schedule;
  int64_t schedule_bytes;
} attnrt_args;

/* The tensors of attnrt_args in their order: ATTNRT_TENSORS(X) is X(q) X(k) and so on. Code that
 * treats all tensors alike (to copy, check, name or translate them) goes through this list, so that
 * a new tensor needs no change there. */
/* clang-format off */
#define ATTNRT_TENSORS(X) \
  X(q) X(k) X(v) X(out) X(mask) X(lse) X(alibi_slopes) X(sinks) X(kv_lengths) X(offsets_q) \
  X(offsets_kv) X(page_table) X(k_scale) X(v_scale) X(diagonal_offset)
/* clang-format on */

/* ---- What plugins tell the host. ---- */

/* One device that a backend can use. */
typedef struct attnrt_device {
  int32_t struct_size;
  int32_t device_type; /* ATTNRT_DEVICE_* */
  int32_t device_id;   /* which device of that type */
  int32_t reserved;
  const char* arch;           /* "gfx1100", "sm_90"; "" for a cpu */
  const char* name;           /* for people */
  int64_t total_memory_bytes; /* 0: not known */
} attnrt_device;

/* What plan says about the work that it prepared. */
typedef struct attnrt_plan_info {
  int32_t struct_size;
  /* 1: run may be captured into a graph. 0: on a stream that is being captured the host answers
   * UNSUPPORTED before anything is enqueued. Unused on a cpu. */
  int32_t capturable;
  int64_t workspace_bytes;     /* enough for every run of this plan, at its problem's bounds */
  int64_t workspace_alignment; /* bytes, a power of two; 0: 64 */
  int64_t held_bytes;          /* of host or device memory that the plan itself holds */
  const char* kernel;          /* what will run, for people and traces */
} attnrt_plan_info;

/* One option of the policy (backends.NAME.options). Frozen. */
typedef struct attnrt_option {
  const char* key;
  const char* value;
} attnrt_option;

/* Callbacks through which a plugin answers. The host copies what it is given before it returns. It
 * keeps the first 64 devices and the first 16 reasons of a call, the first 256 bytes of each text
 * (a name, version, arch, reason or kernel), and 4096 bytes of a line of the log. No callback
 * throws. */
typedef void (*attnrt_add_device)(void* sink, const attnrt_device* device);
typedef void (*attnrt_add_reason)(void* sink, const char* reason);

/* ---- What the host gives to a plugin: it lives from open until close returns. ---- */
enum {
  ATTNRT_LOG_DEBUG = 0,
  ATTNRT_LOG_INFO = 1,
  ATTNRT_LOG_WARNING = 2,
  ATTNRT_LOG_ERROR = 3,
  ATTNRT_LOG_OFF = 4
};

/* One piece of parallel work. worker: the number of the thread that does it, from 0. */
typedef void (*attnrt_parallel_body)(void* arg, int64_t index, int32_t worker);

/* Calls body(arg, index, worker) once for each index in [0, count), and returns when all calls have
 * returned. worker is below thread_count. Within one parallel_for, two calls with the same worker
 * number never overlap. The calling thread takes part. */
typedef void (*attnrt_parallel_for)(void* self, int64_t count, attnrt_parallel_body body,
                                    void* arg);

typedef struct attnrt_host {
  int32_t struct_size;
  int32_t abi_minor;    /* the minor version that the host knows */
  int32_t thread_count; /* threads of parallel_for, at least 1 */
  int32_t reserved;
  void* self; /* the first argument of the calls below */

  /* Writes one line to the host's log. severity: ATTNRT_LOG_*. THREADS: from any thread. */
  void (*log)(void* self, int32_t severity, const char* text);

  /* Runs work on the host's threads; plugins start none of their own. THREADS: from any thread, but
   * not from inside a body. */
  attnrt_parallel_for parallel_for;
} attnrt_host;

/* ---- The plugin: one const table, its functions in the order in which the host calls them. ----
 *
 * These may be NULL: open and close (there is no instance, and calls get NULL), devices (the
 * backend is for the cpu), supports (the manifest decides), plan and plan_destroy (there is no
 * state: run gets a NULL plan and no workspace, and on a device it cannot be captured),
 * get_extension.
 * INSTANCES. The host may open several, one after another or at once: to look again for devices
 * that were missing or lost, it opens another one and asks that for its devices.
 * FLOATING POINT. Every call, and every thread's part of a parallel_for, begins with the default
 * rounding mode, denormals and traps, and the host restores the thread's own afterwards.
 * FORK. In a child made by fork, an instance that has a device besides the cpu is not called any
 * more. A lock that another thread held at the fork stays locked in the child. So a cpu plugin
 * takes no lock in its calls, or makes it free again in the child (pthread_atfork).
 * THREADS: for each instance, open, devices and close are called once, in this order. Calls for
 * different instances may run at once. supports and plan may be called from any threads at once,
 * and so may run for different plans. A plan has one run in flight, and the caller completes it
 * before plan_destroy.
 * CAPTURE: plan and plan_destroy may be called while a stream of the same device is being captured
 * into a graph, by this thread or another one, and must not invalidate that capture. (CUDA and HIP:
 * exchange the thread's capture mode for the relaxed one around calls that a capture forbids.) */
typedef struct attnrt_plugin {
  int32_t struct_size;
  int32_t abi_minor;   /* ATTNRT_ABI_MINOR of the header that it was built with */
  const char* name;    /* [a-z][a-z0-9_]*, as in the manifest */
  const char* version; /* its own semantic version, as in the manifest */

  /* Makes the instance, which the other calls get. options: an array of count options. No device is
   * needed yet: if there is none, open still succeeds, and devices adds none. ERRORS:
   * INVALID_ARGUMENT that names an option which the plugin does not know. OWNERSHIP: close destroys
   * the instance. */
  attnrt_status (*open)(const attnrt_host* host, const attnrt_option* options, int32_t count,
                        void** instance, attnrt_error* error);

  /* Adds each device that can be used now. error may hold a note on them, or why there is none. */
  attnrt_status (*devices)(void* instance, attnrt_add_device add, void* sink, attnrt_error* error);

  /* Decides only what the manifest cannot say, without device work or a clock: the same problem
   * gets the same answer. If manifest and supports say yes, plan and run succeed unless memory runs
   * out.
   * RETURNS OK, UNSUPPORTED with each reason added, or OUT_OF_MEMORY: the application's call fails
   * with it, and the next call asks again. */
  attnrt_status (*supports)(void* instance, const attnrt_problem* problem, attnrt_add_reason add,
                            void* sink);

  /* Prepares the work for a problem; may allocate. OWNERSHIP: plan_destroy destroys *plan. The
   * workspace that info asks for is the host's. */
  attnrt_status (*plan)(void* instance, const attnrt_problem* problem, attnrt_plan_info* info,
                        void** plan, attnrt_error* error);

  /* Computes; for a device, enqueues on args->stream and returns.
   * The host has checked shapes, dtypes, strides and alignment against the problem, and that
   * neither out nor lse overlaps another tensor or itself. run allocates nothing. For device
   * tensors it never synchronises, can be captured into a graph if the plan is capturable, and
   * leaves the thread's current device as it was.
   * Inputs are const, and output is undefined until run succeeds; so a failed run can be repeated
   * elsewhere. */
  attnrt_status (*run)(void* instance, void* plan, const attnrt_problem* problem,
                       const attnrt_args* args, attnrt_error* error);

  /* Destroys a plan after its last run has completed. */
  void (*plan_destroy)(void* instance, void* plan);

  /* Destroys the instance after all its plans are destroyed. */
  void (*close)(void* instance);

  /* Returns an extension's struct for its id, or NULL. It lives as long as the library. Ids are
   * attnrt.NAME/REV; those of third parties are reverse.domain.NAME/REV. */
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

/* ---- Extension attnrt.memory/1: memory, streams, copies and events of a device. ----
 * A backend of a device other than the cpu must offer it. The host allocates workspaces and staging
 * buffers with it.
 * THREADS: any call may come from any thread; an event is used by one thread at a time.
 * CAPTURE: while a stream of the device is being captured into a graph, the host calls only
 * is_capturing for that stream. It may make every other call but copy, event_record and
 * stream_wait_event with other streams. None may invalidate the capture (see attnrt_plugin). */
#define ATTNRT_MEMORY "attnrt.memory/1"

enum { ATTNRT_COPY_TO_DEVICE = 0, ATTNRT_COPY_TO_HOST = 1, ATTNRT_COPY_ON_DEVICE = 2 };

typedef struct attnrt_memory {
  int32_t struct_size;
  int32_t reserved;

  /* Allocates device memory in the order of stream (NULL: the default stream): work that is
   * enqueued on stream afterwards may use it, and so may any work that waits for stream.
   * OWNERSHIP: free frees it. */
  attnrt_status (*allocate)(void* instance, int32_t device_id, int64_t bytes, void* stream,
                            void** pointer, attnrt_error* error);

  /* Frees device memory in the order of stream, which may be another one than allocate got: work
   * that was enqueued on stream before may still use it. REQUIRES: all work on other streams that
   * uses it has completed. (A device without stream-ordered memory waits for all of its work.)
   * pointer NULL: does nothing. */
  void (*free)(void* instance, int32_t device_id, void* pointer, void* stream);

  /* Allocates host memory that the device can copy from and to. OWNERSHIP: free_pinned frees it. */
  attnrt_status (*allocate_pinned)(void* instance, int32_t device_id, int64_t bytes, void** pointer,
                                   attnrt_error* error);

  /* Frees pinned memory. Returns only when no work that was enqueued before can touch it any more,
   * as hipHostFree and cudaFreeHost do. pointer NULL: does nothing. */
  void (*free_pinned)(void* instance, int32_t device_id, void* pointer);

  /* Enqueues a copy on stream. direction: ATTNRT_COPY_*. REQUIRES: host memory is pinned. */
  attnrt_status (*copy)(void* instance, int32_t device_id, void* to, const void* from,
                        int64_t bytes, int32_t direction, void* stream, attnrt_error* error);

  /* Creates a stream. OWNERSHIP: stream_destroy destroys it. */
  attnrt_status (*stream_create)(void* instance, int32_t device_id, void** stream,
                                 attnrt_error* error);
  void (*stream_destroy)(void* instance, int32_t device_id, void* stream);

  /* Waits until all work on stream has completed. */
  attnrt_status (*stream_synchronize)(void* instance, int32_t device_id, void* stream,
                                      attnrt_error* error);

  /* Sets *capturing to 1 while a graph is being captured on stream, else to 0; and *capture_id to
   * that capture's id, which no other capture of the process has, else to 0. */
  attnrt_status (*is_capturing)(void* instance, int32_t device_id, void* stream, int32_t* capturing,
                                uint64_t* capture_id, attnrt_error* error);

  /* Creates an event: a point of a stream that others can ask about and wait for. One that is not
   * recorded yet counts as passed. OWNERSHIP: event_destroy destroys it, recorded or not. */
  attnrt_status (*event_create)(void* instance, int32_t device_id, void** event,
                                attnrt_error* error);

  /* Enqueues the event on a stream of the same device; never waits. Recording it again replaces the
   * point that it stood for. */
  attnrt_status (*event_record)(void* instance, int32_t device_id, void* event, void* stream,
                                attnrt_error* error);

  /* Sets *passed to 1 if the device has passed the event, else to 0; never waits. */
  attnrt_status (*event_query)(void* instance, int32_t device_id, void* event, int32_t* passed,
                               attnrt_error* error);

  /* Waits until the device has passed the event. */
  attnrt_status (*event_synchronize)(void* instance, int32_t device_id, void* event,
                                     attnrt_error* error);
  void (*event_destroy)(void* instance, int32_t device_id, void* event);

  /* Makes all work that is enqueued on stream from now on wait for the event; does not wait itself.
   */
  attnrt_status (*stream_wait_event)(void* instance, int32_t device_id, void* stream, void* event,
                                     attnrt_error* error);
} attnrt_memory;

/* ---- Extension attnrt.timing/1: how long work takes on the device. ----
 * A backend of a device other than the cpu may offer it. A timestamp holds the device's clock at a
 * point of a stream. Record one, run, record another: the two tell how long the run took on the
 * device, without the time spent on the host. (On the cpu a run has completed when it returns, so
 * the host's clock is enough.)
 * THREADS: any call may come from any thread; a timestamp is used by one thread at a time. */
#define ATTNRT_TIMING "attnrt.timing/1"

typedef struct attnrt_timing {
  int32_t struct_size;
  int32_t reserved;

  /* Creates a timestamp. OWNERSHIP: timestamp_destroy destroys it. */
  attnrt_status (*timestamp_create)(void* instance, int32_t device_id, void** timestamp,
                                    attnrt_error* error);
  void (*timestamp_destroy)(void* instance, int32_t device_id, void* timestamp);

  /* Enqueues the timestamp on a stream of the same device; never waits. Recording it again replaces
   * what it held. */
  attnrt_status (*record)(void* instance, int32_t device_id, void* timestamp, void* stream,
                          attnrt_error* error);

  /* Waits until the stream has passed `to`, and gives the seconds between the two timestamps.
   * REQUIRES: both are recorded on one stream, `from` before `to`. */
  attnrt_status (*elapsed)(void* instance, int32_t device_id, void* from, void* to, double* seconds,
                           attnrt_error* error);
} attnrt_timing;

/* ---- Extension attnrt.merge/1: results over parts of the keys become one result. ----
 * Where several runs each see a part of a problem's keys and give lse, the result over all keys is
 *   lse = log(sum over i of exp(lse_i))      out = sum over i of exp(lse_i - lse) out_i
 * for each row, which is one query of one head. The runs' outs are f32 (out_dtype), so that nothing
 * is rounded twice. A partial whose lse_i is -inf saw nothing: its row of out_i does not count,
 * whatever it holds. A row where that holds for all gives zeros and lse -inf, never NaN. NaN or
 * +inf in an lse_i gives NaN in its row.
 * (Sinks belong to one of the runs only, since each sink that a run has counts once.)
 * A backend of any device may offer it. */
#define ATTNRT_MERGE "attnrt.merge/1"

typedef struct attnrt_merging {
  int32_t struct_size;
  int32_t reserved;

  /* Merges count partials, at least 1, given as two arrays of count tensors. For a device: enqueues
   * on stream and returns, allocates nothing and never synchronises. But a device's first merge may
   * load code, by calls that a capture allows. A cpu backend may allocate.
   * outs: f32, all of out's shape: [batch, seq_q, heads_q, head_dim_v], or packed
   *   [total_q, heads_q, head_dim_v]. lses: f32 [batch, heads_q, seq_q], or [heads_q, total_q].
   * out: f32, f16 or bf16. lse: as the lses, or absent (data NULL).
   * Strides are any, but 1 in head_dim_v. out may be one of outs, and lse one of lses, with the
   * same data and strides. They need not belong to the same partial, so a kernel reads all of a row
   * before it writes it. Nothing else overlaps. The host has checked all that.
   * ERRORS: UNSUPPORTED if the backend does not take so many partials at once, or so many different
   * strides. Any backend takes 130 partials of the same strides. */
  attnrt_status (*merge)(void* instance, int32_t device_id, const attnrt_tensor* outs,
                         const attnrt_tensor* lses, int32_t count, const attnrt_tensor* out,
                         const attnrt_tensor* lse, void* stream, attnrt_error* error);
} attnrt_merging;

/* ---- Extension attnrt.schedule/1: the division of a run's work, built once for many runs. ----
 * Sequences have lengths of their own, which are known on the device alone. So a kernel has to read
 * them there before the work can be divided evenly. All layers of a model's step have the same
 * lengths. With this extension that kernel runs once a step (build), and each layer's run reads
 * what it wrote (args->schedule).
 * A schedule serves every plan of the same instance, device and problem, whichever of them built
 * it. The host checks that, and that the run's tensors have the sizes of those that it was built
 * for: batch, seq_q, seq_kv, rows of packed tensors, pages, and columns of page_table.
 * If the problem is deterministic, run gives the same bits with a schedule as without one.
 * LENGTHS are the values of kv_lengths, offsets_q, offsets_kv and diagonal_offset. The host cannot
 * compare them, so a schedule carries the lengths that it was built for. If one of a sequence's
 * lengths is another at run, that sequence's rows of out and lse are NaN; with varlen, rows that it
 * did not have at build keep what they held. Other sequences are right, and nothing is
 * read or written out of bounds.
 * A backend of a device other than the cpu may offer it. */
#define ATTNRT_SCHEDULE "attnrt.schedule/1"

typedef struct attnrt_scheduling {
  int32_t struct_size;
  int32_t reserved;

  /* Sets *bytes to the size of the plan's schedules: enough for every run of this plan, at its
   * problem's bounds. 0: the plan needs no schedule; then build is not called, and run gets none.
   * Plans of the same problem give the same size. Without device work.
   * THREADS: from any thread, also while a run of the plan is in flight. */
  attnrt_status (*bytes)(void* instance, void* plan, const attnrt_problem* problem, int64_t* bytes,
                         attnrt_error* error);

  /* Enqueues on args->stream what fills args->schedule for runs on tensors like those of args, and
   * returns. args->schedule is device memory of args->schedule_bytes bytes (as `bytes` said), at a
   * multiple of 256. Before the first build its contents are undefined. Each build replaces the one
   * before it, in stream order and in place: a captured graph keeps the address. OWNERSHIP: the
   * host's.
   * args: all tensors that the problem uses, which the host has checked as it does for run. build
   * reads the memory of the LENGTHS alone, and clamps what it finds there; of other tensors it
   * reads shapes and strides. There is no workspace. There is at least one sequence, and one query.
   * Like run, it allocates nothing, never synchronises, can be captured if the plan is capturable,
   * and leaves the thread's current device as it was.
   * THREADS: a build counts as a run of its plan. */
  attnrt_status (*build)(void* instance, void* plan, const attnrt_problem* problem,
                         const attnrt_args* args, attnrt_error* error);
} attnrt_scheduling;

#ifdef __cplusplus
}
#endif

#endif /* ATTNRT_PLUGIN_H */
