// runtime/src/merge.cpp: merges results over parts of the keys, on a backend that offers it
#include "merge.hpp"

#include <algorithm>
#include <optional>

#include "base/text.hpp"
#include "candidates.hpp"
#include "policy.hpp"
#include "problem/tensor_checker.hpp"
#include "rollout.hpp"

namespace attnrt::core {
namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1};

// The tensors of one merge as plugins find them, and the names that messages call them by.
struct Tensors {
  std::vector<attnrt_tensor> outs, lses;
  attnrt_tensor out, lse;
  std::vector<std::string> out_names, lse_names;

  explicit Tensors(const MergeArgs& args)
      : outs(args.outs.begin(), args.outs.end()),
        lses(args.lses.begin(), args.lses.end()),
        out(args.out),
        lse(args.lse) {
    for (size_t i = 0; i < outs.size(); ++i) {
      out_names.push_back(fmt::format("outs[{}]", i));
      lse_names.push_back(fmt::format("lses[{}]", i));
    }
  }

  Result<void> resolve_offsets() {
    auto done = resolve_offset("merge", "out", out);
    if (done) done = resolve_offset("merge", "lse", lse);
    for (size_t i = 0; i < outs.size() && done; ++i) {
      done = resolve_offset("merge", out_names[i].c_str(), outs[i]);
      if (done) done = resolve_offset("merge", lse_names[i].c_str(), lses[i]);
    }
    return done;
  }
};

// Whether both are the same view of the same memory.
bool same_view(const attnrt_tensor& a, const attnrt_tensor& b) {
  if (a.data != b.data || a.ndim != b.ndim || !same_dtype(a.dtype, b.dtype)) return false;
  for (int32_t i = 0; i < a.ndim; ++i) {
    if (a.shape[i] != b.shape[i] || (a.shape[i] > 1 && a.stride[i] != b.stride[i])) return false;
  }
  return true;
}

// Returns the tensor that is written in place, or nullptr.
const attnrt_tensor* in_place(const attnrt_tensor& written,
                              const std::vector<attnrt_tensor>& inputs) {
  const auto found = std::find_if(inputs.begin(), inputs.end(), [&](const attnrt_tensor& input) {
    return same_view(input, written);
  });
  return found != inputs.end() ? &*found : nullptr;
}

bool has_memory(TensorChecker& check, const char* name, const attnrt_tensor& tensor) {
  return tensor.data != nullptr || is_empty(tensor) ||
         check.fail("tensor {} is absent; expected memory", name);
}

bool check_out(TensorChecker& check, const char* name, const attnrt_tensor& tensor,
               attnrt_dtype dtype, const attnrt_tensor& like) {
  const bool fits =
      like.ndim == 4
          ? check.shape(name, tensor, dtype,
                        {like.shape[0], like.shape[1], like.shape[2], like.shape[3]})
          : check.shape(name, tensor, dtype, {like.shape[0], like.shape[1], like.shape[2]});
  return fits && has_memory(check, name, tensor) && check.dense_last(name, tensor, "head_dim_v") &&
         check.aligned_elements(name, tensor);
}

// out: whose rows the numbers belong to.
bool check_lse(TensorChecker& check, const char* name, const attnrt_tensor& tensor,
               const attnrt_tensor& out) {
  const bool fits =
      out.ndim == 4
          ? check.shape(name, tensor, kFloat32, {out.shape[0], out.shape[2], out.shape[1]})
          : check.shape(name, tensor, kFloat32, {out.shape[1], out.shape[0]});
  return fits && has_memory(check, name, tensor) && check.aligned_elements(name, tensor);
}

bool is_result_dtype(attnrt_dtype dtype) {
  const std::string name = dtype_name(dtype);
  return name == "f32" || name == "f16" || name == "bf16";
}

attnrt_status check_tensors(const Tensors& t, attnrt_error* error) {
  std::vector<TensorRange> ranges(2 * t.outs.size() + 2);
  TensorChecker check("merge", ranges, error);
  if (t.out.ndim != 3 && t.out.ndim != 4) {
    check.fail("tensor out has {} dimensions; expected 4, or 3 if it is packed", t.out.ndim);
    return check.status();
  }
  if (!is_result_dtype(t.out.dtype)) {
    check.fail("tensor out is {}; expected f32, f16 or bf16", dtype_name(t.out.dtype));
    return check.status();
  }
  bool ok = std::all_of(t.out.shape, t.out.shape + t.out.ndim, [](int64_t n) { return n >= 0; }) ||
            check.fail("tensor out has a negative dimension; expected at least 0");
  ok = ok && check_out(check, "out", t.out, t.out.dtype, t.out) &&
       check.overlaps_itself_nowhere("out", t.out);
  for (size_t i = 0; i < t.outs.size() && ok; ++i) {
    ok = check_out(check, t.out_names[i].c_str(), t.outs[i], kFloat32, t.out) &&
         check_lse(check, t.lse_names[i].c_str(), t.lses[i], t.out);
  }
  if (ok && t.lse.data != nullptr)
    ok = check_lse(check, "lse", t.lse, t.out) && check.overlaps_itself_nowhere("lse", t.lse);
  ok = ok && check.overlaps_none(t.out, in_place(t.out, t.outs)) &&
       check.overlaps_none(t.lse, in_place(t.lse, t.lses));
  return check.status();
}

