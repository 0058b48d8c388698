/* tests/fakes/fake.h: the compile definitions that say what one fake plugin does, and does wrong
 *
 * fake.c is compiled once for each fake in CMakeLists.txt:
 *   FAKE_TABLE     which calls its table has (FAKE_IS_OLDER, FAKE_IS_NEWER: as of another version)
 *   FAKE_MERGES           it offers attnrt.merge/1
 *   FAKE_MERGE_STATUS     it offers attnrt.merge/1, which returns this status
 *   FAKE_SCHEDULES        it offers attnrt.schedule/1
 *   FAKE_HEADER_IS_NEWER  its plugin.h has a field, rotary, that the host's does not have
 *   FAKE_HEADER_IS_OLDER  its plugin.h lacks the field diagonal_offset and those after it
 *   FAKE_OPEN_HANGS       open never returns
 *   FAKE_IGNORES          an assignment to `asked`, the problem that run computes
 *   FAKE_FAULT     the one thing that it does wrong
 *   FAKE_DEVICE    whether its tensors are on the host or on a fake device (device.c)
 */
#ifndef FAKES_FAKE_H
#define FAKES_FAKE_H

#include <attnrt/plugin.h>

/* Which calls the table has. */
enum {
  TABLE_FULL,     /* every call */
  TABLE_MINIMAL,  /* only run */
  TABLE_SHORT,    /* struct_size 8 */
  TABLE_NULL_RUN, /* run is NULL */
  TABLE_NO_NAME,  /* name is NULL */
  TABLE_HUGE      /* struct_size is larger than the symbol */
};

/* What it does wrong. */
enum {
  FAULT_NONE,
  FAULT_GARBAGE,          /* run: writes numbers that are not the answer */
  FAULT_ROUGH,            /* run: results are 2 % off */
  FAULT_SUPPORTS_LIES,    /* supports: yes; plan: UNSUPPORTED */
  FAULT_SUPPORTS_SILENT,  /* supports: no, without a reason */
  FAULT_SUPPORTS_FLIPS,   /* supports: another answer each time */
  FAULT_SUPPORTS_NOTHING, /* supports: no to everything, with a reason */
  FAULT_WORKSPACE,        /* run: writes past the end of its workspace */
  FAULT_ALIGNMENT,        /* plan: asks for an alignment of 48 */
  FAULT_INPUT,            /* run: writes to q */
  FAULT_GAP,              /* run: writes past the end of out's last row */
  FAULT_PARTIAL,          /* run: leaves the last row of out as it was */
  FAULT_UNWRITTEN,        /* run: writes nothing */
  FAULT_LEAK,             /* run: adds 0 * v of keys past kv_lengths */
  FAULT_MASKED,           /* run: a row that sees nothing gives NaN */
  FAULT_BOUNDS,           /* run: takes the problem's bounds as the tensors' shapes */
  FAULT_INDICES,          /* run: does not check index arrays */
  FAULT_KV_SCALE,         /* run: takes every v_scale for 1/30 */
  FAULT_V_IN_K,           /* run: v in k is its last columns, not the first */
  FAULT_OUT_DTYPE,        /* run: rounds out to q's dtype, although out_dtype is another */
  FAULT_DIAGONAL,         /* run: ignores diagonal_offset */
  FAULT_BATCH,            /* run: other last bits if there is more than one sequence */
  FAULT_MERGE_MEAN,       /* merge: every partial has the same weight */
  FAULT_MERGE_UNSEEN,     /* merge: adds 0 * out of partials that saw nothing */
  FAULT_MERGE_COUNT,      /* merge: leaves out all partials after the second */
  FAULT_SCHEDULE_BITS,    /* run: other last bits if there is a schedule */
  FAULT_SCHEDULE_STALE,   /* build: leaves a schedule that was built before as it was */
  FAULT_SCHEDULE_LENGTHS, /* run: takes the schedule's lengths in place of the run's */
  FAULT_SCHEDULE_END,     /* build: writes past the end of the schedule */
  FAULT_NULL_BUILD,       /* schedule: build is NULL */
  FAULT_OPTIONS,          /* open: accepts any option */
  FAULT_STDOUT,           /* run: prints */
  FAULT_STATE,            /* run: all plans share one buffer of the instance */
  FAULT_SIZE,             /* run: refuses a problem of another struct_size than its own */
  FAULT_CRASH,            /* run: SIGSEGV */
  FAULT_HANG,             /* run: never returns */
  FAULT_EXIT,             /* run: exit(0) */
  FAULT_STDOUT_CRASH,     /* open: prints if it refuses an option; run: SIGSEGV for a newer host */
  FAULT_NO_MEMORY,        /* get_extension: offers no attnrt.memory/1 */
  FAULT_ARCH,             /* devices: an arch that the manifest does not name */
  FAULT_STREAM,           /* memory: copies are lost */
  FAULT_TIMING,           /* timing: the time between two timestamps is negative */
  FAULT_NO_EVENTS,        /* memory: event_create is NULL */
  FAULT_NULL_TIMING,      /* timing: record is NULL */
  FAULT_FLOATING,         /* every call: leaves another rounding mode, FTZ and DAZ behind */
  FAULT_MANY,             /* devices, supports, plan: more and longer texts than a host keeps */
  FAULT_NO_NUL,           /* plan: an error text without NUL */
  FAULT_NEGATIVE,         /* plan: asks for an alignment of -64 */
  FAULT_THROW_OPEN,       /* the call throws a C++ exception */
  FAULT_THROW_DEVICES,
  FAULT_THROW_SUPPORTS,
  FAULT_THROW_PLAN,
  FAULT_THROW_RUN
};

