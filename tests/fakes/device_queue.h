/* tests/fakes/device_queue.h: the memory, streams, events and captured graphs of the fake device
 *
 * Work is done late: when its stream is synchronized, or something that waits for it is. REQUIRES:
 * the caller holds the lock.
 */
#ifndef FAKES_DEVICE_QUEUE_H
#define FAKES_DEVICE_QUEUE_H

#include <time.h>

#include "fake.h"

typedef struct block {
  struct block* next;
  char* data;
  int64_t bytes;
  int64_t serial; /* tells apart blocks that had the same address one after the other */
  int pinned;
  int captured; /* a captured graph has it as its workspace */
} block;

typedef struct event {
  void* stream;       /* where it was recorded last */
  int64_t recorded;   /* how often */
  int64_t passed;     /* up to which of these records the device is */
  int64_t references; /* in the queue */
  int destroyed;
} event;

typedef enum work_kind {
  WORK_ATTENTION,
  WORK_SCHEDULE,
  WORK_MERGE,
  WORK_COPY,
  WORK_STAMP,
  WORK_RECORD,
  WORK_WAIT
} work_kind;

typedef struct work {
  struct work* next;
  work_kind kind;
  void* stream;
  struct timespec* stamp;
  event* event;
  int64_t record; /* which record of the event */
  void* to;
  const void* from;
  int64_t bytes;
  const void* plan;
  int64_t workspace_serial, schedule_serial;
  attnrt_problem problem;
  attnrt_args args;
  fake_merge_call merge; /* outs is an array of its own, with lses behind them */
  uint64_t capture_id;   /* 0: not in a graph */
} work;

void device_lock(void);
void device_unlock(void);

/* The stream that a handle means to this thread: fake_stream_per_thread means another one to each
 * thread, as cudaStreamPerThread does. */
void* device_stream(void* handle);
void* device_new_stream(void);
/* Its work goes on without a handle. The next stream gets the same handle. */
void device_destroy_stream(void* handle);

block* device_block(const void* pointer, int64_t bytes, int pinned);
/* The serial of the device's block in which the memory lies; 0: it lies in none. */
int64_t device_serial(const void* pointer, int64_t bytes);
attnrt_status device_allocate(int64_t bytes, int pinned, void** pointer, attnrt_error* error);
/* Counts a free of memory that queued work of another stream uses. */
void device_free(void* pointer, int pinned, void* stream);

/* Adds work to its stream, or to the graph that is being captured there. */
void device_enqueue(work* w);
/* Does the work of a stream, up to a record of an event (NULL: all of it). */
void device_finish(void* stream, event* until, int64_t record);
void device_finish_all(void);

/* Whether a graph is being captured on the stream; such a stream must not be asked or waited for.
 */
int device_captures(void* stream);
/* Counts a call that a capture of this stream forbids. */
void device_not_captured(void* stream);

/* Counts a run or build that is not ordered after the plan's run or build before, and one of a
 * captured workspace. */
void device_check_run(const work* run);
/* Counts the destruction of a plan whose run is in the queue. */
void device_check_destroy(const void* plan);

#endif
