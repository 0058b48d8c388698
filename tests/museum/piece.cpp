// tests/museum/piece.cpp: a plugin that is right but for the one thing that PIECE names
//
// build.py compiles it once for each row of pieces.py, which says what each piece does. The right
// answers are those of the fakes (tests/fakes/attend.c). Nothing here outlives two minutes, even if
// nobody stops it.
#include <attnrt/plugin.h>
#include <fcntl.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

extern "C" attnrt_status fake_attend(const attnrt_problem*, const attnrt_args*, attnrt_error*);

namespace {

enum Piece {
  // When the library is loaded or unloaded
  SEGFAULT,
  ABORT,
  EXIT_0,
  EXIT_3,
  HANG,
  CHILD_HOLDS_PIPES,
  DAEMON,
  ENDLESS_STDOUT,
  ENDLESS_STDERR,
  SIGNAL_HANDLERS,
  SIGNAL_MASK,
  ALARM,
  ROUNDING,
  FLUSH_TO_ZERO,
  CLOSED_DESCRIPTORS,
  LIMITS,
  DIRECTORY,
  UMASK,
  ENVIRONMENT,
  KILLED_PARENT,
  STACK_PERMISSION,
  LATE_THREAD,
  SESSION,
  NICE,
  ATEXIT,
  UNLOAD_HANGS,
  // The table
  IFUNC,
  TABLE_SHORT,
  TABLE_NAME,
  TABLE_VERSION,
  // open, devices, get_extension
  OPEN_FAILS,
  OPEN_HANGS,
  OPEN_STATUS,
  OPEN_CONTROL,
  DEVICES_FOREIGN,
  DEVICES_MANY,
  DEVICES_NONE,
  EXTENSION_SEGFAULT,
  // supports, plan
  SUPPORTS_SEGFAULT,
  SUPPORTS_HANGS,
  SUPPORTS_THROWS,
  SUPPORTS_FLIPS,
  PLAN_HUGE,
  PLAN_NULL,
  PLAN_NEGATIVE,
  // run
  RUN_SEGFAULT,
  RUN_WRONG,
  RUN_NAN,
  RUN_PAST_OUT,
  RUN_WRITES_Q,
  RUN_HANGS,
  RUN_STATUS,
  RUN_PAST_Q,
  // Its code is right
  SOUND
};
constexpr Piece kPiece = PIECE;

void crash() {
  volatile int* volatile nowhere = nullptr;
  *nowhere = 1;
}

void hang() {
  constexpr int kSeconds = 120;
  for (int n = 0; n < kSeconds; ++n) sleep(1);
  _exit(99);
}

void start_child(bool leaves) {
  const pid_t child = fork();
  if (child == 0) {
    if (leaves && (setsid() < 0 || fork() != 0)) _exit(0);
    hang();
  }
  if (leaves) waitpid(child, nullptr, 0);
}

void write_for_ever(int descriptor) {
  static const char text[1 << 16] = {'x'};
  const timeval begin = [] {
    timeval now{};
    return gettimeofday(&now, nullptr), now;
  }();
  for (timeval now = begin; now.tv_sec - begin.tv_sec < 120; gettimeofday(&now, nullptr)) {
    if (write(descriptor, text, sizeof text) < 0) usleep(1000);
  }
}

void lower(int resource, rlim_t to) {
  const rlimit both{to, to};
  setrlimit(static_cast<__rlimit_resource>(resource), &both);
}

void make_stack_executable() {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  int local = 0;
  mprotect(reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(&local) / page * page), page,
           PROT_READ | PROT_WRITE | PROT_EXEC);
}

