/* tests/fakes/device_queue.c: the memory, streams, events and captured graphs of the fake device */
#define _POSIX_C_SOURCE 200809L
#include "device_queue.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static block* blocks;
static work* queue;  /* of all streams; the oldest comes first */
static work* graphs; /* of all captured graphs */
static void* last_destroyed;
static _Thread_local char this_thread;

static void complete(void);
static int64_t replay(uint64_t capture_id, void* stream);
fake_counters fake_count = {.complete = complete, .replay = replay, .absent = FAKE_ABSENT};

void device_lock(void) { pthread_mutex_lock(&mutex); }
void device_unlock(void) { pthread_mutex_unlock(&mutex); }

void* device_stream(void* handle) {
  return handle == fake_stream_per_thread ? &this_thread : handle;
}

void* device_new_stream(void) {
  void* handle = last_destroyed != NULL ? last_destroyed : malloc(1); /* for a unique address */
  last_destroyed = NULL;
  return handle;
}

/* Returns an address that stays unique: it is never freed, and kept in a list. */
static void* new_name(void) {
  static void** names;
  void** name = malloc(sizeof *name);
  if (name == NULL) abort();
  *name = names;
  names = name;
  return name;
}

void device_destroy_stream(void* handle) {
  void* nameless = NULL;
  for (work* w = queue; w != NULL; w = w->next) {
    if (w->stream != handle) continue;
    if (nameless == NULL) nameless = new_name();
    w->stream = nameless;
    if (w->kind == WORK_RECORD) w->event->stream = nameless;
  }
  free(last_destroyed);
  last_destroyed = handle;
}

block* device_block(const void* pointer, int64_t bytes, int pinned) {
  for (block* b = blocks; b != NULL; b = b->next) {
    const char* p = pointer;
    if (b->pinned == pinned && p >= b->data && p + bytes <= b->data + b->bytes) return b;
  }
  return NULL;
}

int64_t device_serial(const void* pointer, int64_t bytes) {
  const block* b = pointer != NULL ? device_block(pointer, bytes, 0) : NULL;
  return b != NULL ? b->serial : 0;
}

attnrt_status device_allocate(int64_t bytes, int pinned, void** pointer, attnrt_error* error) {
  static int64_t serial;
  int64_t alive = 0;
  for (const block* b = blocks; b != NULL; b = b->next) alive += b->pinned ? 0 : b->bytes;
  if (!pinned && fake_count.memory_limit != 0 && alive + bytes > fake_count.memory_limit)
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "%lld bytes, and %lld are in use",
                       (long long)bytes, (long long)alive);
  block* b = malloc(sizeof *b);
  char* data = NULL;
  const size_t whole = bytes > 0 ? ((size_t)bytes + 255) / 256 * 256 : 256;
  if (b == NULL || (data = aligned_alloc(256, whole)) == NULL) {
    free(b);
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "%lld bytes", (long long)bytes);
  }
  memset(data, 0xFF, whole); /* NaN, so that a read of fresh memory shows */
  *b = (block){blocks, data, bytes, ++serial, pinned, 0};
  blocks = b;
  *pointer = data;
  return ATTNRT_OK;
}

static int is_inside(const block* b, const void* pointer) {
  const char* p = pointer;
  return p != NULL && p >= b->data && p < b->data + b->bytes;
}

/* Whether the work has a plan and tensors. */
static int is_call(const work* w) { return w->kind == WORK_ATTENTION || w->kind == WORK_SCHEDULE; }

static int uses(const work* w, const block* b) {
  if (w->kind == WORK_COPY) return is_inside(b, w->to) || is_inside(b, w->from);
  if (!is_call(w)) return 0;
  int used = is_inside(b, w->args.workspace) || is_inside(b, w->args.schedule);
#define ATTNRT_USES(name) used |= is_inside(b, w->args.name.data);
  ATTNRT_TENSORS(ATTNRT_USES)
#undef ATTNRT_USES
  return used;
}

void device_free(void* pointer, int pinned, void* stream) {
  block** at = &blocks;
  while (*at != NULL && ((*at)->data != pointer || (*at)->pinned != pinned)) at = &(*at)->next;
  if (*at == NULL) abort(); /* not allocated here, or freed twice */
  int in_flight = 0;
  for (const work* w = queue; w != NULL; w = w->next)
    in_flight |= uses(w, *at) && (pinned || w->stream != stream);
  fake_count.freed_in_flight += in_flight && !pinned;
  if (in_flight) device_finish_all();
  device_finish(stream, NULL, 0); /* so that what is queued there has used it */
  block* b = *at;
  *at = b->next;
  free(b->data);
  free(b);
}

static void drop_event(event* e) {
  if (e->destroyed && e->references == 0) free(e);
}

