/* tests/fakes/device.c: a fake device in host memory; work is done when its stream is synchronized
 *
 * It detects what would fail on a real device: host pointers in a kernel's arguments, copies of
 * unpinned memory, buffers that are read before the stream is synchronized, memory that is freed
 * twice or never; and memory and plans that are freed, destroyed or used again too early.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_queue.h"

static attnrt_status memory_allocate(void* instance, int32_t device_id, int64_t bytes, void* stream,
                                     void** pointer, attnrt_error* error) {
  (void)instance;
  if (device_id < 0 || device_id >= FAKE_DEVICE_COUNT)
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "device %d", device_id);
  device_lock();
  device_not_captured(device_stream(stream)); /* it would become a part of the graph */
  const attnrt_status status = device_allocate(bytes, 0, pointer, error);
  if (status == ATTNRT_OK) ++fake_count.allocations, ++fake_count.allocated;
  fake_count.last_allocation_stream = stream;
  device_unlock();
  return status;
}

static void memory_free(void* instance, int32_t device_id, void* pointer, void* stream) {
  (void)instance, (void)device_id;
  if (pointer == NULL) return;
  device_lock();
  device_not_captured(device_stream(stream));
  device_free(pointer, 0, device_stream(stream));
  --fake_count.allocated;
  device_unlock();
}

static attnrt_status memory_allocate_pinned(void* instance, int32_t device_id, int64_t bytes,
                                            void** pointer, attnrt_error* error) {
  (void)instance, (void)device_id;
  device_lock();
  const attnrt_status status = device_allocate(bytes, 1, pointer, error);
  if (status == ATTNRT_OK) ++fake_count.pinned_allocations, ++fake_count.pinned;
  device_unlock();
  return status;
}

static void memory_free_pinned(void* instance, int32_t device_id, void* pointer) {
  (void)instance, (void)device_id;
  if (pointer == NULL) return;
  device_lock();
  device_free(pointer, 1, NULL);
  --fake_count.pinned;
  device_unlock();
}

static attnrt_status memory_copy(void* instance, int32_t device_id, void* to, const void* from,
                                 int64_t bytes, int32_t direction, void* stream,
                                 attnrt_error* error) {
  (void)instance, (void)device_id;
  if (bytes == 0) return ATTNRT_OK;
  device_lock();
  const int to_pinned = direction == ATTNRT_COPY_TO_HOST,
            from_pinned = direction == ATTNRT_COPY_TO_DEVICE;
  work* w = NULL;
  attnrt_status status = ATTNRT_OK;
  if (device_block(to, bytes, to_pinned) == NULL ||
      device_block(from, bytes, from_pinned) == NULL) {
    status = attnrt_fail(error, ATTNRT_INTERNAL, "copy %d of %lld bytes: wrong kind of memory",
                         direction, (long long)bytes);
  } else if ((w = calloc(1, sizeof *w)) == NULL) {
    status = attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a copy");
  } else {
    w->kind = WORK_COPY, w->stream = device_stream(stream);
    w->to = to, w->from = from, w->bytes = bytes;
    device_enqueue(w);
    ++*(to_pinned     ? &fake_count.copies_to_host
        : from_pinned ? &fake_count.copies_to_device
                      : &fake_count.copies_on_device);
  }
  device_unlock();
  return status;
}

static attnrt_status memory_stream_create(void* instance, int32_t device_id, void** stream,
                                          attnrt_error* error) {
  (void)instance, (void)device_id;
  device_lock();
  *stream = device_new_stream();
  if (*stream != NULL) ++fake_count.streams_created, ++fake_count.streams;
  device_unlock();
  return *stream != NULL ? ATTNRT_OK : attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a stream");
}

static void memory_stream_destroy(void* instance, int32_t device_id, void* stream) {
  (void)instance, (void)device_id;
  device_lock();
  device_destroy_stream(stream);
  --fake_count.streams;
  device_unlock();
}

static attnrt_status memory_stream_synchronize(void* instance, int32_t device_id, void* stream,
                                               attnrt_error* error) {
  (void)instance, (void)device_id, (void)error;
  device_lock();
  device_not_captured(device_stream(stream));
  ++fake_count.synchronizations;
  device_finish(device_stream(stream), NULL, 0);
  device_unlock();
  return ATTNRT_OK;
}