/* Where its tensors are. */
enum { DEVICE_HOST, DEVICE_FAKE };

#ifndef FAKE_NAME
#define FAKE_NAME ATTNRT_PLUGIN_NAME
#endif
#ifndef FAKE_VERSION
#define FAKE_VERSION ATTNRT_PLUGIN_VERSION
#endif
#ifndef FAKE_TABLE
#define FAKE_TABLE TABLE_FULL
#endif
#ifndef FAKE_FAULT
#define FAKE_FAULT FAULT_NONE
#endif
#ifndef FAKE_DEVICE
#define FAKE_DEVICE DEVICE_HOST
#endif
#ifndef FAKE_ARCH
#define FAKE_ARCH "gfx1100"
#endif
#ifndef FAKE_DEVICE_COUNT
#define FAKE_DEVICE_COUNT 1
#endif
#ifndef FAKE_OPEN_STATUS /* what open, plan and run return */
#define FAKE_OPEN_STATUS ATTNRT_OK
#endif
#ifndef FAKE_PLAN_STATUS
#define FAKE_PLAN_STATUS ATTNRT_OK
#endif
#ifndef FAKE_RUN_STATUS
#define FAKE_RUN_STATUS ATTNRT_OK
#endif
#ifndef FAKE_SUPPORTS_STATUS
#define FAKE_SUPPORTS_STATUS ATTNRT_OK
#endif
#ifndef FAKE_ABSENT /* whether the device is absent until a test says otherwise */
#define FAKE_ABSENT 0
#endif
#ifndef FAKE_PLAN_MILLISECONDS
#define FAKE_PLAN_MILLISECONDS 0
#endif