static void do_work(work* w) {
  if (w->kind == WORK_STAMP) {
    (void)clock_gettime(CLOCK_MONOTONIC, w->stamp);
  } else if (w->kind == WORK_COPY) {
    if (FAKE_FAULT != FAULT_STREAM) memcpy(w->to, w->from, (size_t)w->bytes);
  } else if (w->kind == WORK_ATTENTION) {
    /* A real kernel clamps indices and reports nothing. */
    (void)fake_attend(&w->problem, &w->args, NULL);
  } else if (w->kind == WORK_SCHEDULE) {
    fake_fill_schedule(&w->problem, &w->args);
  } else if (w->kind == WORK_MERGE) {
    fake_merge(&w->merge);
    free((void*)w->merge.outs);
  } else {
    if (w->kind == WORK_RECORD && w->event->passed < w->record) w->event->passed = w->record;
    --w->event->references;
    drop_event(w->event);
  }
  free(w);
}

void device_finish(void* stream, event* until, int64_t record) {
  for (;;) {
    if (until != NULL && until->passed >= record) return;
    work** at = &queue;
    while (*at != NULL && (*at)->stream != stream) at = &(*at)->next;
    work* w = *at;
    if (w == NULL) return;
    *at = w->next;
    if (w->kind == WORK_WAIT && w->event->passed < w->record)
      device_finish(w->event->stream, w->event, w->record);
    do_work(w);
  }
}

void device_finish_all(void) {
  while (queue != NULL) device_finish(queue->stream, NULL, 0);
}

static void complete(void) {
  device_lock();
  device_finish_all();
  device_unlock();
}

static void append(work** list, work* w) {
  while (*list != NULL) list = &(*list)->next;
  *list = w;
}

int device_captures(void* stream) {
  return fake_count.capturing != 0 && stream == fake_count.captured_stream;
}

void device_not_captured(void* stream) {
  if (device_captures(stream)) ++fake_count.invalidated_captures;
}

void device_enqueue(work* w) {
  if (!device_captures(w->stream)) {
    if (w->kind == WORK_RECORD || w->kind == WORK_WAIT) ++w->event->references;
    append(&queue, w);
    return;
  }
  if (!is_call(w) && w->kind != WORK_COPY) ++fake_count.invalidated_captures;
  w->capture_id = fake_count.capture_id;
  block* workspace = device_block(w->args.workspace, w->args.workspace_bytes, 0);
  if (workspace != NULL) workspace->captured = 1;
  append(&graphs, w);
}

static int64_t replay(uint64_t capture_id, void* stream) {
  int64_t nodes = 0;
  device_lock();
  for (const work* node = graphs; node != NULL; node = node->next) {
    if (node->capture_id != capture_id) continue;
    ++nodes;
    if (is_call(node) &&
        (node->plan == NULL ||
         device_serial(node->args.workspace, node->args.workspace_bytes) !=
             node->workspace_serial ||
         device_serial(node->args.schedule, node->args.schedule_bytes) != node->schedule_serial)) {
      ++fake_count.replays_of_freed;
      continue;
    }
    work* w = malloc(sizeof *w);
    if (w == NULL) abort();
    *w = *node;
    w->next = NULL, w->stream = stream, w->capture_id = 0;
    device_enqueue(w);
  }
  device_unlock();
  return nodes;
}

/* Whether a run that is added to the stream now would begin after w, which is in the queue. */
static int is_ordered_after(const work* w, void* stream) {
  if (w->stream == stream) return 1;
  for (const work* r = w->next; r != NULL; r = r->next) {
    if (r->kind != WORK_RECORD || r->stream != w->stream) continue;
    for (const work* wait = r->next; wait != NULL; wait = wait->next) {
      if (wait->kind == WORK_WAIT && wait->stream == stream && wait->event == r->event &&
          wait->record >= r->record)
        return 1;
    }
  }
  return 0;
}

void device_check_run(const work* run) {
  for (const work* w = queue; w != NULL; w = w->next) {
    if (!is_call(w) || w->plan != run->plan || run->plan == NULL) continue;
    if (!is_ordered_after(w, run->stream)) ++fake_count.overlapping_runs;
  }
  const block* workspace = device_block(run->args.workspace, run->args.workspace_bytes, 0);
  if (workspace != NULL && workspace->captured && !device_captures(run->stream))
    ++fake_count.runs_of_captured;
}

void device_check_destroy(const void* plan) {
  for (work* w = queue; w != NULL; w = w->next) {
    if (w->plan != plan) continue;
    ++fake_count.destroyed_in_flight;
    w->plan = NULL;
  }
  for (work* node = graphs; node != NULL; node = node->next) {
    if (node->plan == plan) node->plan = NULL;
  }
}
