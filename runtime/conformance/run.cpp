// runtime/conformance/run.cpp: a case on a plugin into what it returned and what it did to memory
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "conformance/trial.hpp"

namespace attnrt::cli::verify {
namespace {

constexpr int64_t kWorkspaceGuard = 4096;
constexpr std::byte kGuardByte{0xC3};

// The struct's bytes with `growth` zeros behind them, and a struct_size that says so: what a newer host would hand over.
template <class Struct>
std::vector<std::byte> grown(const Struct& value, int32_t growth) {
  std::vector<std::byte> bytes(sizeof value + static_cast<size_t>(growth));
  std::memcpy(bytes.data(), &value, sizeof value);
  const auto size = static_cast<int32_t>(bytes.size());
  std::memcpy(bytes.data(), &size, sizeof size);
  return bytes;
}

std::string said(const char* call, attnrt_status status, const attnrt_error& error) {
  return fmt::format("{}: {}: {}", call, core::status_name(status), error.message);
}

std::string check_info(const attnrt_plan_info& info) {
  const int64_t alignment = info.workspace_alignment;
  if (info.workspace_bytes < 0) return fmt::format("plan asks for {} bytes", info.workspace_bytes);
  if (alignment < 0 || (alignment & (alignment - 1)) != 0 || alignment > 4096) {
    return fmt::format("plan asks for alignment {}; it must be a power of two, 4096 at most, or 0",
                       alignment);
  }
  return {};
}

// The first byte that changed where it must not: "written at byte 12 after its end".
std::string guard_trouble(const std::vector<std::byte>& bytes, int64_t guard) {
  const int64_t size = static_cast<int64_t>(bytes.size()) - 2 * guard;
  for (int64_t n = 0; n < guard; ++n) {
    if (bytes[static_cast<size_t>(n)] != kGuardByte)
      return fmt::format("written {} bytes before its start", guard - n);
    if (bytes[static_cast<size_t>(guard + size + n)] != kGuardByte)
      return fmt::format("written {} bytes past its end", n);
  }
  return {};
}

// A workspace as plan asked for it, between guards.
class Workspace {
 public:
  Workspace(Subject& subject, const attnrt_plan_info& info, std::byte fill, void* stream)
      : bytes_(static_cast<size_t>(info.workspace_bytes + 2 * kWorkspaceGuard), fill),
        place_(subject, static_cast<int64_t>(bytes_.size()),
               info.workspace_alignment > 0 ? info.workspace_alignment : 64, kWorkspaceGuard),
        stream_(stream) {
    std::fill_n(bytes_.begin(), kWorkspaceGuard, kGuardByte);
    std::fill_n(bytes_.end() - kWorkspaceGuard, kWorkspaceGuard, kGuardByte);
    error_ = place_.write(bytes_.data(), static_cast<int64_t>(bytes_.size()), stream);
  }
  void* data() const { return place_.address() + kWorkspaceGuard; }
  const std::string& error() const { return error_; }
  std::string trouble() {
    const std::string error =
        place_.read(bytes_.data(), static_cast<int64_t>(bytes_.size()), stream_);
    return error.empty() ? guard_trouble(bytes_, kWorkspaceGuard) : error;
  }

