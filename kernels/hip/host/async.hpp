// kernels/hip/host/async.hpp: copies, mbarriers and named barriers of sm_90a on the CPU (see
// kernels/hip/async.hpp)
//
// By the launch's seed a copy completes when it is issued, or when a thread waits for its mbarrier;
// until then its destination is NaN. What ends the process, with the reason:
//
//   mbarriers       used before the workgroup has passed barrier() since their creation; created
//                   twice; overwritten; an arrival too many; a phase that completes while a thread
//                   still waits for the one before, or if no thread has waited for that: a parity
//                   cannot tell the two apart
//   copies          of more bytes than their mbarrier expects; to bytes that another copy may be
//                   writing or a product reading (see below), or that a thread stored to without
//                   fence_async_proxy(); in flight when the workgroup ends
//   stores          by gpu::shared_store to such bytes
//   named barriers  of waves in part; where threads say different counts
//
// Another copy or product may be using bytes unless the thread knows that it is complete: it has
// waited for it, or has met (at an mbarrier, a barrier, an exchange) a thread that knew. So a wait
// that is missing, or that comes after the arrival, is found in any order of the threads.
//
// Not modelled: loads of bytes that a copy has brought, by a thread that does not know it (they are
// NaN or right, by the seed); registers; clusters.
#pragma once

#include <cstdint>

namespace gpu {
struct TensorMap;
}

namespace gpu::host {

void mbarrier_init(uint32_t at, uint32_t arrivals);
void mbarrier_init_fence();
void mbarrier_arrive(uint32_t at);
void mbarrier_arrive_expect(uint32_t at, uint32_t bytes);
void mbarrier_wait(uint32_t at, uint32_t parity);
void named_barrier_wait(uint32_t id, uint32_t threads);
void named_barrier_arrive(uint32_t id, uint32_t threads);
void copy_tile(uint32_t to, const TensorMap& map, uint32_t mbarrier, const int32_t* at,
               uint32_t rank);
void fence_async_proxy();

// What a TensorMap holds on the host: a tensor of 16-bit elements, its innermost dimension first.
struct Tensor {
  const void* base;
  uint32_t rank;
  uint64_t size[5];    // in elements
  uint64_t stride[4];  // in bytes, of the dimensions from the second on
  uint32_t box[5];     // in elements
};
// REQUIRES: what cuTensorMapEncodeTiled requires, and rows of the box of 64 elements; else it ends
// the process.
void encode(const Tensor& tensor, TensorMap* map);

// Encodes a request that has the members of Tensor.
template <class Request>
void encode(const Request& request, TensorMap* map) {
  Tensor tensor = {request.base, request.rank, {}, {}, {}};
  for (uint32_t i = 0; i < request.rank && i < 5; ++i) {
    tensor.size[i] = request.size[i];
    tensor.box[i] = request.box[i];
    if (i > 0) tensor.stride[i - 1] = request.stride[i - 1];
  }
  encode(tensor, map);
}

}  // namespace gpu::host