// A backend that may merge.
struct Merger {
  std::shared_ptr<const Backend> backend;
  const attnrt_merging* extension;
  int64_t priority;
  bool held_back;
};

// Returns the backend's extension if it has one and the device. why_not: gets why it has not.
const attnrt_merging* find_extension(const Backend& backend, int32_t device_type, int32_t device_id,
                                     std::string* why_not) {
  const auto& devices = backend.devices();
  const bool has_device = std::any_of(devices.begin(), devices.end(), [&](const Device& device) {
    return device.type == device_type &&
           (device.type == ATTNRT_DEVICE_CPU || device.id == device_id);
  });
  if (!has_device) {
    *why_not = fmt::format("has no {} {}", device_name(device_type), device_id);
    return nullptr;
  }
  const auto* found = static_cast<const attnrt_merging*>(backend.extension(ATTNRT_MERGE));
  if (found != nullptr && ATTNRT_HAS(found, attnrt_merging, merge) && found->merge != nullptr)
    return found;
  *why_not = fmt::format("does not offer {}", ATTNRT_MERGE);
  return nullptr;
}

bool before(const Merger& a, const Merger& b) {
  if (a.held_back != b.held_back) return b.held_back;
  if (a.priority != b.priority) return a.priority > b.priority;
  return b.backend->manifest().version < a.backend->manifest().version;
}

// Returns the backend that merges, or the reasons why there is none.
Result<Merger> find_merger(const Snapshot& snapshot, int32_t device_type, int32_t device_id) {
  const auto all_held = held_back(snapshot.rollouts);
  std::vector<Merger> mergers;
  std::vector<std::string> reasons;
  std::optional<Error> out_of_memory;  // why a backend that may merge could not be loaded for now
  for (const auto& entry : snapshot.entries) {
    const FoundPlugin& plugin = *entry->plugin;
    if (!plugin.fault.empty()) continue;
    const auto& named = plugin.manifest->devices;
    if (std::find(named.begin(), named.end(), device_name(device_type)) == named.end()) continue;
    const auto& backends = snapshot.config->backends;
    const auto listed = backends.find(plugin.manifest->name);
    const BackendSettings* const settings = listed != backends.end() ? &listed->second : nullptr;
    std::string why_not = switched_off(*snapshot.config, plugin.manifest->name);
    if (why_not.empty()) {
      CandidateView view;
      view.version = &plugin.manifest->version;
      view.version_text = plugin.manifest->version_text;
      why_not = version_refusal(settings, view);
    }
    const auto held = std::find_if(all_held.begin(), all_held.end(),
                                   [&](const auto& each) { return each.sha256 == plugin.hash; });
    const bool is_held = held != all_held.end();
    if (why_not.empty() && is_held && held->never) why_not = held->reason;
    Snapshot::Loaded loaded = nullptr;
    if (why_not.empty()) {
      loaded = snapshot.load(*entry);
      if (!loaded && loaded.error().code == ATTNRT_OUT_OF_MEMORY) {
        out_of_memory =
            Error{ATTNRT_OUT_OF_MEMORY,
                  fmt::format("merge: {}: {}", plugin_label(plugin), loaded.error().message)};
      }
      if (!loaded) why_not = loaded.error().message;
    }
    if (why_not.empty()) {
      const auto* extension = find_extension(**loaded, device_type, device_id, &why_not);
      const int64_t priority = settings != nullptr ? settings->priority.value : 0;
      if (extension != nullptr) mergers.push_back({*loaded, extension, priority, is_held});
    }
    if (!why_not.empty()) reasons.push_back(plugin_label(plugin) + ": " + why_not);
  }
  if (!mergers.empty()) return *std::min_element(mergers.begin(), mergers.end(), before);
  if (out_of_memory) return tl::unexpected(*std::move(out_of_memory));
  return fail(ATTNRT_UNSUPPORTED, "merge: no backend of {} merges: {}", device_name(device_type),
              reasons.empty() ? "no plugin for it was found" : joined(reasons));
}

}  // namespace

attnrt_status merge(const Snapshot& snapshot, int32_t device_type, const MergeArgs& args,
                    attnrt_error* error) {
  Tensors tensors(args);
  if (const auto resolved = tensors.resolve_offsets(); !resolved)
    return fill_error(error, resolved.error());
  if (const attnrt_status status = check_tensors(tensors, error); status != ATTNRT_OK)
    return status;
  const auto merger = find_merger(snapshot, device_type, args.device_id);
  if (!merger) return fill_error(error, merger.error());
  if (is_empty(tensors.out)) return ATTNRT_OK;
  const MergeArgs resolved{args.device_id, tensors.outs, tensors.lses,
                           tensors.out,    tensors.lse,  args.stream};
  attnrt_error found = ATTNRT_ERROR_INIT;
  const attnrt_status status = merger->backend->merge(*merger->extension, resolved, &found);
  if (status == ATTNRT_OK) return status;
  return attnrt_fail(error, status, "merge: %s: %s", merger->backend->manifest().name.c_str(),
                     found.message[0] != '\0' ? found.message : status_name(status));
}

}  // namespace attnrt::core
