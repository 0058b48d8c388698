// plugins/cpu/merge.cpp: the extension attnrt.merge/1 on the host's threads
#include "kernels/cpu/merge.hpp"

#include <memory>
#include <new>

#include "plugins/common/translate.hpp"
#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {
namespace {

attnrt_status merge(void* instance, int32_t, const attnrt_tensor* outs, const attnrt_tensor* lses,
                    int32_t count, const attnrt_tensor* out, const attnrt_tensor* lse, void*,
                    attnrt_error* error) {
  const auto partials = static_cast<size_t>(count);
  const std::unique_ptr<kernels::Tensor[]> tensors(new (std::nothrow)
                                                       kernels::Tensor[2 * partials]);
  if (tensors == nullptr)
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "merge: out of host memory");
  for (size_t i = 0; i < partials; ++i) {
    tensors[i] = attnrt_plugins::translate(outs[i]);
    tensors[partials + i] = attnrt_plugins::translate(lses[i]);
  }
  const kernels::cpu::Merge translated{tensors.get(), tensors.get() + partials, count,
                                       attnrt_plugins::translate(*out),
                                       attnrt_plugins::translate(*lse)};
  const Instance& self = *static_cast<const Instance*>(instance);
  kernels::cpu::merge(translated, *self.target, self.workers);
  return ATTNRT_OK;
}

}  // namespace

const attnrt_merging merging = {sizeof(attnrt_merging), 0, merge};

}  // namespace attnrt_cpu
