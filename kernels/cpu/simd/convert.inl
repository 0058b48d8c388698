// kernels/cpu/simd/convert.inl: a row of f32, f16 or bf16 into floats and back (included by targets.cpp, once per target)

// A vector of a row's elements, from x on.
template <DType kDType>
inline Vector widen(const void* row, int64_t x) {
  const Floats d;
  if constexpr (kDType == DType::f32) {
    return hn::LoadU(d, static_cast<const float*>(row) + x);
  } else if constexpr (kDType == DType::bf16) {
    const hn::Rebind<uint16_t, Floats> d16;
    const hn::Rebind<uint32_t, Floats> d32;
    const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, static_cast<const uint16_t*>(row) + x));
    return hn::BitCast(d, hn::ShiftLeft<16>(bits));
  } else if constexpr (kHasF16) {
    const hn::Rebind<hwy::float16_t, Floats> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, static_cast<const hwy::float16_t*>(row) + x));
  } else {
    HWY_ALIGN float floats[kLanes];
    for (int64_t n = 0; n < kLanes; ++n)
      floats[n] = f16_to_f32(static_cast<const uint16_t*>(row)[x + n]);
    return hn::Load(d, floats);
  }
}

// Writes n floats and zeros up to the next multiple of kPadFloats. Reads exactly n elements.
inline void load_row(DType dtype, const void* row, int64_t n, float* to) {
  const Floats d;
  int64_t x = 0;
  if (dtype == DType::f32) {
    memcpy(to, row, static_cast<size_t>(n) * sizeof(float));
    x = n;
  } else if (dtype == DType::bf16) {
    for (; x + kLanes <= n; x += kLanes) hn::StoreU(widen<DType::bf16>(row, x), d, to + x);
  } else if constexpr (kHasF16) {
    for (; x + kLanes <= n; x += kLanes) hn::StoreU(widen<DType::f16>(row, x), d, to + x);
  }
  for (; x < n; ++x) to[x] = load_float(dtype, row, x);
  for (const int64_t padded = round_up(n, kPadFloats); x < padded; ++x) to[x] = 0;
}

// Rounds n floats to the dtype. Writes exactly n elements; may use `from` as scratch (its padding included).
inline void store_row(DType dtype, float* from, int64_t n, void* row) {
  const Floats d;
  if (dtype == DType::f32) {
    memcpy(row, from, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  int64_t x = 0;
  if (dtype == DType::bf16) {
    const hn::Rebind<uint16_t, Floats> d16;
    const hn::Rebind<int32_t, Floats> d32;
    uint16_t* to = static_cast<uint16_t*>(row);
    for (; x + kLanes <= n; x += kLanes) {
      const Vector v = hn::LoadU(d, from + x);
      const auto bits = hn::BitCast(d32, v);
      const auto even = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
      const auto rounded = hn::Add(bits, hn::Add(hn::Set(d32, 0x7FFF), even));
      const auto quiet = hn::Or(bits, hn::Set(d32, 0x400000));
      const auto chosen = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), quiet, rounded);
      const hn::Rebind<uint32_t, Floats> du32;
      hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(hn::BitCast(du32, chosen))), d16, to + x);
    }
  } else if constexpr (kHasF16) {
    const hn::Rebind<hwy::float16_t, Floats> d16;
    hwy::float16_t* to = static_cast<hwy::float16_t*>(row);
    for (; x + kLanes <= n; x += kLanes)
      hn::StoreU(hn::DemoteTo(d16, hn::LoadU(d, from + x)), d16, to + x);
  }
  for (; x < n; ++x) store_float(dtype, row, x, from[x]);
}
