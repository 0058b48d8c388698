/* tests/fakes/fake.c: the fake plugin, compiled once for each fault (fake.h lists them) */
#define _DEFAULT_SOURCE
#include "fake.h"

#include <fenv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORKSPACE_BYTES = 256 };

typedef struct fake {
  const attnrt_host* host;
  attnrt_problem last; /* of FAULT_STATE */
} fake;

typedef struct fake_plan {
  attnrt_problem problem; /* as it was planned */
} fake_plan;

/* Copies what both sides know of a problem. */
static attnrt_problem copy_of(const attnrt_problem* given) {
  attnrt_problem known;
  memset(&known, 0, sizeof known);
  const int32_t ours = (int32_t)sizeof known;
  memcpy(&known, given, (size_t)(given->struct_size < ours ? given->struct_size : ours));
  return known;
}

/* Whether the host claims to know the field that only this plugin's header has. */
static int host_knows_more(const attnrt_problem* problem) {
#ifdef FAKE_HEADER_IS_NEWER
  return ATTNRT_HAS(problem, attnrt_problem, rotary);
#else
  (void)problem;
  return 0;
#endif
}

/* Throws a C++ exception if that is this fake's fault. */
static void may_throw(int fault, const char* where) {
#ifdef FAKE_THROWS
  if (FAKE_FAULT == fault) fake_throw(where);
#else
  (void)fault, (void)where;
#endif
}

/* Notes an environment that is not the default, and leaves another one behind. */
static void disturb_floating_point(void) {
  if (FAKE_FAULT != FAULT_FLOATING) return;
  volatile float denormal = 1e-40F, sum = 1, little = 1e-10F;
  denormal = denormal * 1.0F;
  sum = sum + little;
  if (fegetround() != FE_TONEAREST || denormal == 0 || sum != 1) ++fake_count.odd_environments;
  (void)fesetround(FE_UPWARD);
#if defined(__SSE__)
  __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040U); /* FTZ and DAZ */
#endif
}

static const char* long_text(void) {
  static char text[1000];
  memset(text, 'x', sizeof text - 1);
  return text;
}

static attnrt_status fake_open(const attnrt_host* host, const attnrt_option* options, int32_t count,
                               void** instance, attnrt_error* error) {
  may_throw(FAULT_THROW_OPEN, "open");
#ifdef FAKE_OPEN_HANGS
  for (;;) usleep(1000);
#endif
#ifdef FAKE_CHDIR
  if (chdir("/") != 0) return attnrt_fail(error, ATTNRT_INTERNAL, "chdir failed");
#endif
  disturb_floating_point();
  if (FAKE_OPEN_STATUS != ATTNRT_OK)
    return attnrt_fail(error, FAKE_OPEN_STATUS, "open was told to fail");
  __atomic_add_fetch(&fake_count.opens, 1, __ATOMIC_RELAXED);
  if (fake_count.open_status != ATTNRT_OK)
    return attnrt_fail(error, (attnrt_status)fake_count.open_status,
                       "open was told to fail by a test");
  for (int32_t n = 0; n < count && FAKE_FAULT != FAULT_OPTIONS; ++n) {
    if (strcmp(options[n].key, "note") == 0)
      continue; /* the one known option, which has no effect */
    if (FAKE_FAULT == FAULT_STDOUT_CRASH && error != NULL) puts("fake: an option");
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "option %s is not known; there is note",
                       options[n].key);
  }
  fake* f = calloc(1, sizeof *f);
  if (f == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "an instance");
  f->host = host;
  *instance = f;
  return ATTNRT_OK;
}

static void fake_close(void* instance) {
  fake* f = instance;
  disturb_floating_point();
  if (FAKE_DEVICE == DEVICE_FAKE) fake_device_report(f->host);
  free(f);
}