void* crash_later(void*) {
  usleep(50'000);
  crash();
  return nullptr;
}

void start_late_thread() {
  pthread_t thread{};
  if (pthread_create(&thread, nullptr, crash_later, nullptr) == 0) pthread_detach(thread);
}

void change_signals() {
  signal(SIGSEGV, [](int) { _exit(0); });
  signal(SIGTERM, [](int) { _exit(0); });
}

void block_signals() {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
}

void flush_to_zero() {
#if defined(__SSE__)
  _mm_setcsr(_mm_getcsr() | 0x8040);  // FTZ and DAZ, as -ffast-math's start file does
#endif
}

__attribute__((constructor)) void when_loaded() {
  switch (kPiece) {
    case SEGFAULT: return crash();
    case ABORT: abort();
    case EXIT_0: _exit(0);
    case EXIT_3: exit(3);
    case HANG: return hang();
    case CHILD_HOLDS_PIPES: return start_child(false);
    case DAEMON: return start_child(true);
    case ENDLESS_STDOUT: return write_for_ever(STDOUT_FILENO);
    case ENDLESS_STDERR: return write_for_ever(STDERR_FILENO);
    case SIGNAL_HANDLERS: return change_signals();
    case SIGNAL_MASK: return block_signals();
    case ALARM: alarm(1); return;
    case ROUNDING: fesetround(FE_UPWARD); return;
    case FLUSH_TO_ZERO: return flush_to_zero();
    case CLOSED_DESCRIPTORS:
      for (int n = 0; n <= 20; ++n) close(n);
      return;
    case LIMITS: return lower(RLIMIT_NOFILE, 3), lower(RLIMIT_FSIZE, 0);
    case DIRECTORY: static_cast<void>(chdir("/") == 0); return;
    case UMASK: umask(0); return;
    case ENVIRONMENT:
      setenv("LD_PRELOAD", "/nowhere/hostile.so", 1);
      setenv("ATTNRT_DISABLE", "cpu", 1);
      return;
    case KILLED_PARENT: kill(getppid(), SIGKILL); return;
    case STACK_PERMISSION: return make_stack_executable();
    case LATE_THREAD: return start_late_thread();
    case SESSION: setsid(); return;
    case NICE: setpriority(PRIO_PROCESS, 0, 19); return;
    case ATEXIT: atexit(crash); return;
    default: return;
  }
}

__attribute__((destructor)) void when_unloaded() {
  if (kPiece == UNLOAD_HANGS) hang();
}

#if defined(PIECE_HAS_IFUNC)
extern "C" {
void never_runs() {}
__attribute__((used)) void (*resolve())() { return crash(), never_runs; }
void resolved() __attribute__((ifunc("resolve")));
}
void (*volatile call_resolved)() = resolved;
#endif
#if defined(PIECE_MISSES_SYMBOL)
extern "C" void attnrt_museum_nowhere();
void (*volatile call_nowhere)() = attnrt_museum_nowhere;
#endif
#if defined(PIECE_NEEDS_LIBRARY)
extern "C" int attnrt_museum_needed();
int (*volatile call_needed)() = attnrt_museum_needed;
#endif
#if defined(PIECE_HAS_TEXT_RELOCATION)
__asm__(".text\n.quad attnrt_plugin_v1\n");
#endif

int the_instance;

attnrt_status open_piece(const attnrt_host*, const attnrt_option* options, int32_t count,
                         void** instance, attnrt_error* error) {
  if (kPiece == OPEN_FAILS) return attnrt_fail(error, ATTNRT_INTERNAL, "the piece does not open");
  if (kPiece == OPEN_HANGS) hang();
  if (kPiece == OPEN_STATUS) return 99;
  if (kPiece == OPEN_CONTROL)
    return attnrt_fail(error, ATTNRT_INTERNAL, "the piece\n\033[31mdoes not\r\a open");
  if (count > 0)
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "option %s is not known", options[0].key);
  *instance = &the_instance;
  return ATTNRT_OK;
}

attnrt_status add_devices(void*, attnrt_add_device add, void* sink, attnrt_error* error) {
  attnrt_device device{
      static_cast<int32_t>(sizeof device), ATTNRT_DEVICE_CPU, 0, 0, "", "a museum", 0};
  if (kPiece == DEVICES_NONE) return attnrt_fail(error, ATTNRT_OK, "there is none");
  if (kPiece == DEVICES_FOREIGN) device.device_type = ATTNRT_DEVICE_ROCM, device.arch = "gfx1100";
  const int32_t count = kPiece == DEVICES_MANY ? 100'000 : 1;
  for (; device.device_id < count; ++device.device_id) add(sink, &device);
  return ATTNRT_OK;
}

