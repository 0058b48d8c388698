// runtime/src/plan.cpp: a Decision into a Plan: prepared work with its workspace; keeps its backend alive
#include "plan.hpp"

#include <bit>
#include <new>

#include "staging.hpp"

namespace attnrt::core {

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(device_id_, other.device_id_);
  std::swap(kind_, other.kind_);
  std::swap(data_, other.data_);
  std::swap(offset_, other.offset_);
  std::swap(bytes_, other.bytes_);
  std::swap(alignment_, other.alignment_);
  return *this;
}

DeviceMemory::~DeviceMemory() {
  if (data_ == nullptr) return;
  switch (kind_) {
    case Kind::host: ::operator delete (data_, std::align_val_t{alignment_}); break;
    case Kind::device: backend_->memory()->free(backend_->instance(), device_id_, data_); break;
    case Kind::pinned:
      backend_->memory()->free_pinned(backend_->instance(), device_id_, data_);
      break;
  }
}

Result<DeviceMemory> DeviceMemory::allocate(std::shared_ptr<const Backend> backend,
                                            const Device& device, Kind kind, int64_t bytes,
                                            int64_t alignment) {
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
    // The extension promises no alignment.
    const auto allocate =
        kind == Kind::device ? backend->memory()->allocate : backend->memory()->allocate_pinned;
    int64_t with_room = 0;
    status = __builtin_add_overflow(bytes, alignment - 1, &with_room)
                 ? ATTNRT_OUT_OF_MEMORY
                 : allocate(backend->instance(), device.id, with_room, &memory.data_, &error);
    if (status != ATTNRT_OK) memory.data_ = nullptr;
    const size_t past = reinterpret_cast<uintptr_t>(memory.data_) % memory.alignment_;
    memory.offset_ = past != 0 ? memory.alignment_ - past : 0;
  }
  if (status != ATTNRT_OK) {
    static constexpr const char* kWords[] = {"host", "device", "pinned host"};
    return fail(status, "no {} bytes of {} memory{}{}", bytes, kWords[static_cast<size_t>(kind)],
                error.message[0] != '\0' ? ": " : "", error.message);
  }
  memory.backend_ = std::move(backend);
  memory.device_id_ = device.id;
  memory.kind_ = kind;
  memory.bytes_ = bytes;
  return memory;
}

Plan::~Plan() {
  if (planned_) backend_->plan_destroy(plugin_plan_);
}

Result<std::unique_ptr<Plan>> make_plan(const Decision& decision, const Verdict& verdict) {
  std::unique_ptr<Plan> plan(new Plan);
  plan->backend_ = verdict.candidate.backend;
  plan->device_ = verdict.candidate.device;
  plan->problem_ = decision.problem;
  plan->device_problem_ = problem_on(plan->device_, decision.problem);
  const std::string& name = plan->backend_name();
  if (verdict.staged) {
    auto staging = Staging::make(plan->backend_, plan->device_);
    if (!staging) return tl::unexpected(staging.error());
    plan->staging_ = std::move(*staging);
  }
  attnrt_plan_info info{sizeof(attnrt_plan_info), 0, 0, 0, nullptr};
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      plan->backend_->plan(plan->device_problem_, &info, &plan->plugin_plan_, &error);
  if (status != ATTNRT_OK) {
    return fail(status, "plan: {}: {}", name,
                error.message[0] != '\0' ? error.message : status_name(status));
  }
  plan->planned_ = true;
  plan->kernel_ = info.kernel != nullptr ? info.kernel : name;
  const int64_t alignment = info.workspace_alignment > 0 ? info.workspace_alignment : 64;
  if (info.workspace_bytes < 0 || !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return fail(ATTNRT_INTERNAL, "plan: {}: asks for a workspace of {} bytes, aligned to {}", name,
                info.workspace_bytes, info.workspace_alignment);
  }
  plan->workspace_bytes_ = info.workspace_bytes;
  plan->workspace_alignment_ = alignment;
  const bool on_host = plan->device_.type == ATTNRT_DEVICE_CPU;
  auto workspace =
      DeviceMemory::allocate(plan->backend_, plan->device_,
                             on_host ? DeviceMemory::Kind::host : DeviceMemory::Kind::device,
                             info.workspace_bytes, alignment);
  if (!workspace)
    return fail(workspace.error().code, "plan: {}: workspace: {}", name, workspace.error().message);
  plan->workspace_ = std::move(*workspace);
  return plan;
}

}  // namespace attnrt::core
