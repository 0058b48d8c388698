/* tests/fakes/device.c: a fake device in host memory; work is done when its stream is synchronized
 *
 * It detects what would fail on a real device: host pointers in a kernel's arguments, copies of
 * unpinned memory, buffers that are read before the stream is synchronized, and memory that is
 * freed twice or never.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake.h"

typedef struct block {
  struct block* next;
  char* data;
  int64_t bytes;
  int pinned;
} block;

typedef struct work {
  struct work* next;
  void* stream;
  struct timespec* stamp; /* set if this records a timestamp */
  void* to;               /* set if this is a copy; both NULL: an attention */
  const void* from;
  int64_t bytes;
  attnrt_problem problem;
  attnrt_args args;
} work;

fake_counters fake_count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static block* blocks;
static work* queue; /* of all streams; the oldest comes first */

static block* block_of(const void* pointer, int64_t bytes, int pinned) {
  for (block* b = blocks; b != NULL; b = b->next) {
    const char* p = pointer;
    if (b->pinned == pinned && p >= b->data && p + bytes <= b->data + b->bytes) return b;
  }
  return NULL;
}

static attnrt_status allocate_block(int64_t bytes, int pinned, void** pointer,
                                    attnrt_error* error) {
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
  *b = (block){blocks, data, bytes, pinned};
  blocks = b;
  *pointer = data;
  return ATTNRT_OK;
}

static attnrt_status finish(void* stream, int all) {
  attnrt_status status = ATTNRT_OK;
  for (work** at = &queue; *at != NULL;) {
    work* w = *at;
    if (!all && w->stream != stream) {
      at = &w->next;
      continue;
    }
    *at = w->next;
    if (w->stamp != NULL) {
      (void)clock_gettime(CLOCK_MONOTONIC, w->stamp);
    } else if (w->to != NULL) {
      if (FAKE_FAULT != FAULT_STREAM) memcpy(w->to, w->from, (size_t)w->bytes);
    } else {
      attnrt_error error = ATTNRT_ERROR_INIT;
      if (fake_attend(&w->problem, &w->args, &error) != ATTNRT_OK)
        status = ATTNRT_OK; /* a real kernel clamps indices and reports nothing */
    }
    free(w);
  }
  return status;
}

static void enqueue(work* w) {
  work** end = &queue;
  while (*end != NULL) end = &(*end)->next;
  *end = w;
}

static attnrt_status device_allocate(void* instance, int32_t device_id, int64_t bytes,
                                     void** pointer, attnrt_error* error) {
  (void)instance;
  if (device_id < 0 || device_id >= FAKE_DEVICE_COUNT)
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "device %d", device_id);
  pthread_mutex_lock(&mutex);
  const attnrt_status status = allocate_block(bytes, 0, pointer, error);
  if (status == ATTNRT_OK) ++fake_count.allocations, ++fake_count.allocated;
  pthread_mutex_unlock(&mutex);
  return status;
}

static attnrt_status pinned_allocate(void* instance, int32_t device_id, int64_t bytes,
                                     void** pointer, attnrt_error* error) {
  (void)instance, (void)device_id;
  pthread_mutex_lock(&mutex);
  const attnrt_status status = allocate_block(bytes, 1, pointer, error);
  if (status == ATTNRT_OK) ++fake_count.pinned_allocations, ++fake_count.pinned;
  pthread_mutex_unlock(&mutex);
  return status;
}

static void free_block(void* pointer, int pinned) {
  if (pointer == NULL) return;
  pthread_mutex_lock(&mutex);
  finish(NULL, 1); /* as on a real device, freeing waits for all work */
  block** at = &blocks;
  while (*at != NULL && ((*at)->data != pointer || (*at)->pinned != pinned)) at = &(*at)->next;
  if (*at == NULL) abort(); /* not allocated here, or freed twice */
  block* b = *at;
  *at = b->next;
  free(b->data);
  free(b);
  --*(pinned ? &fake_count.pinned : &fake_count.allocated);
  pthread_mutex_unlock(&mutex);
}

static void device_free(void* instance, int32_t device_id, void* pointer) {
  (void)instance, (void)device_id;
  free_block(pointer, 0);
}

static void pinned_free(void* instance, int32_t device_id, void* pointer) {
  (void)instance, (void)device_id;
  free_block(pointer, 1);
}

static attnrt_status device_copy(void* instance, int32_t device_id, void* to, const void* from,
                                 int64_t bytes, int32_t direction, void* stream,
                                 attnrt_error* error) {
  (void)instance, (void)device_id;
  if (bytes == 0) return ATTNRT_OK;
  pthread_mutex_lock(&mutex);
  const int to_pinned = direction == ATTNRT_COPY_TO_HOST,
            from_pinned = direction == ATTNRT_COPY_TO_DEVICE;
  work* w = NULL;
  attnrt_status status = ATTNRT_OK;
  if (block_of(to, bytes, to_pinned) == NULL || block_of(from, bytes, from_pinned) == NULL) {
    status = attnrt_fail(error, ATTNRT_INTERNAL, "copy %d of %lld bytes: wrong kind of memory",
                         direction, (long long)bytes);
  } else if ((w = calloc(1, sizeof *w)) == NULL) {
    status = attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a copy");
  } else {
    w->stream = stream, w->to = to, w->from = from, w->bytes = bytes;
    enqueue(w);
    ++*(to_pinned     ? &fake_count.copies_to_host
        : from_pinned ? &fake_count.copies_to_device
                      : &fake_count.copies_on_device);
  }
  pthread_mutex_unlock(&mutex);
  return status;
}

