// kernels/hip/async.hpp: asynchronous copies and the barriers that they complete on, of NVIDIA
// sm_90a
//
// A copy of a tile (TMA) runs beside the threads. It completes on an mbarrier: an object of 8 bytes
// in workgroup memory that counts arrivals of threads and bytes of copies. When both are complete,
// its phase is, and the next begins. The phases' parities are 0, 1, 0, 1, ...; so a wait for parity
// 1 on a new mbarrier returns at once.
//
//   producer                               consumer
//     mbarrier_wait(empty, parity ^ 1)
//     mbarrier_arrive_expect(full, bytes)
//     copy_tile(to, map, full, at)         mbarrier_wait(full, parity)
//                                          ... reads ...
//                                          mbarrier_arrive(empty)
//
// Places in workgroup memory are byte offsets, as in gpu.hpp. On the host (host/async.hpp) a misuse
// ends the process with the reason.
#pragma once

#include "kernels/hip/gpu.hpp"

#if defined(GPU_AMD)
#error "for NVIDIA sm_90a"
#elif defined(GPU_ON_HOST)
#include "kernels/hip/host/async.hpp"
#endif

namespace gpu {

// ---- mbarriers ----

// Creates an mbarrier at a multiple of 8 bytes. One thread calls it, then mbarrier_init_fence(),
// and the workgroup passes barrier() before another thread uses it. arrivals: of each phase.
GPU_DEVICE void mbarrier_init(uint32_t at, uint32_t arrivals) {
#if defined(GPU_ON_HOST)
  host::mbarrier_init(at, arrivals);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(arrivals)
               : "memory");
#endif
}

// Shows the mbarriers that this thread has created to copies.
GPU_DEVICE void mbarrier_init_fence() {
#if defined(GPU_ON_HOST)
  host::mbarrier_init_fence();
#else
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

GPU_DEVICE void mbarrier_arrive(uint32_t at) {
#if defined(GPU_ON_HOST)
  host::mbarrier_arrive(at);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
#endif
}

// Arrives; the phase also waits for that many bytes of copies. Comes before these copies.
GPU_DEVICE void mbarrier_arrive_expect(uint32_t at, uint32_t bytes) {
#if defined(GPU_ON_HOST)
  host::mbarrier_arrive_expect(at, bytes);
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)),
               "r"(bytes)
               : "memory");
#endif
}

// Waits until the phase of that parity, the current one or the one before, is complete. Then the
// thread sees what the arriving threads stored, and what the copies brought.
GPU_DEVICE void mbarrier_wait(uint32_t at, uint32_t parity) {
#if defined(GPU_ON_HOST)
  host::mbarrier_wait(at, parity);
#else
  asm volatile(
      "{\n"
      ".reg .pred complete;\n"
      "AGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
      "@complete bra DONE;\n"
      "bra AGAIN;\n"
      "DONE:\n"
      "}" ::"r"(shared_address(at)),
      "r"(parity)
      : "memory");
#endif
}

// ---- Named barriers: 1 to 15 (0 is barrier()). Whole waves take part. ----

// Waits until `threads` threads, a multiple of 32, have come to named_barrier_wait or
// named_barrier_arrive of this id, this one included. Then the barrier can be used again.
GPU_DEVICE void named_barrier_wait(uint32_t id, uint32_t threads) {
#if defined(GPU_ON_HOST)
  host::named_barrier_wait(id, threads);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}
// Counts as having come, and does not wait.
GPU_DEVICE void named_barrier_arrive(uint32_t id, uint32_t threads) {
#if defined(GPU_ON_HOST)
  host::named_barrier_arrive(id, threads);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// ---- Copies ----

// Describes a tensor of 16-bit elements in global memory and the box of it that one copy brings. A
// kernel takes it within a __grid_constant__ parameter. NVIDIA: a CUtensorMap, encoded by the
// driver; host: encoded by host::encode.
struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

// Starts the copy of one box to workgroup memory; one thread calls it. It completes on the mbarrier
// with the bytes of the whole box.
// to: a multiple of 128 bytes. The box's rows of 64 or 32 elements, 128 or 64 bytes, follow each
// other there, with their 16-byte chunks swizzled: the chunk of byte offset b of workgroup memory
// is where that of b ^ (b / 128 % n) * 16 would be, n the chunks of a row.
// at: the box's first element in each dimension, the innermost first. Elements outside of the
// tensor, also at negative places, become zero.
template <int kRank>
GPU_DEVICE void copy_tile(uint32_t to, const TensorMap& map, uint32_t mbarrier,
                          const int32_t (&at)[kRank]) {
  static_assert(kRank >= 1 && kRank <= 5);
#if defined(GPU_ON_HOST)
  host::copy_tile(to, map, mbarrier, at, kRank);
#else
#define COPY_TILE(rank, coordinates, ...)                                                  \
  asm volatile(                                                                            \
      "cp.async.bulk.tensor." rank                                                         \
      ".shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {" coordinates \
      "}], [%2];" ::"r"(shared_address(to)),                                               \
      "l"(&map), "r"(shared_address(mbarrier)), __VA_ARGS__                                \
      : "memory")
  if constexpr (kRank == 1) {
    COPY_TILE("1d", "%3", "r"(at[0]));
  } else if constexpr (kRank == 2) {
    COPY_TILE("2d", "%3, %4", "r"(at[0]), "r"(at[1]));
  } else if constexpr (kRank == 3) {
    COPY_TILE("3d", "%3, %4, %5", "r"(at[0]), "r"(at[1]), "r"(at[2]));
  } else if constexpr (kRank == 4) {
    COPY_TILE("4d", "%3, %4, %5, %6", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]));
  } else {
    COPY_TILE("5d", "%3, %4, %5, %6, %7", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]),
              "r"(at[4]));
  }
#undef COPY_TILE
#endif
}

// Shows what this thread has stored to workgroup memory to wgmma and to copies that come after it.
GPU_DEVICE void fence_async_proxy() {
#if defined(GPU_ON_HOST)
  host::fence_async_proxy();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// ---- Registers ----

// Changes how many registers each thread of the warpgroup has, to a multiple of 8 from 24 to 256;
// its four waves all call it. raise_registers waits until so many are free.
template <int kCount>
GPU_DEVICE void raise_registers() {
  static_assert(kCount >= 24 && kCount <= 256 && kCount % 8 == 0);
#if defined(GPU_NVIDIA)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
#endif
}
template <int kCount>
GPU_DEVICE void lower_registers() {
  static_assert(kCount >= 24 && kCount <= 256 && kCount % 8 == 0);
#if defined(GPU_NVIDIA)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
#endif
}

}  // namespace gpu
