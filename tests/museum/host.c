/* tests/museum/host.c: an application beside hostile plugins: policy and folders into right or not
 *
 * host POLICY FOLDERS: opens a runtime, lists its plugins, computes, reloads and computes again.
 * Then it compares the state of its process with what that was before. It writes "right" to stderr,
 * or a line for each thing that is wrong; then the exit code is 1.
 */
#define _GNU_SOURCE
#include <attnrt/attnrt.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HEADS = 2, ROWS = 5, DIM = 16, ELEMENTS = ROWS * HEADS * DIM, CANARIES = 64 };

static int report; /* a descriptor of its own: a plugin may close stderr */
static int faults;

static void complain(const char* what, const char* why) {
  dprintf(report, "host: %s: %s\n", what, why);
  ++faults;
}

/* ---- The state of the process, as texts ---- */

static void print_floating_point(FILE* to) {
  fprintf(to, "%d ", fegetround());
#if defined(__SSE__)
  fprintf(to, "%x", __builtin_ia32_stmxcsr() & ~0x3FU); /* without the exceptions that were seen */
#endif
}

static void print_handlers(FILE* to) {
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction action;
    if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
      fprintf(to, "%d ", number);
  }
}

static void print_mask(FILE* to) {
  sigset_t mask;
  sigprocmask(SIG_SETMASK, NULL, &mask);
  for (int number = 1; number < NSIG; ++number) {
    if (sigismember(&mask, number) == 1) fprintf(to, "%d ", number);
  }
}

static void print_limits(FILE* to) {
  for (int which = 0; which < RLIM_NLIMITS; ++which) {
    struct rlimit limit = {0, 0};
    getrlimit(which, &limit);
    fprintf(to, "%d:%jd/%jd ", which, (intmax_t)limit.rlim_cur, (intmax_t)limit.rlim_max);
  }
}

static void print_directory(FILE* to) {
  char path[4096];
  fputs(getcwd(path, sizeof path) != NULL ? path : "none", to);
}

static void print_umask(FILE* to) {
  const mode_t mask = umask(0);
  umask(mask);
  fprintf(to, "%o", mask);
}

static void print_environment(FILE* to) {
  for (char** entry = environ; *entry != NULL; ++entry) fprintf(to, "%s\n", *entry);
}

static void print_descriptors(FILE* to) {
  for (int number = 0; number < 1024; ++number) {
    if (fcntl(number, F_GETFD) >= 0) fprintf(to, "%d ", number);
  }
}

static void print_threads(FILE* to) {
  DIR* tasks = opendir("/proc/self/task");
  int count = 0;
  while (tasks != NULL && readdir(tasks) != NULL) ++count;
  if (tasks != NULL) closedir(tasks);
  fprintf(to, "%d", count - 2); /* without . and .. */
}

static void print_children(FILE* to) {
  const pid_t child = waitpid(-1, NULL, WNOHANG);
  fputs(child < 0 && errno == ECHILD ? "none" : "some", to);
}

static void print_session(FILE* to) { fprintf(to, "%d/%d", (int)getsid(0), (int)getpgid(0)); }

static void print_priority(FILE* to) { fprintf(to, "%d", getpriority(PRIO_PROCESS, 0)); }

static void print_timer(FILE* to) {
  struct itimerval timer;
  getitimer(ITIMER_REAL, &timer);
  fputs(timer.it_value.tv_sec == 0 && timer.it_value.tv_usec == 0 ? "off" : "on", to);
}

static void print_writable_code(FILE* to) {
  char line[4200], permissions[5];
  FILE* maps = fopen("/proc/self/maps", "re");
  while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
    if (sscanf(line, "%*s %4s", permissions) == 1 && strncmp(permissions, "rwx", 3) == 0)
      fputs(line, to);
  }
  if (maps != NULL) fclose(maps);
}

static const struct {
  const char* name;
  void (*print)(FILE* to);
} kState[] = {{"floating point", print_floating_point},
              {"signal handlers", print_handlers},
              {"signal mask", print_mask},
              {"limits", print_limits},
              {"working directory", print_directory},
              {"umask", print_umask},
              {"environment", print_environment},
              {"descriptors", print_descriptors},
              {"threads", print_threads},
              {"children", print_children},
              {"session", print_session},
              {"priority", print_priority},
              {"timer", print_timer},
              {"writable code", print_writable_code}};
enum { ITEMS = sizeof kState / sizeof kState[0] };

static void look(char* texts[ITEMS]) {
  for (int n = 0; n < ITEMS; ++n) {
    size_t length = 0;
    FILE* to = open_memstream(&texts[n], &length);
    if (to == NULL) abort();
    kState[n].print(to);
    fclose(to);
  }
}