/* What a fake counts. Tests read and set it; get_extension(FAKE_COUNTERS) returns it. */
#define FAKE_COUNTERS "test.fake.counters/1"
typedef struct fake_counters {
  int64_t allocations, allocated; /* in total; alive now */
  int64_t pinned_allocations, pinned;
  int64_t copies_to_device, copies_to_host, copies_on_device;
  int64_t streams_created, streams;
  int64_t synchronizations;
  int64_t opens, plans, plans_alive, runs;
  int64_t events, event_synchronizations, stream_waits;
  int64_t builds; /* of schedules */
  void* last_allocation_stream;

  /* What would be wrong on a real device. */
  int64_t freed_in_flight;      /* memory, while work of another stream uses it */
  int64_t destroyed_in_flight;  /* a plan, while its run is in the queue */
  int64_t overlapping_runs;     /* of one plan, on two streams that do not wait for each other */
  int64_t runs_of_captured;     /* a captured graph's workspace, used by another run */
  int64_t replays_of_freed;     /* a graph whose plan or workspace is gone */
  int64_t invalidated_captures; /* calls for the captured stream that a capture forbids */
  int64_t odd_environments;     /* FAULT_FLOATING: calls in another environment than the default */

  /* Set by a test. */
  int64_t capturing;        /* a graph is being captured on captured_stream */
  void* captured_stream;    /* NULL: the default stream */
  uint64_t capture_id;      /* of that capture */
  int64_t capturing_status; /* what is_capturing returns */
  int64_t record_status;    /* what event_record returns */
  int64_t open_status;      /* what the next opens return, of all instances of the library */
  int64_t devices_status;   /* what the next devices return */
  int64_t plan_status;      /* what the next plans return */
  int64_t run_status;       /* what the next runs return */
  int64_t memory_limit;     /* allocate beyond it is OUT_OF_MEMORY; 0: no limit */
  int64_t workspace_bytes;  /* what plans ask for; 0: 256 */
  int64_t held_bytes;       /* what plans say that they hold */
  int64_t not_capturable;   /* what plans say */
  int64_t schedule_bytes;   /* what schedules ask for; 0: as many as they need */
  int64_t no_schedule;      /* plans need none */
  int64_t bytes_status;     /* what the schedules' bytes returns */
  int64_t build_status;     /* what the next builds return */
  int64_t most_keys;        /* supports refuses more; 0: no limit */
  int64_t absent;           /* devices adds none */

  /* Called by a test. */
  void (*complete)(void);                               /* does the work of all streams */
  int64_t (*replay)(uint64_t capture_id, void* stream); /* enqueues a captured graph's work */
} fake_counters;

/* Means another stream to each thread. */
#define fake_stream_per_thread ((void*)2)

/* numbers.c: loads an element, stores one, and rounds a value to the dtype of `like`. */
double fake_load(const attnrt_tensor* t, int64_t at);
void fake_store(const attnrt_tensor* t, int64_t at, double value);
double fake_rounded(const attnrt_tensor* like, double value);

/* merge.c: merges partials in double. */
typedef struct fake_merge_call {
  const attnrt_tensor *outs, *lses; /* count of each */
  int32_t count;
  attnrt_tensor out, lse;
} fake_merge_call;
void fake_merge(const fake_merge_call* call);

/* attend.c: computes attention in double, in every dtype and with every feature. Wrong index arrays
 * are INVALID_ARGUMENT. */
attnrt_status fake_attend(const attnrt_problem* problem, const attnrt_args* args,
                          attnrt_error* error);

/* The rows of one sequence. */
typedef struct fake_rows {
  int64_t q_first, q_length, kv_first, kv_length, diagonal_offset;
} fake_rows;
/* attend.c: finds the rows of sequence b. INVALID_ARGUMENT if index arrays point outside of their
 * tensors. */
attnrt_status fake_find_rows(const attnrt_problem* problem, const attnrt_args* args, int64_t b,
                             fake_rows* rows, attnrt_error* error);

/* schedule.c: a schedule holds the rows of each sequence that it was built for. */
int64_t fake_schedule_bytes(const attnrt_problem* problem);
void fake_fill_schedule(const attnrt_problem* problem, const attnrt_args* args);
/* Returns the rows of sequence b in the run's schedule; NULL: it has none. */
const fake_rows* fake_scheduled(const attnrt_args* args, int64_t b);

/* device.c: the fake device. Enqueues the work, which is done when its stream is synchronized. */
extern fake_counters fake_count;
extern const attnrt_memory fake_memory;
extern const attnrt_timing fake_timing;
extern const attnrt_timing fake_timing_without_record;
attnrt_status fake_enqueue(const attnrt_problem* problem, const attnrt_args* args, const void* plan,
                           attnrt_error* error);
attnrt_status fake_enqueue_build(const attnrt_problem* problem, const attnrt_args* args,
                                 const void* plan, attnrt_error* error);
attnrt_status fake_enqueue_merge(const fake_merge_call* call, void* stream, attnrt_error* error);
void fake_plan_destroyed(const void* plan);
void fake_device_report(const attnrt_host* host);

/* throw.cpp: throws std::runtime_error. */
void fake_throw(const char* where);

#endif