static attnrt_status fake_devices(void* instance, attnrt_add_device add, void* sink,
                                  attnrt_error* error) {
  (void)instance;
  may_throw(FAULT_THROW_DEVICES, "devices");
  disturb_floating_point();
  if (fake_count.devices_status != ATTNRT_OK)
    return attnrt_fail(error, (attnrt_status)fake_count.devices_status,
                       "devices was told to fail by a test");
  if (fake_count.absent) return attnrt_fail(error, ATTNRT_OK, "the fake device is unplugged");
#ifdef FAKE_NO_DEVICES
  (void)add, (void)sink;
  attnrt_fail(error, ATTNRT_OK, "%s", FAKE_NO_DEVICES);
#else
#ifdef FAKE_NOTE
  attnrt_fail(error, ATTNRT_OK, "%s", FAKE_NOTE);
#else
  (void)error;
#endif
  const int host = FAKE_DEVICE == DEVICE_HOST;
  for (int32_t id = 0; id < (FAKE_FAULT == FAULT_MANY ? 100 : FAKE_DEVICE_COUNT); ++id) {
    attnrt_device device = {sizeof device,
                            host ? ATTNRT_DEVICE_CPU : ATTNRT_DEVICE_ROCM,
                            id,
                            0,
                            host ? "" : FAKE_ARCH,
                            host ? "cpu" : "fake device",
                            host ? 0 : 1 << 30};
    if (FAKE_FAULT == FAULT_ARCH) device.arch = "gfx803";
    if (FAKE_FAULT == FAULT_MANY) device.name = long_text();
    add(sink, &device);
  }
#ifdef FAKE_ALSO_CPU
  const attnrt_device cpu = {sizeof cpu, ATTNRT_DEVICE_CPU, 0, 0, "", "cpu", 0};
  add(sink, &cpu);
#endif
#endif
  return ATTNRT_OK;
}

static attnrt_status fake_supports(void* instance, const attnrt_problem* problem,
                                   attnrt_add_reason add, void* sink) {
  static int flips;
  (void)instance;
  may_throw(FAULT_THROW_SUPPORTS, "supports");
  disturb_floating_point();
  if (FAKE_SUPPORTS_STATUS != ATTNRT_OK) return FAKE_SUPPORTS_STATUS;
  if (FAKE_FAULT == FAULT_MANY && problem->causal) {
    for (int n = 0; n < 100; ++n) add(sink, long_text());
    return ATTNRT_UNSUPPORTED;
  }
  if (FAKE_FAULT == FAULT_SUPPORTS_SILENT && problem->head_dim % 2 == 0) return ATTNRT_UNSUPPORTED;
  if (FAKE_FAULT == FAULT_SUPPORTS_FLIPS && flips++ % 2) {
    add(sink, "it is the other call");
    return ATTNRT_UNSUPPORTED;
  }
  if (fake_count.most_keys != 0 && problem->seq_kv > fake_count.most_keys) {
    add(sink, "seq_kv is above what a test allows");
    return ATTNRT_UNSUPPORTED;
  }
  if (FAKE_FAULT == FAULT_SUPPORTS_NOTHING) {
    add(sink, "it supports nothing");
    return ATTNRT_UNSUPPORTED;
  }
  return ATTNRT_OK;
}

