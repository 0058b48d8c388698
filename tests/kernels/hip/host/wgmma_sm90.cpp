// tests/kernels/hip/host/wgmma_sm90.cpp: the host build of the kernels of family wgmma_sm90
#include "kernels/hip/flash_attention_sm90.hpp"
#include "tests/kernels/hip/host/family.hpp"

namespace kernels::test {
namespace {

template <class T, int kDim, int kDimV, hip::Kind kKind>
void run(const void* params) {
  hip::PipelinedAttention<hip::PipelinedTile<T, kDim, kDimV, kKind>, kKind>(
      *static_cast<const hip::PipelinedParams*>(params))
      .run();
}

template <class Tile>
void prepare(const void* params) {
  hip::prepare<Tile>(*static_cast<const hip::PrepareParams*>(params));
}

// The kernel that takes its work from a list, unless it has no tile for the dimensions.
template <class T, int kDim, int kDimV>
HostKernel listed() {
  if constexpr (kDim == 96) {
    return nullptr;
  } else {
    return run<T, kDim, kDimV, hip::Kind::listed_plain>;
  }
}

// The kernel of masks that are copied, unless steps are too short for that.
template <class T, int kDim, int kDimV>
HostKernel masked() {
  if constexpr (kDim == 512) {
    return nullptr;
  } else {
    return run<T, kDim, kDimV, hip::Kind::masked>;
  }
}

template <class T, int kDim, int kDimV>
HostKernel of_dims(const std::string& name) {
  using hip::Kind;
  if (name == "flash_attention_sm90_prepare_kernel")
    return prepare<hip::PipelinedTile<T, kDim, kDimV, Kind::generic>>;
  if constexpr (kDim == 576) {  // only for lists
    return name == "flash_attention_sm90_listed_kernel" ? listed<T, kDim, kDimV>() : nullptr;
  } else {
    if (name == "flash_attention_sm90_kernel") return run<T, kDim, kDimV, Kind::generic>;
    if (name == "flash_attention_sm90_masked_kernel") return masked<T, kDim, kDimV>();
    if (name == "flash_attention_sm90_listed_kernel") return listed<T, kDim, kDimV>();
    if (name == "flash_attention_sm90_causal_kernel") return run<T, kDim, kDimV, Kind::causal>;
    return name == "flash_attention_sm90_nocausal_kernel" ? run<T, kDim, kDimV, Kind::nocausal>
                                                          : nullptr;
  }
}

template <class T>
HostKernel of_dtype(const std::string& dims, const std::string& name) {
  if (dims == "64") return of_dims<T, 64, 64>(name);
  if (dims == "96") return of_dims<T, 96, 96>(name);
  if (dims == "128") return of_dims<T, 128, 128>(name);
  if (dims == "192") return of_dims<T, 192, 192>(name);
  if (dims == "192_128") return of_dims<T, 192, 128>(name);
  if (dims == "256") return of_dims<T, 256, 256>(name);
  if (dims == "576_512") return of_dims<T, 576, 512>(name);
  return dims == "512" ? of_dims<T, 512, 512>(name) : nullptr;
}

// The decode kernels of GPUs with more workgroup memory.
template <class T>
HostKernel decode(const std::string& object, const std::string& name) {
  if (object.starts_with("serving_attention_kv8_")) {
    if (object.ends_with("_64")) return find::stored_decode<T, 64, true>(name);
    if (object.ends_with("_128")) return find::stored_decode<T, 128, true>(name);
    return find::stored_decode<T, 256, true>(name);
  }
  if (object.ends_with("_64")) return find::decode<hip::DecodeTile<T, 64, true>>(name);
  if (object.ends_with("_128")) return find::decode<hip::DecodeTile<T, 128, true>>(name);
  return find::decode<hip::DecodeTile<T, 256, true>>(name);
}

}  // namespace

// object: flash_attention_sm90_<dtype>_<dims>. f32 is served by mma_sm80's.
template <>
HostKernel kernel_of_family<hip::Family::wgmma_sm90>(const char* object, const char* name) {
  const std::string text = object, f16 = "flash_attention_sm90_f16_",
                    bf16 = "flash_attention_sm90_bf16_";
  if (text.starts_with(f16)) return of_dtype<hip::F16>(text.substr(f16.size()), name);
  if (text.starts_with(bf16)) return of_dtype<hip::BF16>(text.substr(bf16.size()), name);
  if (std::string(name).starts_with("decode_")) {
    return text.find("_bf16_") != text.npos ? decode<hip::BF16>(text, name)
                                            : decode<hip::F16>(text, name);
  }
  return kernel_of_family<hip::Family::mma_sm80>(object, name);
}

}  // namespace kernels::test