/* ---- The tensors ---- */

static float number(int64_t n) { return (float)(n * 7919 % 31) / 31.0F - 0.5F; }

static int64_t at(int64_t row, int64_t head, int64_t column) {
  return (row * HEADS + head) * DIM + column;
}

/* The memory ends where memory that may not be touched begins. */
static float* guarded(int64_t seed) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = ELEMENTS * sizeof(float);
  char* memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory + page, page, PROT_NONE) != 0) abort();
  float* numbers = (float*)(void*)(memory + page - bytes);
  for (int64_t n = 0; n < ELEMENTS; ++n) numbers[n] = number(n + seed);
  return numbers;
}

static attnrt_tensor tensor(float* data) {
  return (attnrt_tensor){.data = data,
                         .dtype = {ATTNRT_DTYPE_FLOAT, 32, 1},
                         .ndim = 4,
                         .shape = {1, ROWS, HEADS, DIM},
                         .stride = {ELEMENTS, HEADS * DIM, DIM, 1}};
}

static double expected(const float* q, const float* k, const float* v, int64_t row, int64_t head,
                       int64_t column) {
  double total = 0, sum = 0;
  for (int64_t key = 0; key < ROWS; ++key) {
    double score = 0;
    for (int64_t n = 0; n < DIM; ++n) score += (double)q[at(row, head, n)] * k[at(key, head, n)];
    total += exp(score / sqrt(DIM));
    sum += exp(score / sqrt(DIM)) * v[at(key, head, column)];
  }
  return sum / total;
}

/* Returns what is wrong with the call or its result; NULL: nothing. */
static const char* fault_of_attention(attnrt_runtime* runtime) {
  _Alignas(64) static float out[ELEMENTS + CANARIES];
  static attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_problem problem = ATTNRT_PROBLEM_INIT;
  float *q = guarded(0), *k = guarded(1), *v = guarded(2);
  attnrt_args args = {.struct_size = (int32_t)sizeof args};
  args.q = tensor(q), args.k = tensor(k), args.v = tensor(v), args.out = tensor(out);
  for (int64_t n = 0; n < ELEMENTS + CANARIES; ++n) out[n] = number(n + 3);
  problem.seq_q = problem.seq_kv = ROWS;
  problem.heads_q = problem.heads_kv = HEADS;
  problem.head_dim = problem.head_dim_v = DIM;
  if (attnrt_attention(runtime, &problem, &args, NULL, &error) != ATTNRT_OK) return error.message;
  for (int64_t n = 0; n < ELEMENTS; ++n) {
    if (q[n] != number(n) || k[n] != number(n + 1) || v[n] != number(n + 2))
      return "an input was written to";
    const double right = expected(q, k, v, n / (HEADS * DIM), n / DIM % HEADS, n % DIM);
    if (!(fabs(out[n] - right) < 1e-5)) return "a wrong result";
  }
  for (int64_t n = ELEMENTS; n < ELEMENTS + CANARIES; ++n) {
    if (out[n] != number(n + 3)) return "wrote past the end of out";
  }
  return NULL;
}

static void compute(attnrt_runtime* runtime) {
  const char* fault = fault_of_attention(runtime);
  if (fault != NULL) complain("attention", fault);
}

static void use(const char* policy, const char* folders) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_runtime_options options = ATTNRT_RUNTIME_OPTIONS_INIT;
  attnrt_runtime* runtime = NULL;
  char* text = NULL;
  options.policy_path = policy;
  options.plugin_path = folders;
  options.thread_count = 2;
  if (attnrt_runtime_open(&options, &runtime, &error) != ATTNRT_OK) {
    complain("open", error.message);
    return;
  }
  compute(runtime);
  if (attnrt_plugins(runtime, ATTNRT_TEXT, &text, &error) != ATTNRT_OK)
    complain("plugins", error.message);
  attnrt_text_free(text);
  if (attnrt_runtime_reload(runtime, &error) != ATTNRT_OK) complain("reload", error.message);
  compute(runtime);
  attnrt_runtime_close(runtime);
}

int main(int count, char** words) {
  if (count != 3) return 2;
  report = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
  char *before[ITEMS], *after[ITEMS];
  look(before);
  use(words[1], words[2]);
  look(after);
  for (int n = 0; n < ITEMS; ++n) {
    if (strcmp(before[n], after[n]) != 0) complain(kState[n].name, "changed");
  }
  if (faults == 0) dprintf(report, "right\n");
  return faults == 0 ? 0 : 1;
}