static attnrt_status device_stream_create(void* instance, int32_t device_id, void** stream,
                                          attnrt_error* error) {
  (void)instance, (void)device_id;
  *stream = malloc(1); /* for a unique address */
  if (*stream == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a stream");
  pthread_mutex_lock(&mutex);
  ++fake_count.streams_created, ++fake_count.streams;
  pthread_mutex_unlock(&mutex);
  return ATTNRT_OK;
}

static void device_stream_destroy(void* instance, int32_t device_id, void* stream) {
  (void)instance, (void)device_id;
  pthread_mutex_lock(&mutex);
  finish(stream, 0);
  --fake_count.streams;
  pthread_mutex_unlock(&mutex);
  free(stream);
}

static attnrt_status device_stream_synchronize(void* instance, int32_t device_id, void* stream,
                                               attnrt_error* error) {
  (void)instance, (void)device_id, (void)error;
  pthread_mutex_lock(&mutex);
  ++fake_count.synchronizations;
  const attnrt_status status = finish(stream, 0);
  pthread_mutex_unlock(&mutex);
  return status;
}

static attnrt_status device_is_capturing(void* instance, int32_t device_id, void* stream,
                                         int32_t* capturing, attnrt_error* error) {
  (void)instance, (void)device_id, (void)stream, (void)error;
  *capturing = fake_count.capturing != 0;
  return ATTNRT_OK;
}

const attnrt_memory fake_memory = {
    sizeof(attnrt_memory), 0,
    device_allocate,       device_free,
    pinned_allocate,       pinned_free,
    device_copy,           device_stream_create,
    device_stream_destroy, device_stream_synchronize,
    device_is_capturing,
};

static attnrt_status timestamp_create(void* instance, int32_t device_id, void** timestamp,
                                      attnrt_error* error) {
  (void)instance, (void)device_id;
  *timestamp = calloc(1, sizeof(struct timespec));
  return *timestamp != NULL ? ATTNRT_OK : attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a timestamp");
}

static void timestamp_destroy(void* instance, int32_t device_id, void* timestamp) {
  (void)instance, (void)device_id;
  pthread_mutex_lock(&mutex);
  finish(NULL, 1);
  pthread_mutex_unlock(&mutex);
  free(timestamp);
}

static attnrt_status timestamp_record(void* instance, int32_t device_id, void* timestamp,
                                      void* stream, attnrt_error* error) {
  (void)instance, (void)device_id;
  work* w = calloc(1, sizeof *w);
  if (w == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a timestamp");
  w->stream = stream, w->stamp = timestamp;
  pthread_mutex_lock(&mutex);
  enqueue(w);
  pthread_mutex_unlock(&mutex);
  return ATTNRT_OK;
}

static attnrt_status timestamps_elapsed(void* instance, int32_t device_id, void* from, void* to,
                                        double* seconds, attnrt_error* error) {
  (void)instance, (void)device_id, (void)error;
  pthread_mutex_lock(&mutex);
  finish(NULL, 1);
  pthread_mutex_unlock(&mutex);
  const struct timespec *a = from, *b = to;
  *seconds = (double)(b->tv_sec - a->tv_sec) + 1e-9 * (double)(b->tv_nsec - a->tv_nsec);
  if (FAKE_FAULT == FAULT_TIMING) *seconds = -*seconds - 1e-9;
  return ATTNRT_OK;
}

const attnrt_timing fake_timing = {
    sizeof(attnrt_timing), 0, timestamp_create, timestamp_destroy, timestamp_record,
    timestamps_elapsed,
};

/* The bytes from the first element to the end of the last one. */
static int64_t span_of(const attnrt_tensor* t) {
  int64_t last = 0;
  for (int32_t d = 0; d < t->ndim; ++d) {
    if (t->shape[d] == 0) return 0;
    last += (t->shape[d] - 1) * t->stride[d];
  }
  return (last + 1) * t->dtype.bits / 8;
}

attnrt_status fake_enqueue(const attnrt_problem* problem, const attnrt_args* args,
                           attnrt_error* error) {
  static const char* const names[] = {
      "q",     "k",          "v",         "out",        "mask",      "lse", "alibi_slopes",
      "sinks", "kv_lengths", "offsets_q", "offsets_kv", "page_table"};
  const attnrt_tensor* tensors = &args->q;
  work* w = calloc(1, sizeof *w);
  if (w == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a launch");
  pthread_mutex_lock(&mutex);
  for (int n = 0; n < 12; ++n) {
    if (tensors[n].data == NULL || block_of(tensors[n].data, span_of(&tensors[n]), 0) != NULL)
      continue;
    pthread_mutex_unlock(&mutex);
    free(w);
    return attnrt_fail(error, ATTNRT_INTERNAL, "%s is not in this device's memory", names[n]);
  }
  if (args->workspace_bytes > 0 && block_of(args->workspace, args->workspace_bytes, 0) == NULL) {
    pthread_mutex_unlock(&mutex);
    free(w);
    return attnrt_fail(error, ATTNRT_INTERNAL, "the workspace is not in this device's memory");
  }
  w->stream = args->stream, w->problem = *problem, w->args = *args;
  enqueue(w);
  pthread_mutex_unlock(&mutex);
  return ATTNRT_OK;
}

void fake_device_report(const attnrt_host* host) {
  char text[256];
  (void)snprintf(text, sizeof text,
                 "allocations %lld (%lld alive), pinned %lld (%lld alive), copies %lld/%lld/%lld, "
                 "streams %lld",
                 (long long)fake_count.allocations, (long long)fake_count.allocated,
                 (long long)fake_count.pinned_allocations, (long long)fake_count.pinned,
                 (long long)fake_count.copies_to_device, (long long)fake_count.copies_to_host,
                 (long long)fake_count.copies_on_device, (long long)fake_count.streams_created);
  host->log(host->self, ATTNRT_LOG_INFO, text);
}
