// runtime/src/plan.cpp: the plan step: prepares the work of one decision
#include "plan.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "base/text.hpp"
#include "staging.hpp"
#include "stats.hpp"

namespace attnrt::core {

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(device_type_, other.device_type_);
  std::swap(device_id_, other.device_id_);
  std::swap(kind_, other.kind_);
  std::swap(data_, other.data_);
  std::swap(applications_, other.applications_);
  std::swap(offset_, other.offset_);
  std::swap(bytes_, other.bytes_);
  std::swap(alignment_, other.alignment_);
  return *this;
}

namespace {

void free_on_device(const Backend& backend, int32_t device_id, void* data, void* stream) {
  backend.call(nullptr, [&] {
    return backend.memory()->free(backend.instance(), device_id, data, stream), ATTNRT_OK;
  });
}

// Under Backend::call, so that the application's allocator, too, is left alone in a child made by
// fork, where its device's memory does not exist.
void free_of_application(const Backend& backend, int32_t device_type, int32_t device_id, void* data,
                         void* stream) {
  const Allocator& application = backend.services().allocator;
  backend.call(nullptr, [&] {
    return application.free(application.self, device_type, device_id, data, stream), ATTNRT_OK;
  });
}

}  // namespace

DeviceMemory::~DeviceMemory() {
  if (data_ == nullptr) return;
  switch (kind_) {
    case Kind::host: ::operator delete (data_, std::align_val_t{alignment_}); break;
    case Kind::device: {
      void* const stream = backend_->own_stream(device_id_);
      if (applications_) {
        free_of_application(*backend_, device_type_, device_id_, data_, stream);
      } else {
        free_on_device(*backend_, device_id_, data_, stream);
      }
      break;
    }
    case Kind::pinned:
      backend_->call(nullptr, [this] {
        backend_->memory()->free_pinned(backend_->instance(), device_id_, data_);
        return ATTNRT_OK;
      });
      break;
  }
}

namespace {

// Allocates device memory from the application, if it has an allocator that serves this device,
// else from the backend; in the order of a stream, or, without one, so that any stream may use it.
attnrt_status allocate_on_device(const Backend& backend, const Device& device, int64_t bytes,
                                 std::optional<void*> stream, void** data, bool* applications,
                                 attnrt_error* error) {
  const attnrt_memory& memory = *backend.memory();
  const Allocator& application = backend.services().allocator;
  void* const order = stream ? *stream : backend.own_stream(device.id);
  attnrt_status status = ATTNRT_UNSUPPORTED;
  if (application.allocate != nullptr) {
    status = backend.call(error, [&] {
      return application.allocate(application.self, device.type, device.id, bytes, order, data,
                                  error);
    });
  }
  if (status == ATTNRT_OK && *data == nullptr)
    status = attnrt_fail(error, ATTNRT_INTERNAL, "the application's allocator returned NULL");
  *applications = status != ATTNRT_UNSUPPORTED;
  if (!*applications) {
    status = backend.call(error, [&] {
      return memory.allocate(backend.instance(), device.id, bytes, order, data, error);
    });
  }
  if (status != ATTNRT_OK || stream) return status;
  status = backend.call(error, [&] {
    return memory.stream_synchronize(backend.instance(), device.id, order, error);
  });
  if (status == ATTNRT_OK) return status;
  if (*applications) {
    free_of_application(backend, device.type, device.id, *data, order);
  } else {
    free_on_device(backend, device.id, *data, order);
  }
  return status;
}

}  // namespace

Result<DeviceMemory> DeviceMemory::allocate(std::shared_ptr<const Backend> backend,
                                            const Device& device, Kind kind, int64_t bytes,
                                            int64_t alignment, std::optional<void*> stream) {
  DeviceMemory memory;
  if (bytes == 0) return memory;
  memory.alignment_ = static_cast<size_t>(alignment);
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_status status = ATTNRT_OK;
  if (kind == Kind::host) {
    memory.data_ = ::operator new (static_cast<size_t>(bytes), std::align_val_t{memory.alignment_},
                                   std::nothrow);
    if (memory.data_ == nullptr) status = ATTNRT_OUT_OF_MEMORY;
  } else {
    // attnrt.memory/1 promises no alignment, so enough is allocated to skip to the first aligned
    // byte.
    int64_t padded_bytes = 0;
    if (__builtin_add_overflow(bytes, alignment - 1, &padded_bytes)) {
      status = ATTNRT_OUT_OF_MEMORY;
    } else if (kind == Kind::device) {
      status = allocate_on_device(*backend, device, padded_bytes, stream, &memory.data_,
                                  &memory.applications_, &error);
    } else {
      status = backend->call(&error, [&] {
        return backend->memory()->allocate_pinned(backend->instance(), device.id, padded_bytes,
                                                  &memory.data_, &error);
      });
    }
    if (status != ATTNRT_OK) memory.data_ = nullptr;
    const size_t misaligned_by = reinterpret_cast<uintptr_t>(memory.data_) % memory.alignment_;
    memory.offset_ = misaligned_by != 0 ? memory.alignment_ - misaligned_by : 0;
  }
  if (status != ATTNRT_OK) {
    static constexpr const char* kNames[] = {"host", "device", "pinned host"};
    return fail(status, "cannot allocate {} bytes of {} memory{}{}", bytes,
                kNames[static_cast<size_t>(kind)], error.message[0] != '\0' ? ": " : "",
                error.message);
  }
  memory.backend_ = std::move(backend);
  memory.device_type_ = device.type;
  memory.device_id_ = device.id;
  memory.kind_ = kind;
  memory.bytes_ = bytes;
  return memory;
}