static attnrt_status memory_is_capturing(void* instance, int32_t device_id, void* stream,
                                         int32_t* capturing, uint64_t* capture_id,
                                         attnrt_error* error) {
  (void)instance, (void)device_id;
  if (fake_count.capturing_status != ATTNRT_OK)
    return attnrt_fail(error, (attnrt_status)fake_count.capturing_status,
                       "is_capturing was told to fail");
  device_lock();
  *capturing = device_captures(device_stream(stream));
  *capture_id = *capturing ? fake_count.capture_id : 0;
  device_unlock();
  return ATTNRT_OK;
}

static attnrt_status memory_event_create(void* instance, int32_t device_id, void** made,
                                         attnrt_error* error) {
  (void)instance, (void)device_id;
  *made = calloc(1, sizeof(event));
  if (*made == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "an event");
  device_lock();
  ++fake_count.events;
  device_unlock();
  return ATTNRT_OK;
}

static attnrt_status add_event(work_kind kind, event* e, void* stream, attnrt_error* error) {
  work* w = calloc(1, sizeof *w);
  if (w == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "an event");
  device_lock();
  w->kind = kind, w->stream = device_stream(stream), w->event = e;
  if (kind == WORK_RECORD) e->stream = w->stream, ++e->recorded;
  w->record = e->recorded;
  device_enqueue(w);
  device_unlock();
  return ATTNRT_OK;
}

static attnrt_status memory_event_record(void* instance, int32_t device_id, void* recorded,
                                         void* stream, attnrt_error* error) {
  (void)instance, (void)device_id;
  if (fake_count.record_status != ATTNRT_OK)
    return attnrt_fail(error, (attnrt_status)fake_count.record_status,
                       "event_record was told to fail");
  return add_event(WORK_RECORD, recorded, stream, error);
}

static attnrt_status memory_stream_wait_event(void* instance, int32_t device_id, void* stream,
                                              void* waited, attnrt_error* error) {
  (void)instance, (void)device_id;
  device_lock();
  ++fake_count.stream_waits;
  device_unlock();
  return add_event(WORK_WAIT, waited, stream, error);
}

static attnrt_status memory_event_query(void* instance, int32_t device_id, void* asked,
                                        int32_t* passed, attnrt_error* error) {
  (void)instance, (void)device_id, (void)error;
  const event* e = asked;
  device_lock();
  *passed = e->passed >= e->recorded;
  device_unlock();
  return ATTNRT_OK;
}

static attnrt_status memory_event_synchronize(void* instance, int32_t device_id, void* waited,
                                              attnrt_error* error) {
  (void)instance, (void)device_id, (void)error;
  event* e = waited;
  device_lock();
  ++fake_count.event_synchronizations;
  device_finish(e->stream, e, e->recorded);
  device_unlock();
  return ATTNRT_OK;
}

static void memory_event_destroy(void* instance, int32_t device_id, void* destroyed) {
  (void)instance, (void)device_id;
  event* e = destroyed;
  if (e == NULL) return;
  device_lock();
  --fake_count.events;
  e->destroyed = 1;
  const int unused = e->references == 0;
  device_unlock();
  if (unused) free(e); /* otherwise the queue frees it */
}

const attnrt_memory fake_memory = {
    sizeof(attnrt_memory),
    0,
    memory_allocate,
    memory_free,
    memory_allocate_pinned,
    memory_free_pinned,
    memory_copy,
    memory_stream_create,
    memory_stream_destroy,
    memory_stream_synchronize,
    memory_is_capturing,
    FAKE_FAULT == FAULT_NO_EVENTS ? NULL : memory_event_create,
    memory_event_record,
    memory_event_query,
    memory_event_synchronize,
    memory_event_destroy,
    memory_stream_wait_event,
};

static attnrt_status timestamp_create(void* instance, int32_t device_id, void** timestamp,
                                      attnrt_error* error) {
  (void)instance, (void)device_id;
  *timestamp = calloc(1, sizeof(struct timespec));
  return *timestamp != NULL ? ATTNRT_OK : attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a timestamp");
}

static void timestamp_destroy(void* instance, int32_t device_id, void* timestamp) {
  (void)instance, (void)device_id;
  device_lock();
  device_finish_all();
  device_unlock();
  free(timestamp);
}