 private:
  std::vector<std::byte> bytes_;
  Place place_;
  void* stream_;
  std::string error_;
};

// Which of a run's promises about memory it broke.
void look_at_memory(Loaded& loaded, const Tensors& tensors, Ran& ran) {
  for (int name = 0; name < kTensors; ++name) {
    const Image& image = tensors[name];
    if (image.bytes.empty()) continue;
    std::vector<std::byte> after;
    if (const std::string error = loaded.read(name, &after); !error.empty()) {
      ran.message = error, ran.status = ATTNRT_INTERNAL;
      return;
    }
    const bool output = name == out || name == lse;
    const int64_t size = image.view.dtype.bits / 8;
    int64_t unwritten = 0;
    for (size_t n = 0; n < after.size(); ++n) {
      const bool owned = output && image.owned[n];
      if (!owned && after[n] != image.bytes[n]) {
        std::string& trouble = output ? ran.outside : ran.inputs;
        if (trouble.empty()) {
          trouble = fmt::format("{} changed {} bytes after its first element",
                                kTensorNames[static_cast<size_t>(name)],
                                static_cast<int64_t>(n) - Image::kGuard);
        }
      }
      if (owned && (static_cast<int64_t>(n) - Image::kGuard) % size == 0 &&
          std::all_of(after.begin() + static_cast<int64_t>(n),
                      after.begin() + static_cast<int64_t>(n) + size,
                      [&image](std::byte b) { return b == image.poison; })) {
        ++unwritten;
      }
    }
    if (unwritten > 0 && ran.unwritten.empty()) {
      ran.unwritten = fmt::format("{} values of {} were not written", unwritten,
                                  kTensorNames[static_cast<size_t>(name)]);
    }
    if (name == out) ran.out = std::move(after);
    if (name == lse) ran.lse = std::move(after);
  }
}

}  // namespace

Planned::Planned(Subject& subject, const core::Problem& problem, int32_t growth)
    : subject_(subject),
      table_(subject.table()),
      problem_(grown(problem, growth)),
      growth_(growth) {
  info.struct_size = sizeof info;
  if (table_->plan == nullptr) return;
  std::vector<std::byte> info_bytes = grown(info, growth);
  attnrt_error error = ATTNRT_ERROR_INIT;
  status =
      table_->plan(subject.instance(), reinterpret_cast<const attnrt_problem*>(problem_.data()),
                   reinterpret_cast<attnrt_plan_info*>(info_bytes.data()), &plan_, &error);
  std::memcpy(&info, info_bytes.data(), sizeof info);
  if (status != ATTNRT_OK) message = said("plan", status, error);
}

Planned::~Planned() {
  if (status != ATTNRT_OK || table_->plan == nullptr) return;
  if (ATTNRT_HAS(table_, attnrt_plugin, plan_destroy) && table_->plan_destroy != nullptr) {
    table_->plan_destroy(subject_.instance(), plan_);
  }
}

attnrt_status Planned::run(const attnrt_args& args, std::string* text) {
  const std::vector<std::byte> bytes = grown(args, growth_);
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status returned = table_->run(
      subject_.instance(), plan_, reinterpret_cast<const attnrt_problem*>(problem_.data()),
      reinterpret_cast<const attnrt_args*>(bytes.data()), &error);
  if (returned != ATTNRT_OK) *text = said("run", returned, error);
  return returned;
}

Loaded::Loaded(Subject& subject, const Tensors& tensors) : subject_(subject), tensors_(tensors) {
  args_.struct_size = sizeof args_;
  if (!subject.on_cpu()) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    const attnrt_status status = subject.memory()->stream_create(
        subject.instance(), subject.device().id, &args_.stream, &error);
    if (status != ATTNRT_OK) trouble = said("stream_create", status, error);
  }
  for (int name = 0; name < kTensors && trouble.empty(); ++name) {
    const Image& image = tensors[name];
    attnrt_tensor& tensor = (&args_.q)[name];
    tensor = image.view;
    if (image.bytes.empty()) continue;
    auto& place = places_[static_cast<size_t>(name)];
    place.emplace(subject, static_cast<int64_t>(image.bytes.size()), image.alignment,
                  Image::kGuard);
    trouble =
        place->write(image.bytes.data(), static_cast<int64_t>(image.bytes.size()), args_.stream);
    tensor.data = place->address() + Image::kGuard;
  }
}

Loaded::~Loaded() {
  for (auto& place : places_) place.reset();
  if (args_.stream != nullptr) {
    subject_.memory()->stream_destroy(subject_.instance(), subject_.device().id, args_.stream);
  }
}

std::string Loaded::finish() {
  if (subject_.on_cpu()) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status = subject_.memory()->stream_synchronize(
      subject_.instance(), subject_.device().id, args_.stream, &error);
  return status == ATTNRT_OK ? "" : said("stream_synchronize", status, error);
}

std::string Loaded::read(int name, std::vector<std::byte>* bytes) {
  bytes->resize(tensors_[name].bytes.size());
  return places_[static_cast<size_t>(name)]->read(
      bytes->data(), static_cast<int64_t>(bytes->size()), args_.stream);
}

Ran run_case(Subject& subject, const Case& drawn, const Tensors& tensors,
             const RunOptions& options) {
  Ran ran;
  const auto give_up = [&ran](attnrt_status status, std::string message) {
    ran.status = status, ran.message = std::move(message);
    return ran;
  };
  Planned planned(subject, options.problem != nullptr ? *options.problem : drawn.problem,
                  options.growth);
  if (planned.status != ATTNRT_OK) return give_up(planned.status, planned.message);
  ran.workspace_bytes = planned.info.workspace_bytes;
  ran.workspace = check_info(planned.info);
  if (!ran.workspace.empty()) return ran;
  Loaded loaded(subject, tensors);
  if (!loaded.trouble.empty()) return give_up(ATTNRT_INTERNAL, loaded.trouble);
  Workspace workspace(subject, planned.info, options.workspace_fill, loaded.stream());
  if (!workspace.error().empty()) return give_up(ATTNRT_INTERNAL, workspace.error());
  loaded.args().workspace = planned.info.workspace_bytes > 0 ? workspace.data() : nullptr;
  loaded.args().workspace_bytes = planned.info.workspace_bytes;
  ran.status = planned.run(loaded.args(), &ran.message);
  const std::string finished = loaded.finish();
  if (ran.ok() && !finished.empty()) return give_up(ATTNRT_INTERNAL, finished);
  ran.workspace = workspace.trouble();
  look_at_memory(loaded, tensors, ran);
  return ran;
}

}  // namespace attnrt::cli::verify
