/* tests/fakes/schedule.c: schedules, each of which holds the rows of every sequence */
#include <string.h>

#include "fake.h"

enum { BUILT = 0x5EED };

typedef struct schedule {
  int64_t built;         /* BUILT, once it is */
  fake_rows sequences[]; /* as many as the problem's batch */
} schedule;

int64_t fake_schedule_bytes(const attnrt_problem* problem) {
  return (int64_t)sizeof(schedule) + problem->batch * (int64_t)sizeof(fake_rows);
}

void fake_fill_schedule(const attnrt_problem* problem, const attnrt_args* args) {
  schedule* s = args->schedule;
  if (FAKE_FAULT == FAULT_SCHEDULE_STALE && s->built == BUILT) return;
  const int64_t batch = problem->varlen ? args->offsets_q.shape[0] - 1 : args->q.shape[0];
  for (int64_t b = 0; b < batch; ++b) {
    fake_rows rows;
    if (fake_find_rows(problem, args, b, &rows, NULL) != ATTNRT_OK) memset(&rows, 0, sizeof rows);
    s->sequences[b] = rows;
  }
  s->built = BUILT;
  if (FAKE_FAULT == FAULT_SCHEDULE_END) ((volatile char*)s)[args->schedule_bytes] = 1;
}

const fake_rows* fake_scheduled(const attnrt_args* args, int64_t b) {
  const schedule* s = args->schedule;
  return s != NULL ? &s->sequences[b] : NULL;
}
