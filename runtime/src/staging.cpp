// runtime/src/staging.cpp: runs a device's backend on copies of host tensors
//
// There are two buffers of equal size, one in pinned host memory and one on the device, because
// asynchronous copies need pinned memory. Each tensor has the same slot in both:
//
//     caller's tensors --pack-->  pinned [q | k | v | out | mask | lse | ...]
//                                   |  copies, enqueued on the staging's own stream
//                                   v
//                                 device [q | k | v | out | mask | lse | ...] --> the backend's run
//                                   |  copies of out and lse
//                                   v
//     caller's out, lse <-unpack-- pinned, after the stream is synchronized
//
// A slot holds its tensor without gaps. A dimension that is broadcast (stride 0) stays so and is
// stored once. Every slot starts at a multiple of kSlotAlignment, so each row of the copies is as
// aligned as problem_on (select.cpp) promises.
#include "staging.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <iterator>

#include "problem/tensors.hpp"

namespace attnrt::core {
namespace {

constexpr int64_t kSlotAlignment = 256;  // bytes; at least 16, the most that problem_on promises

int64_t aligned(int64_t bytes) {
  return (bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}

// Returns the tensor's layout without gaps, and how many elements it stores. Broadcast dimensions
// stay broadcast.
attnrt_tensor dense(const attnrt_tensor& tensor, int64_t* elements) {
  attnrt_tensor copy = tensor;
  *elements = 1;
  for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
    const bool broadcast = tensor.stride[i] == 0 && tensor.shape[i] > 1;
    copy.stride[i] = broadcast ? 0 : *elements;
    if (!broadcast) *elements *= tensor.shape[i];
  }
  return copy;
}

// Copies every stored element from one layout of a tensor to another, a row at a time if both have
// dense rows.
void copy_elements(const attnrt_tensor& from, const attnrt_tensor& to) {
  const int64_t bytes = dtype_bytes(from.dtype);
  std::array<int64_t, 4> shape{1, 1, 1, 1};
  std::array<int64_t, 4> step_from{};  // bytes
  std::array<int64_t, 4> step_to{};
  for (int32_t i = 0; i < from.ndim; ++i) {
    const size_t at = static_cast<size_t>(i + 4 - from.ndim);
    const bool broadcast = to.stride[i] == 0 && from.stride[i] == 0;
    shape[at] = broadcast ? std::min<int64_t>(from.shape[i], 1) : from.shape[i];
    step_from[at] = from.stride[i] * bytes;
    step_to[at] = to.stride[i] * bytes;
  }
  const bool dense_rows = shape[3] <= 1 || (step_from[3] == bytes && step_to[3] == bytes);
  const int64_t columns = dense_rows ? 1 : shape[3];
  const auto piece_bytes = static_cast<size_t>(dense_rows ? bytes * shape[3] : bytes);
  const char* source = static_cast<const char*>(from.data);
  char* target = static_cast<char*>(to.data);
  for (int64_t a = 0; a < shape[0]; ++a) {
    for (int64_t b = 0; b < shape[1]; ++b) {
      for (int64_t c = 0; c < shape[2]; ++c) {
        for (int64_t d = 0; d < columns; ++d) {
          std::memcpy(
              target + a * step_to[0] + b * step_to[1] + c * step_to[2] + d * step_to[3],
              source + a * step_from[0] + b * step_from[1] + c * step_from[2] + d * step_from[3],
              piece_bytes);
        }
      }
    }
  }
}

}  // namespace

// Where one tensor is in both buffers.
struct Staging::Slot {
  attnrt_tensor packed;
  int64_t offset = 0, bytes = 0;
};

Result<std::unique_ptr<Staging>> Staging::make(std::shared_ptr<const Backend> backend,
                                               const Device& device) {
  std::unique_ptr<Staging> staging(new Staging(std::move(backend), device));
  const Backend& owner = *staging->backend_;
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status = owner.call(&error, [&] {
    return owner.memory()->stream_create(owner.instance(), device.id, &staging->stream_, &error);
  });
  if (status != ATTNRT_OK) {
    return fail(status, "plan: {}: cannot create a stream for staging: {}", owner.manifest().name,
                error.message);
  }
  return staging;
}

Staging::~Staging() {
  if (stream_ == nullptr) return;
  backend_->call(nullptr, [this] {
    backend_->memory()->stream_destroy(backend_->instance(), device_.id, stream_);
    return ATTNRT_OK;
  });
}

// Makes both buffers hold at least this many bytes. The size is rounded up to a power of two, so
// that a growing problem reallocates once for each doubling.
attnrt_status Staging::grow(int64_t bytes, attnrt_error* error) {
  if (on_device_.bytes() >= bytes && pinned_.bytes() >= bytes) return ATTNRT_OK;
  const auto rounded =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(bytes, 1))));
  for (auto [memory, kind] : {std::pair{&on_device_, DeviceMemory::Kind::device},
                              {&pinned_, DeviceMemory::Kind::pinned}}) {
    *memory = DeviceMemory();  // frees the old one first, since both may not fit
    auto larger = DeviceMemory::allocate(backend_, device_, kind, rounded, kSlotAlignment, stream_);
    if (!larger) return fill_error(error, larger.error());
    *memory = std::move(*larger);
  }
  return ATTNRT_OK;
}