static attnrt_status fake_make_plan(void* instance, const attnrt_problem* problem,
                                    attnrt_plan_info* info, void** plan, attnrt_error* error) {
  (void)instance;
  may_throw(FAULT_THROW_PLAN, "plan");
  disturb_floating_point();
  if (FAKE_FAULT == FAULT_NO_NUL) {
    if (error != NULL) memset(error->message, 'x', sizeof error->message);
    return ATTNRT_INTERNAL;
  }
  if (FAKE_PLAN_MILLISECONDS > 0) usleep(1000 * FAKE_PLAN_MILLISECONDS);
  if (FAKE_PLAN_STATUS != ATTNRT_OK)
    return attnrt_fail(error, FAKE_PLAN_STATUS, "plan was told to fail");
  if (fake_count.plan_status != ATTNRT_OK)
    return attnrt_fail(error, (attnrt_status)fake_count.plan_status,
                       "plan was told to fail by a test");
  if (FAKE_FAULT == FAULT_SUPPORTS_LIES)
    return attnrt_fail(error, ATTNRT_UNSUPPORTED, "supports said yes too early");
  fake_plan* p = calloc(1, sizeof *p);
  if (p == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a plan");
  p->problem = copy_of(problem);
  __atomic_add_fetch(&fake_count.plans, 1, __ATOMIC_RELAXED);
  __atomic_add_fetch(&fake_count.plans_alive, 1, __ATOMIC_RELAXED);
  info->workspace_bytes =
      fake_count.workspace_bytes != 0 ? fake_count.workspace_bytes : WORKSPACE_BYTES;
  info->held_bytes = fake_count.held_bytes;
  info->capturable = !fake_count.not_capturable;
  info->workspace_alignment = FAKE_FAULT == FAULT_ALIGNMENT  ? 48
                              : FAKE_FAULT == FAULT_NEGATIVE ? -64
                                                             : 64;
  info->kernel = FAKE_FAULT == FAULT_MANY ? long_text() : "fake_attention";
  *plan = p;
  return ATTNRT_OK;
}

static void fake_plan_destroy(void* instance, void* plan) {
  (void)instance;
  __atomic_sub_fetch(&fake_count.plans_alive, 1, __ATOMIC_RELAXED);
  fake_plan_destroyed(plan);
  disturb_floating_point();
  free(plan);
}

static void write_too_much(const attnrt_args* args) {
  if (FAKE_FAULT == FAULT_WORKSPACE) ((volatile char*)args->workspace)[args->workspace_bytes] = 1;
  if (FAKE_FAULT == FAULT_INPUT && args->q.data != NULL) *(volatile uint8_t*)args->q.data ^= 1;
}

static attnrt_status fake_run(void* instance, void* plan, const attnrt_problem* problem,
                              const attnrt_args* args, attnrt_error* error) {
  fake* f = instance;
  attnrt_problem asked = copy_of(problem);
  attnrt_args given = *args;
#ifdef FAKE_IGNORES
  FAKE_IGNORES;
#endif
  may_throw(FAULT_THROW_RUN, "run");
  __atomic_add_fetch(&fake_count.runs, 1, __ATOMIC_RELAXED);
  disturb_floating_point();
  if (FAKE_RUN_STATUS != ATTNRT_OK)
    return attnrt_fail(error, FAKE_RUN_STATUS, "run was told to fail");
  if (fake_count.run_status != ATTNRT_OK)
    return attnrt_fail(error, (attnrt_status)fake_count.run_status,
                       "run was told to fail by a test");
  if (host_knows_more(problem))
    return attnrt_fail(error, ATTNRT_INTERNAL, "struct_size %d holds a field of a later header",
                       problem->struct_size);
  if (FAKE_FAULT == FAULT_CRASH) raise(SIGSEGV);
  if (FAKE_FAULT == FAULT_EXIT) exit(0);
  if (FAKE_FAULT == FAULT_STDOUT_CRASH && problem->struct_size != (int32_t)sizeof(attnrt_problem))
    raise(SIGSEGV);
  while (FAKE_FAULT == FAULT_HANG) usleep(1000);
  if (FAKE_FAULT == FAULT_STDOUT) puts("fake: running"); /* stays in stdout's buffer */
  if (FAKE_FAULT == FAULT_SIZE && problem->struct_size != (int32_t)sizeof(attnrt_problem))
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "struct_size %d", problem->struct_size);
  if (FAKE_FAULT == FAULT_STATE) { /* meanwhile, another thread overwrites f->last */
    f->last = asked;
    usleep(2000);
    asked.scale = f->last.scale;
  }
  if (FAKE_FAULT == FAULT_BOUNDS && !problem->varlen && problem->page_size == 0 &&
      args->q.shape[1] < problem->seq_q)
    return attnrt_fail(error, ATTNRT_INTERNAL, "q has %d rows, not %d", (int)args->q.shape[1],
                       (int)problem->seq_q);
  if (args->q.data != NULL && args->workspace != NULL) write_too_much(args);
  if (FAKE_FAULT == FAULT_UNWRITTEN) return ATTNRT_OK;
  if (FAKE_DEVICE == DEVICE_FAKE) return fake_enqueue(&asked, &given, plan, error);
  return fake_attend(&asked, &given, error);
}