attnrt_status supports(void*, const attnrt_problem*, attnrt_add_reason add, void* sink) {
  static int asked = 0;
  if (kPiece == SUPPORTS_SEGFAULT) crash();
  if (kPiece == SUPPORTS_HANGS) hang();
  if (kPiece == SUPPORTS_THROWS) throw 1;
  if (kPiece == SUPPORTS_FLIPS && __atomic_fetch_add(&asked, 1, __ATOMIC_RELAXED) % 2 == 1)
    return add(sink, "not this time"), ATTNRT_UNSUPPORTED;
  return ATTNRT_OK;
}

attnrt_status make_plan(void*, const attnrt_problem*, attnrt_plan_info* info, void** plan,
                        attnrt_error*) {
  info->workspace_bytes = kPiece == PLAN_HUGE ? int64_t{1} << 62 : 0;
  info->held_bytes = kPiece == PLAN_NEGATIVE ? INT64_MIN : 0;
  info->kernel = "museum";
  *plan = kPiece == PLAN_NULL ? nullptr : &the_instance;
  return ATTNRT_OK;
}

// The bytes from the tensor's first element to the end of its last.
int64_t extent(const attnrt_tensor& tensor) {
  int64_t last = 0;
  for (int32_t n = 0; n < tensor.ndim; ++n) last += (tensor.shape[n] - 1) * tensor.stride[n];
  return (last + 1) * tensor.dtype.bits / 8;
}

bool is_empty(const attnrt_tensor& tensor) {
  for (int32_t n = 0; n < tensor.ndim; ++n) {
    if (tensor.shape[n] == 0) return true;
  }
  return tensor.data == nullptr;
}

attnrt_status run(void*, void*, const attnrt_problem* problem, const attnrt_args* args,
                  attnrt_error* error) {
  if (kPiece == RUN_SEGFAULT) crash();
  if (kPiece == RUN_HANGS) hang();
  if (kPiece == RUN_STATUS) return 99;
  const attnrt_status status = fake_attend(problem, args, error);
  if (status != ATTNRT_OK || is_empty(args->q) || is_empty(args->out)) return status;
  auto* const out = static_cast<volatile uint8_t*>(args->out.data);
  auto* const q = static_cast<volatile uint8_t*>(args->q.data);
  const int64_t end = extent(args->out), bytes = args->out.dtype.bits / 8;
  if (kPiece == RUN_WRONG || kPiece == RUN_NAN) {  // the sign and exponent of the last element
    for (int64_t n = 1; n <= 2; ++n) out[end - n] = kPiece == RUN_NAN ? 0xFF : 0x45;
  }
  if (kPiece == RUN_PAST_OUT) {
    for (int64_t n = 0; n < bytes; ++n) out[end + n] = 0x5A;
  }
  if (kPiece == RUN_WRITES_Q) q[0] = static_cast<uint8_t>(q[0] ^ 1);
  if (kPiece == RUN_PAST_Q) static_cast<void>(q[extent(args->q)]);
  return ATTNRT_OK;
}

const void* get_extension(void*, const char*) {
  if (kPiece == EXTENSION_SEGFAULT) crash();
  return nullptr;
}

}  // namespace

#if defined(PIECE_EXPORTS_MALLOC)
extern "C" {
ATTNRT_VISIBLE void* malloc(size_t) noexcept { return crash(), nullptr; }
ATTNRT_VISIBLE void free(void*) noexcept { crash(); }
}
#endif

#if !defined(PIECE_SYMBOL)
#define PIECE_SYMBOL attnrt_plugin_v1
#endif
extern "C" ATTNRT_VISIBLE const attnrt_plugin PIECE_SYMBOL;
const attnrt_plugin PIECE_SYMBOL = {
    kPiece == TABLE_SHORT ? 8 : static_cast<int32_t>(sizeof(attnrt_plugin)),
    ATTNRT_ABI_MINOR,
    kPiece == TABLE_NAME ? "somebody_else" : "piece",
    kPiece == TABLE_VERSION ? "9.9.9" : "1.0.0",
    open_piece,
    add_devices,
    supports,
    make_plan,
    run,
    [](void*, void*) {},
    [](void*) {},
    get_extension,
};

__asm__(
    ".pushsection .attnrt_manifest,\"aR\",%progbits\n"
    ".incbin \"" PIECE_MANIFEST
    "\"\n"
    ".popsection\n");