// Enqueues the copy of one slot, in either direction.
attnrt_status Staging::copy(int64_t offset, int64_t bytes, int32_t direction, attnrt_error* error) {
  if (bytes == 0) return ATTNRT_OK;
  char* const host = static_cast<char*>(pinned_.data()) + offset;
  char* const device = static_cast<char*>(on_device_.data()) + offset;
  const bool to_device = direction == ATTNRT_COPY_TO_DEVICE;
  return backend_->call(error, [&] {
    return backend_->memory()->copy(backend_->instance(), device_.id, to_device ? device : host,
                                    to_device ? host : device, bytes, direction, stream_, error);
  });
}

attnrt_status Staging::run(const Plan& plan, const attnrt_args& host, attnrt_error* error) {
  std::array<Slot, std::size(kTensors)> slots{};
  int64_t total = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    const attnrt_tensor& tensor = host.*kTensors[i].member;
    if (tensor.data == nullptr) continue;
    int64_t elements = 0;
    slots[i].packed = dense(tensor, &elements);
    slots[i].bytes = elements * dtype_bytes(tensor.dtype);
    slots[i].offset = total;
    total = aligned(total + slots[i].bytes);
  }
  if (const attnrt_status status = grow(total, error); status != ATTNRT_OK) return status;

  attnrt_args args = host;
  args.workspace = plan.workspace();
  args.workspace_bytes = plan.workspace_bytes();
  args.stream = stream_;
  attnrt_status status = ATTNRT_OK;
  for (size_t i = 0; i < slots.size() && status == ATTNRT_OK; ++i) {
    Slot& slot = slots[i];
    const attnrt_tensor& tensor = host.*kTensors[i].member;
    if (tensor.data == nullptr) continue;
    // With varlen, run leaves rows of out and lse past the last offset untouched, so outputs are
    // copied there as well.
    if (!kTensors[i].rule.written || plan.problem().varlen != 0) {
      slot.packed.data = static_cast<char*>(pinned_.data()) + slot.offset;
      copy_elements(tensor, slot.packed);
      status = copy(slot.offset, slot.bytes, ATTNRT_COPY_TO_DEVICE, error);
    }
    args.*kTensors[i].member = slot.packed;
    (args.*kTensors[i].member).data = static_cast<char*>(on_device_.data()) + slot.offset;
  }
  if (status == ATTNRT_OK)
    status = plan.backend().run(plan.plugin_plan(), plan.device_problem(), args, error);
  for (size_t i = 0; i < slots.size() && status == ATTNRT_OK; ++i) {
    if (kTensors[i].rule.written)
      status = copy(slots[i].offset, slots[i].bytes, ATTNRT_COPY_TO_HOST, error);
  }
  // Waits after a failure too: nothing may still use the buffers when the next run reuses them.
  attnrt_error* const wait_error = status == ATTNRT_OK ? error : nullptr;
  const attnrt_status waited = backend_->call(wait_error, [&] {
    return backend_->memory()->stream_synchronize(backend_->instance(), device_.id, stream_,
                                                  wait_error);
  });
  if (status == ATTNRT_OK) status = waited;
  if (status != ATTNRT_OK) return status;
  for (size_t i = 0; i < slots.size(); ++i) {
    const attnrt_tensor& tensor = host.*kTensors[i].member;
    if (!kTensors[i].rule.written || tensor.data == nullptr) continue;
    slots[i].packed.data = static_cast<char*>(pinned_.data()) + slots[i].offset;
    copy_elements(slots[i].packed, tensor);
  }
  return ATTNRT_OK;
}

}  // namespace attnrt::core