#ifdef FAKE_MERGES
#ifndef FAKE_MERGE_STATUS
#define FAKE_MERGE_STATUS ATTNRT_OK
#endif
static attnrt_status merge(void* instance, int32_t device_id, const attnrt_tensor* outs,
                           const attnrt_tensor* lses, int32_t count, const attnrt_tensor* out,
                           const attnrt_tensor* lse, void* stream, attnrt_error* error) {
  const fake_merge_call call = {outs, lses, count, *out, *lse};
  (void)instance, (void)device_id;
  if (FAKE_MERGE_STATUS != ATTNRT_OK)
    return attnrt_fail(error, FAKE_MERGE_STATUS, "merge was told to fail");
  if (FAKE_DEVICE == DEVICE_FAKE) return fake_enqueue_merge(&call, stream, error);
  fake_merge(&call);
  return ATTNRT_OK;
}
static const attnrt_merging fake_merging = {sizeof(attnrt_merging), 0, merge};
#endif

#ifdef FAKE_SCHEDULES
static attnrt_status schedule_bytes(void* instance, void* plan, const attnrt_problem* problem,
                                    int64_t* bytes, attnrt_error* error) {
  (void)instance, (void)plan;
  if (fake_count.bytes_status != ATTNRT_OK)
    return attnrt_fail(error, (attnrt_status)fake_count.bytes_status, "bytes was told to fail");
  *bytes = fake_count.schedule_bytes != 0 ? fake_count.schedule_bytes
           : fake_count.no_schedule       ? 0
                                          : fake_schedule_bytes(problem);
  return ATTNRT_OK;
}

static attnrt_status build_schedule(void* instance, void* plan, const attnrt_problem* problem,
                                    const attnrt_args* args, attnrt_error* error) {
  (void)instance;
  const attnrt_problem asked = copy_of(problem);
  __atomic_add_fetch(&fake_count.builds, 1, __ATOMIC_RELAXED);
  if (fake_count.build_status != ATTNRT_OK)
    return attnrt_fail(error, (attnrt_status)fake_count.build_status, "build was told to fail");
  if (args->workspace != NULL || args->schedule_bytes < fake_schedule_bytes(&asked))
    return attnrt_fail(error, ATTNRT_INTERNAL, "there is a workspace, or too little memory");
  if ((uintptr_t)args->schedule % 256 != 0)
    return attnrt_fail(error, ATTNRT_INTERNAL, "the schedule is not at a multiple of 256 bytes");
  return fake_enqueue_build(&asked, args, plan, error);
}
static const attnrt_scheduling fake_scheduling = {
    sizeof(attnrt_scheduling), 0, schedule_bytes,
    FAKE_FAULT == FAULT_NULL_BUILD ? NULL : build_schedule};
#endif

static const void* fake_get_extension(void* instance, const char* id) {
  (void)instance;
#ifdef FAKE_MERGES
  if (strcmp(id, ATTNRT_MERGE) == 0) return &fake_merging;
#endif
#ifdef FAKE_SCHEDULES
  if (strcmp(id, ATTNRT_SCHEDULE) == 0) return &fake_scheduling;
#endif
  if (strcmp(id, FAKE_COUNTERS) == 0) return &fake_count;
  const int memory = FAKE_DEVICE == DEVICE_FAKE && FAKE_FAULT != FAULT_NO_MEMORY;
  if (FAKE_DEVICE == DEVICE_FAKE && strcmp(id, ATTNRT_TIMING) == 0)
    return FAKE_FAULT == FAULT_NULL_TIMING ? &fake_timing_without_record : &fake_timing;
  if (!memory || strcmp(id, ATTNRT_MEMORY) != 0) return NULL;
  return &fake_memory;
}

