// tests/kernels/hip/host/family.hpp: finds the host build of one family's kernel by its names
#pragma once

#include <string>

#include "kernels/hip/decode_attention.hpp"
#include "kernels/hip/flash_attention.hpp"
#include "kernels/hip/listed_attention.hpp"
#include "kernels/hip/unfused_attention.hpp"
#include "tests/kernels/hip/host/kernels.hpp"

namespace kernels::test {

// Each family is instantiated in a source of its own, because they are slow to compile.
template <hip::Family kFamily>
HostKernel kernel_of_family(const char* object, const char* name);

namespace find {

template <void (*kKernel)(const hip::AttentionParams&)>
void run(const void* params) {
  kKernel(*static_cast<const hip::AttentionParams*>(params));
}

template <class Tile>
HostKernel unfused(const std::string& name) {
  if (name == "qk_kernel") return run<hip::qk<Tile>>;
  if (name == "scale_kernel") return run<hip::scale<Tile>>;
  if (name == "mask_kernel") return run<hip::mask<Tile>>;
  if (name == "softmax_kernel") return run<hip::softmax<Tile>>;
  return name == "pv_kernel" ? run<hip::pv<Tile>> : nullptr;
}

template <class Tile>
HostKernel flash(const std::string& name) {
  using hip::Kind;
  if (name == "flash_attention_kernel") return run<hip::flash_attention<Tile, Kind::generic>>;
  if (name == "flash_attention_causal_kernel") return run<hip::flash_attention<Tile, Kind::causal>>;
  return name == "flash_attention_nocausal_kernel" ? run<hip::flash_attention<Tile, Kind::nocausal>>
                                                   : nullptr;
}

template <void (*kKernel)(const hip::ServingParams&)>
void run_listed(const void* params) {
  kKernel(*static_cast<const hip::ServingParams*>(params));
}
template <class Tile, bool kModifies, bool kSmallPages>
void decode(const void* params) {
  hip::DecodeAttention<Tile, kModifies, kSmallPages>(
      *static_cast<const hip::ServingParams*>(params))
      .run();
}
template <class Tile>
HostKernel decode(const std::string& name) {
  if (name == "decode_attention_kernel") return decode<Tile, true, false>;
  if (name == "decode_attention_plain_kernel") return decode<Tile, false, false>;
  return name == "decode_attention_small_pages_kernel" ? decode<Tile, true, true> : nullptr;
}

template <hip::Family kFamily, class Tile>
HostKernel serving(const std::string& name) {
  using T = typename Tile::Element;
  using hip::Kind;
  if (name == "listed_attention_kernel")
    return run_listed<hip::listed_attention<Tile, Kind::listed>>;
  if (name == "listed_attention_plain_kernel")
    return run_listed<hip::listed_attention<Tile, Kind::listed_plain>>;
  if (name == "combine_kernel") return run_listed<hip::combine<T, hip::OnlineSoftmax<Tile>>>;
  if constexpr (kFamily == hip::Family::mma_sm80 && T::kBytes == 2)
    return decode<hip::DecodeTile<T, Tile::kDim, false>>(name);
  return nullptr;
}

// K and V of 8 bits. kLarge: see DecodeTile.
template <class T, int kDim, bool kLarge>
HostKernel stored_decode(const std::string& name) {
  using Tile = hip::StoredDecodeTile<T, kDim, kLarge>;
  if (name == "decode_attention_plain_kernel") return decode<Tile, false, false>;
  return name == "decode_attention_small_pages_kernel" ? decode<Tile, true, true> : nullptr;
}
template <hip::Family kFamily, class Base>
HostKernel stored(const std::string& name) {
  if constexpr (Base::Element::kBytes == 2) {
    using T = typename Base::Element;
    using Tile = hip::StoredTile<Base>;
    using hip::Kind;
    if (name == "listed_attention_kernel")
      return run_listed<hip::listed_attention<Tile, Kind::listed>>;
    if (name == "listed_attention_plain_kernel")
      return run_listed<hip::listed_attention<Tile, Kind::listed_plain>>;
    if (name == "combine_kernel") return run_listed<hip::combine<T, hip::OnlineSoftmax<Tile>>>;
    if constexpr (kFamily == hip::Family::mma_sm80)
      return stored_decode<T, Tile::kDim, false>(name);
  }
  return nullptr;
}

template <hip::Family kFamily, class Tile>
HostKernel of_tile(const std::string& object, const std::string& name) {
  if (object.starts_with("serving_attention_kv8_")) return stored<kFamily, Tile>(name);
  if (object.starts_with("serving_")) return serving<kFamily, Tile>(name);
  return object.starts_with("unfused_") ? unfused<Tile>(name) : flash<Tile>(name);
}

template <hip::Family kFamily, class T>
HostKernel of_dtype(const std::string& object, const std::string& name) {
  if (object.ends_with("_64")) return of_tile<kFamily, hip::Tile<kFamily, T, 64>>(object, name);
  if (object.ends_with("_128")) return of_tile<kFamily, hip::Tile<kFamily, T, 128>>(object, name);
  return object.ends_with("_256") ? of_tile<kFamily, hip::Tile<kFamily, T, 256>>(object, name)
                                  : nullptr;
}

}  // namespace find

template <hip::Family kFamily>
HostKernel kernel_of_family(const char* object, const char* name) {
  // <flash, unfused or serving>_attention[_kv8]_<dtype>_<dim>
  const std::string text = object;
  if (text.find("_f32_") != text.npos) return find::of_dtype<kFamily, hip::F32>(text, name);
  if (text.find("_f16_") != text.npos) return find::of_dtype<kFamily, hip::F16>(text, name);
  return text.find("_bf16_") != text.npos ? find::of_dtype<kFamily, hip::BF16>(text, name)
                                          : nullptr;
}

extern template HostKernel kernel_of_family<hip::Family::wmma_gfx11>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::wmma_gfx12>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::mfma>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::mma_sm80>(const char*, const char*);
template <>
HostKernel kernel_of_family<hip::Family::wgmma_sm90>(const char* object, const char* name);
extern template HostKernel kernel_of_family<hip::Family::valu32>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::valu64>(const char*, const char*);

}  // namespace kernels::test