static attnrt_status timestamp_record(void* instance, int32_t device_id, void* timestamp,
                                      void* stream, attnrt_error* error) {
  (void)instance, (void)device_id;
  work* w = calloc(1, sizeof *w);
  if (w == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a timestamp");
  w->kind = WORK_STAMP, w->stream = device_stream(stream), w->stamp = timestamp;
  device_lock();
  device_enqueue(w);
  device_unlock();
  return ATTNRT_OK;
}

static attnrt_status timestamps_elapsed(void* instance, int32_t device_id, void* from, void* to,
                                        double* seconds, attnrt_error* error) {
  (void)instance, (void)device_id, (void)error;
  device_lock();
  device_finish_all();
  device_unlock();
  const struct timespec *a = from, *b = to;
  *seconds = (double)(b->tv_sec - a->tv_sec) + 1e-9 * (double)(b->tv_nsec - a->tv_nsec);
  if (FAKE_FAULT == FAULT_TIMING) *seconds = -*seconds - 1e-9;
  return ATTNRT_OK;
}

const attnrt_timing fake_timing = {
    sizeof(attnrt_timing), 0, timestamp_create, timestamp_destroy, timestamp_record,
    timestamps_elapsed,
};

const attnrt_timing fake_timing_without_record = {
    sizeof(attnrt_timing), 0, timestamp_create, timestamp_destroy, NULL, timestamps_elapsed,
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

/* Returns the name of a tensor, workspace or schedule that is not in device memory; NULL: none is
 * elsewhere. */
static const char* misplaced(const attnrt_args* args) {
#define ATTNRT_IS_HERE(name)                                                                     \
  if (args->name.data != NULL && device_block(args->name.data, span_of(&args->name), 0) == NULL) \
    return #name;
  ATTNRT_TENSORS(ATTNRT_IS_HERE)
#undef ATTNRT_IS_HERE
  if (args->workspace_bytes > 0 && device_block(args->workspace, args->workspace_bytes, 0) == NULL)
    return "the workspace";
  if (args->schedule_bytes > 0 && device_block(args->schedule, args->schedule_bytes, 0) == NULL)
    return "the schedule";
  return NULL;
}

static attnrt_status enqueue_call(work_kind kind, const attnrt_problem* problem,
                                  const attnrt_args* args, const void* plan, attnrt_error* error) {
  work* w = calloc(1, sizeof *w);
  if (w == NULL) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a launch");
  device_lock();
  const char* elsewhere = misplaced(args);
  if (elsewhere != NULL) {
    device_unlock();
    free(w);
    return attnrt_fail(error, ATTNRT_INTERNAL, "%s is not in this device's memory", elsewhere);
  }
  w->kind = kind, w->stream = device_stream(args->stream), w->plan = plan;
  w->problem = *problem, w->args = *args;
  w->workspace_serial = device_serial(args->workspace, args->workspace_bytes);
  w->schedule_serial = device_serial(args->schedule, args->schedule_bytes);
  device_check_run(w);
  device_enqueue(w);
  device_unlock();
  return ATTNRT_OK;
}

attnrt_status fake_enqueue(const attnrt_problem* problem, const attnrt_args* args, const void* plan,
                           attnrt_error* error) {
  return enqueue_call(WORK_ATTENTION, problem, args, plan, error);
}

attnrt_status fake_enqueue_build(const attnrt_problem* problem, const attnrt_args* args,
                                 const void* plan, attnrt_error* error) {
  return enqueue_call(WORK_SCHEDULE, problem, args, plan, error);
}

attnrt_status fake_enqueue_merge(const fake_merge_call* call, void* stream, attnrt_error* error) {
  const size_t count = (size_t)call->count;
  work* w = calloc(1, sizeof *w);
  attnrt_tensor* partials = malloc(2 * count * sizeof *partials);
  if (w == NULL || partials == NULL) {
    free(w);
    free(partials);
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "a launch");
  }
  memcpy(partials, call->outs, count * sizeof *partials);
  memcpy(partials + count, call->lses, count * sizeof *partials);
  w->kind = WORK_MERGE, w->merge = *call;
  w->merge.outs = partials, w->merge.lses = partials + count;
  device_lock();
  w->stream = device_stream(stream);
  int elsewhere = device_block(call->out.data, span_of(&call->out), 0) == NULL;
  for (size_t n = 0; n < 2 * count; ++n)
    elsewhere |= device_block(partials[n].data, span_of(&partials[n]), 0) == NULL;
  if (elsewhere) {
    device_unlock();
    free(w);
    free(partials);
    return attnrt_fail(error, ATTNRT_INTERNAL, "a partial is not in this device's memory");
  }
  device_enqueue(w);
  device_unlock();
  return ATTNRT_OK;
}

void fake_plan_destroyed(const void* plan) {
  device_lock();
  device_check_destroy(plan);
  device_unlock();
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