/* ---- The table ---- */
#if defined(FAKE_SYMBOL_V2)
#define TABLE attnrt_plugin_v2
#elif defined(FAKE_SYMBOL_NONE)
#define TABLE attnrt_no_plugin
#else
#define TABLE attnrt_plugin_v1
#endif
#define CALLS fake_open, fake_devices, fake_supports, fake_make_plan, fake_run

#ifdef FAKE_UNDEFINED_SYMBOL
extern void a_function_that_nobody_has(void);
void (*fake_missing)(void) = a_function_that_nobody_has;
#endif
#ifdef FAKE_ABORTS
__attribute__((constructor)) static void fake_abort(void) { abort(); }
#endif
#ifdef FAKE_TWO_SYMBOLS
ATTNRT_VISIBLE int fake_second_symbol(void);
int fake_second_symbol(void) { return 2; }
#endif

#if defined(FAKE_IS_OLDER)
typedef struct older_plugin {
  int32_t struct_size, abi_minor;
  const char *name, *version;
  attnrt_status (*open)(const attnrt_host*, const attnrt_option*, int32_t, void**, attnrt_error*);
  attnrt_status (*devices)(void*, attnrt_add_device, void*, attnrt_error*);
  attnrt_status (*supports)(void*, const attnrt_problem*, attnrt_add_reason, void*);
  attnrt_status (*plan)(void*, const attnrt_problem*, attnrt_plan_info*, void**, attnrt_error*);
  attnrt_status (*run)(void*, void*, const attnrt_problem*, const attnrt_args*, attnrt_error*);
} older_plugin;
/* The table ends before plan_destroy and close, so this fake has neither plans nor an instance. */
ATTNRT_PLUGIN_EXPORT const older_plugin TABLE = {sizeof(older_plugin), 0,    FAKE_NAME,
                                                 FAKE_VERSION,         NULL, fake_devices,
                                                 fake_supports,        NULL, fake_run};
#elif defined(FAKE_IS_NEWER)
typedef struct newer_plugin {
  attnrt_plugin known;
  attnrt_status (*warm_up)(void* instance, int64_t reserved, attnrt_error* error);
  const char* motto;
  int64_t flags[4];
} newer_plugin;
static attnrt_status fake_warm_up(void* instance, int64_t reserved, attnrt_error* error) {
  (void)instance, (void)reserved;
  return attnrt_fail(error, ATTNRT_INTERNAL, "a host that does not know warm_up must not call it");
}
ATTNRT_PLUGIN_EXPORT const newer_plugin TABLE = {
    {sizeof(newer_plugin), 9, FAKE_NAME, FAKE_VERSION, CALLS, fake_plan_destroy, fake_close,
     fake_get_extension},
    fake_warm_up,
    "later is better",
    {1, 2, 3, 4}};
#else
ATTNRT_PLUGIN_EXPORT const attnrt_plugin TABLE = {
    FAKE_TABLE == TABLE_SHORT  ? 8
    : FAKE_TABLE == TABLE_HUGE ? 4096
                               : (int32_t)sizeof(attnrt_plugin),
    ATTNRT_ABI_MINOR,
    FAKE_TABLE == TABLE_NO_NAME ? NULL : FAKE_NAME,
    FAKE_VERSION,
    FAKE_TABLE == TABLE_MINIMAL ? NULL : fake_open,
    FAKE_TABLE == TABLE_MINIMAL ? NULL : fake_devices,
    FAKE_TABLE == TABLE_MINIMAL ? NULL : fake_supports,
    FAKE_TABLE == TABLE_MINIMAL ? NULL : fake_make_plan,
    FAKE_TABLE == TABLE_NULL_RUN ? NULL : fake_run,
    FAKE_TABLE == TABLE_MINIMAL ? NULL : fake_plan_destroy,
    FAKE_TABLE == TABLE_MINIMAL ? NULL : fake_close,
    FAKE_TABLE == TABLE_MINIMAL ? NULL : fake_get_extension,
};
#endif