Plan::~Plan() {
  if (planned_) backend_->plan_destroy(plugin_plan_);
  if (stats_ != nullptr) stats_->holds(-counted_bytes_);
}

int64_t Plan::held_bytes() const {
  return workspace_.bytes() + plugin_bytes_ + (staging_ != nullptr ? staging_->bytes() : 0);
}

void Plan::count_in(std::shared_ptr<CandidateStats> stats) {
  stats_ = std::move(stats);
  count_held_bytes();
}

void Plan::count_held_bytes() const {
  if (stats_ == nullptr) return;
  const int64_t bytes = held_bytes();
  stats_->holds(bytes - std::exchange(counted_bytes_, bytes));
}

// Allocates the workspace that the plugin asks for, on the plan's device.
Result<void> Plan::make_workspace(const attnrt_plan_info& info, std::optional<void*> stream) {
  constexpr int64_t kDefaultAlignment = 64;  // bytes, where the plugin says 0 (plugin.h)
  const int64_t alignment =
      info.workspace_alignment != 0 ? info.workspace_alignment : kDefaultAlignment;
  if (info.workspace_bytes < 0 || alignment < 0 ||
      !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return fail(ATTNRT_INTERNAL,
                "plan: {}: asks for a workspace of {} bytes, aligned to {}; expected at least 0 "
                "bytes and a power of two",
                backend_name(), info.workspace_bytes, info.workspace_alignment);
  }
  workspace_bytes_ = info.workspace_bytes;
  workspace_alignment_ = alignment;
  const auto kind =
      device_.type == ATTNRT_DEVICE_CPU ? DeviceMemory::Kind::host : DeviceMemory::Kind::device;
  if (staging_ != nullptr) stream = staging_->stream();
  auto workspace =
      DeviceMemory::allocate(backend_, device_, kind, info.workspace_bytes, alignment, stream);
  if (!workspace) {
    return fail(workspace.error().code, "plan: {}: workspace: {}", backend_name(),
                workspace.error().message);
  }
  workspace_ = std::move(*workspace);
  return {};
}

Result<std::unique_ptr<Plan>> make_plan(std::shared_ptr<const Decision> decision,
                                        const Problem& problem, std::optional<void*> stream) {
  const Verdict& verdict = *decision->winner();
  std::unique_ptr<Plan> plan(new Plan);
  plan->decision_ = std::move(decision);
  plan->backend_ = verdict.candidate.backend;
  plan->device_ = verdict.candidate.device;
  plan->problem_ = problem;
  plan->device_problem_ = problem_on(plan->device_, problem);
  if (verdict.staged) {
    auto staging = Staging::make(plan->backend_, plan->device_);
    if (!staging) return tl::unexpected(staging.error());
    plan->staging_ = std::move(*staging);
  }
  attnrt_plan_info info{};
  info.struct_size = sizeof info;
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      plan->backend_->plan(plan->device_problem_, &info, &plan->plugin_plan_, &error);
  if (status != ATTNRT_OK) {
    return fail(status, "plan: {}: {}", plan->backend_name(),
                error.message[0] != '\0' ? error.message : status_name(status));
  }
  plan->planned_ = true;
  plan->capturable_ = info.capturable == 1;
  plan->plugin_bytes_ = std::max<int64_t>(info.held_bytes, 0);
  constexpr size_t kMostBytes = 256;  // of the kernel's name (plugin.h)
  plan->kernel_ = info.kernel != nullptr ? cut(info.kernel, kMostBytes) : plan->backend_name();
  if (auto made = plan->make_workspace(info, stream); !made) return tl::unexpected(made.error());
  return plan;
}

}  // namespace attnrt::core
