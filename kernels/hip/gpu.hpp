// kernels/hip/gpu.hpp: one set of names for three platforms: AMD (HIP), NVIDIA (CUDA), and the host
//
// This is the only file that knows how each platform names threads, memory and barriers. Device
// code needs no vendor header and no device library: on AMD it is clang's HIP language with
// compiler builtins, on NVIDIA it is nvcc with inline PTX. On the host (GPU_ON_HOST) the threads of
// a workgroup are fibers (kernels/hip/host/host.hpp), so that the same kernels run, and are
// checked, on machines without a GPU.
//
//   GPU_DEVICE                      a device function, always inlined
//   GPU_KERNEL(threads, per_unit)   a kernel's entry. threads: of a workgroup. per_unit: how many
//                                   workgroups of a multiprocessor (NVIDIA) or waves of a SIMD
//                                   (AMD) should fit at once; the compiler limits registers
//                                   accordingly.
//   GPU_GRID_CONSTANT               of a kernel's parameter: its address may be taken
//   GPU_UNROLL, GPU_UNROLL_BY(n)    unrolls the loop that follows, whole or n times
//
// Words: a wave is AMD's wave of 32 or 64 lanes, or NVIDIA's warp; workgroup memory is LDS, or
// shared memory.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define GPU_NVIDIA 1
#elif defined(__HIP__)
#define GPU_AMD 1
#define __host__ __attribute__((host))
#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#else
#define GPU_ON_HOST 1
#include "kernels/hip/host/host.hpp"
#endif

#if defined(GPU_ON_HOST)
#define GPU_DEVICE inline
#define GPU_KERNEL(threads, per_unit) inline void
#define GPU_GRID_CONSTANT
#define GPU_UNROLL
#define GPU_UNROLL_BY(n)
#elif defined(GPU_NVIDIA)
#define GPU_DEVICE __device__ __forceinline__
#define GPU_KERNEL(threads, per_unit) \
  extern "C" __global__ void __launch_bounds__(threads, per_unit)
#define GPU_GRID_CONSTANT __grid_constant__
#define GPU_UNROLL _Pragma("unroll")
#define GPU_UNROLL_BY(n) GPU_PRAGMA(unroll n)
#define GPU_PRAGMA(text) _Pragma(#text)
#else
#define GPU_DEVICE __device__ __attribute__((always_inline)) inline
#define GPU_KERNEL(threads, per_unit)                                                 \
  extern "C" __global__ __attribute__((amdgpu_flat_work_group_size(threads, threads), \
                                       amdgpu_waves_per_eu(per_unit))) void
#define GPU_GRID_CONSTANT
#define GPU_UNROLL _Pragma("unroll")
#define GPU_UNROLL_BY(n) GPU_PRAGMA(unroll n)
#define GPU_PRAGMA(text) _Pragma(#text)
#endif

namespace gpu {

inline constexpr float kInfinity = __builtin_inff();
inline constexpr float kLog2E = 1.4426950408889634F;  // log2(e): exp(x) = 2^(x * kLog2E)
inline constexpr float kLn2 = 0.6931471805599453F;    // ln(2): ln(x) = log2(x) * kLn2

// The widest load and store of one lane.
struct alignas(16) Bits128 {
  uint32_t word[4];
};
struct alignas(8) Bits64 {
  uint32_t word[2];
};

#if defined(GPU_AMD)
template <int N>
using Floats = float __attribute__((ext_vector_type(N)));
#else
template <int N>
struct Floats {
  float element[N];
  GPU_DEVICE float& operator[](int i) { return element[i]; }
  GPU_DEVICE float operator[](int i) const { return element[i]; }
};
#endif

// ---- The calling thread's number in its workgroup, and the workgroup's in the grid. ----
#if defined(GPU_ON_HOST)
inline uint32_t thread() { return host::current().thread; }
inline uint32_t block_x() { return host::current().block[0]; }
inline uint32_t block_y() { return host::current().block[1]; }
inline uint32_t block_z() { return host::current().block[2]; }
inline uint32_t grid_x() { return host::current().grid[0]; }
inline int uniform(int value) { return value; }
#elif defined(GPU_NVIDIA)
GPU_DEVICE uint32_t thread() { return threadIdx.x; }
GPU_DEVICE uint32_t block_x() { return blockIdx.x; }
GPU_DEVICE uint32_t block_y() { return blockIdx.y; }
GPU_DEVICE uint32_t block_z() { return blockIdx.z; }
GPU_DEVICE uint32_t grid_x() { return gridDim.x; }
GPU_DEVICE int uniform(int value) { return __shfl_sync(0xFFFFFFFFu, value, 0); }
#else
GPU_DEVICE uint32_t thread() { return __builtin_amdgcn_workitem_id_x(); }
GPU_DEVICE uint32_t block_x() { return __builtin_amdgcn_workgroup_id_x(); }
GPU_DEVICE uint32_t block_y() { return __builtin_amdgcn_workgroup_id_y(); }
GPU_DEVICE uint32_t block_z() { return __builtin_amdgcn_workgroup_id_z(); }
// Tells the compiler that all lanes of the wave have this value, so that it is kept in a scalar
// register.
GPU_DEVICE int uniform(int value) { return __builtin_amdgcn_readfirstlane(value); }
#endif

// ---- Arithmetic. ----
#if defined(GPU_ON_HOST)
inline float exp2(float x) { return __builtin_exp2f(x); }
inline float log2(float x) { return __builtin_log2f(x); }
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float divide(float a, float b) { return a / b; }
#elif defined(GPU_NVIDIA)
GPU_DEVICE float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
GPU_DEVICE float log2(float x) { return ::log2f(x); }
GPU_DEVICE float max(float a, float b) { return ::fmaxf(a, b); }
GPU_DEVICE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
GPU_DEVICE float divide(float a, float b) { return __fdividef(a, b); }
#else
GPU_DEVICE float exp2(float x) { return __builtin_amdgcn_exp2f(x); }
GPU_DEVICE float log2(float x) { return __builtin_amdgcn_logf(x); }
GPU_DEVICE float max(float a, float b) { return __builtin_fmaxf(a, b); }
GPU_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
GPU_DEVICE float divide(float a, float b) { return a * __builtin_amdgcn_rcpf(b); }
#endif

// RETURNS a word of four bytes of a and b. Digit i of kSelector, a hexadecimal number, says which
// one is byte i: 0 to 3 are the bytes of a, 4 to 7 those of b.
template <uint32_t kSelector>
GPU_DEVICE uint32_t bytes_of(uint32_t a, uint32_t b) {
#if defined(GPU_NVIDIA)
  return __byte_perm(a, b, kSelector);
#else
  constexpr auto digit = [](int i) { return kSelector >> 4 * i & 7; };
#if defined(GPU_AMD)
  constexpr uint32_t kBytes = digit(0) | digit(1) << 8 | digit(2) << 16 | digit(3) << 24;
  return __builtin_amdgcn_perm(b, a, kBytes);
#else
  const uint64_t both = a | uint64_t{b} << 32;
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i) word |= static_cast<uint32_t>(both >> 8 * digit(i) & 0xFF) << 8 * i;
  return word;
#endif
#endif
}

GPU_DEVICE float absolute(float x) { return __builtin_fabsf(x); }

// tanh to a relative error of about 1e-7. Near 0 it is an odd polynomial, because 1 - 2 / (e^2x +
// 1) would cancel there.
GPU_DEVICE float tanh(float x) {
  const float a = absolute(x), y = x * x;
  const float near =
      x * (1 + y * (-1 / 3.0F + y * (2 / 15.0F + y * (-17 / 315.0F + y * (62 / 2835.0F)))));
  const float far = 1 - divide(2, exp2(a * 2.885390081777927F) + 1);
  return a < 0.3F ? near : x < 0 ? -far : far;
}

// ---- Global memory. REQUIRES: aligned to its size. ----
GPU_DEVICE Bits128 load128(const void* at) {
#if defined(GPU_NVIDIA)
  const uint4 v = __ldg(static_cast<const uint4*>(at));
  return {{v.x, v.y, v.z, v.w}};
#else
  return *static_cast<const Bits128*>(at);
#endif
}
// Loads from base + offset_bytes. base: the same in all lanes of the wave. On AMD, pass an offset
// that is recomputed() nearby: then the load needs one vector register for its address.
GPU_DEVICE Bits128 load128(const void* base, uint32_t offset_bytes) {
#if defined(GPU_AMD)
  // Hides how base was computed, so that the address stays a pair of scalar registers and one
  // vector register. A compiler that knows how would keep each lane's sum of the two in a pair of
  // vector registers.
  typedef const __attribute__((address_space(1))) char* Global;
  Global scalar = (Global) static_cast<const char*>(base);
  asm volatile("" : "+s"(scalar));
  typedef uint32_t Words __attribute__((ext_vector_type(4)));
  return __builtin_bit_cast(
      Bits128, *(const __attribute__((address_space(1))) Words*)(scalar + offset_bytes));
#else
  return load128(static_cast<const char*>(base) + offset_bytes);
#endif
}
GPU_DEVICE Bits64 load64(const void* at) {
#if defined(GPU_NVIDIA)
  const uint2 v = __ldg(static_cast<const uint2*>(at));
  return {{v.x, v.y}};
#else
  return *static_cast<const Bits64*>(at);
#endif
}
GPU_DEVICE void store128(void* at, Bits128 value) { *static_cast<Bits128*>(at) = value; }
GPU_DEVICE void store64(void* at, Bits64 value) { *static_cast<Bits64*>(at) = value; }
GPU_DEVICE void store32(void* at, uint32_t value) { *static_cast<uint32_t*>(at) = value; }

// Tells the compiler that a pointer is one to global memory, where it cannot see that by itself: a
// pointer from an array in the kernel's argument. On AMD, accesses are then not slowed down by the
// question which kind of memory it is.
template <class V>
GPU_DEVICE V* global(V* pointer) {
#if defined(GPU_AMD)
  return (V*)(__attribute__((address_space(1))) V*)reinterpret_cast<uintptr_t>(pointer);
#else
  return pointer;
#endif
}

// ---- Workgroup memory, addressed by byte offset. The launch says how much there is. ----
#if defined(GPU_ON_HOST)
inline char* shared(uint32_t offset) { return host::current().shared(offset); }
#else
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// 128-byte swizzling repeats every 1024 bytes of the address.
extern __shared__ __attribute__((aligned(1024))) char shared_memory[];
#else
extern __shared__ __attribute__((aligned(128))) char shared_memory[];
#endif
GPU_DEVICE char* shared(uint32_t offset) { return shared_memory + offset; }
#endif
#if defined(GPU_NVIDIA)
GPU_DEVICE uint32_t shared_address(uint32_t offset) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared_memory)) + offset;
}
#endif

template <class V>
GPU_DEVICE V shared_load(uint32_t offset) {
  return *reinterpret_cast<const V*>(shared(offset));
}
// As shared_load, also where the compiler knows the value: it need not hold it in a register.
GPU_DEVICE uint32_t shared_load_again(uint32_t offset) {
  return *reinterpret_cast<const volatile uint32_t*>(shared(offset));
}
template <class V>
GPU_DEVICE void shared_store(uint32_t offset, V value) {
#if defined(GPU_ON_HOST)
  host::current().will_store(offset, sizeof(V));
#endif
  *reinterpret_cast<V*>(shared(offset)) = value;
}

// Adds to a number in global memory that all workgroups share. RETURNS what it was before.
GPU_DEVICE uint32_t atomic_add(uint32_t* at, uint32_t value) {
#if defined(GPU_ON_HOST)
  const uint32_t before = *at;  // one thread of the host runs all of them
  *at += value;
  return before;
#elif defined(GPU_NVIDIA)
  return atomicAdd(at, value);
#else
  return __hip_atomic_fetch_add(at, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
#endif
}

// ---- Barriers, and exchange between threads. ----
// Waits until all threads of the workgroup have come here. Then each sees what the others stored to
// workgroup memory.
#if defined(GPU_ON_HOST)
inline void barrier() { host::current().wait_for_block(); }
#elif defined(GPU_NVIDIA)
GPU_DEVICE void barrier() { __syncthreads(); }
#else
GPU_DEVICE void barrier() {
  // "local" orders workgroup memory alone, so that loads from global memory stay in flight across
  // the barrier.
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup", "local");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup", "local");
}
#endif

// Orders the accesses of one wave to workgroup memory, through which its lanes pass values to each
// other.
#if defined(GPU_ON_HOST)
inline void wave_barrier(int wave) { host::current().wait_for_wave(wave); }
#elif defined(GPU_NVIDIA)
GPU_DEVICE void wave_barrier(int) { __syncwarp(); }
#else
GPU_DEVICE void wave_barrier(int) {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront", "local");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront", "local");
}
#endif

// RETURNS the value of the lane whose number differs from this one's in `bit`, a power of two below
// kWave.
template <int kWave>
GPU_DEVICE uint32_t exchange(uint32_t value, int bit) {
#if defined(GPU_ON_HOST)
  return host::current().exchange(value, kWave, bit);
#elif defined(GPU_NVIDIA)
  return __shfl_xor_sync(0xFFFFFFFFu, value, bit);
#else
#if defined(__GFX10__) || defined(__GFX11__) || defined(__GFX12__)
  // One vector instruction. The general case below goes through the crossbar of workgroup memory.
  if (bit == 16)
    return __builtin_amdgcn_permlanex16(value, value, 0x76543210, 0xFEDCBA98, true, false);
#endif
  if (bit == 1)
    return __builtin_amdgcn_update_dpp(value, value, 0xB1, 0xF, 0xF, true);  // quad_perm [1,0,3,2]
  if (bit == 2)
    return __builtin_amdgcn_update_dpp(value, value, 0x4E, 0xF, 0xF, true);  // quad_perm [2,3,0,1]
  const uint32_t lane = __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u));
  return __builtin_amdgcn_ds_bpermute((lane ^ bit) << 2, value);
#endif
}
template <int kWave>
GPU_DEVICE float exchange(float value, int bit) {
  return __builtin_bit_cast(float, exchange<kWave>(__builtin_bit_cast(uint32_t, value), bit));
}

// RETURNS the value of lane `from`, which may differ from lane to lane.
template <int kWave>
GPU_DEVICE int32_t value_of_lane(int32_t value, int from) {
#if defined(GPU_ON_HOST)
  const uint32_t word = static_cast<uint32_t>(value);
  return static_cast<int32_t>(host::current().gather(&word, 1, kWave)[from]);
#elif defined(GPU_NVIDIA)
  return __shfl_sync(0xFFFFFFFFu, value, from);
#else
  return __builtin_amdgcn_ds_bpermute(from << 2, value);
#endif
}

// Waits until the kernel before this one in the stream is complete, where this one was launched
// before that: see Launch::overlaps. Else does nothing.
GPU_DEVICE void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the kernel after this one in the stream start as soon as all workgroups have come here, if
// it overlaps. It still waits for the end of this one where it says so.
GPU_DEVICE void start_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Keeps the compiler from moving instructions across this point. Without it, the scheduler starts
// all reads of an unrolled loop at once, and the registers that they take spill.
GPU_DEVICE void schedule_fence() {
#if defined(GPU_AMD)
  __builtin_amdgcn_sched_barrier(0);
#endif
}

// Hides how value was computed, so that the compiler recomputes what depends on it at each use,
// instead of computing it once before a loop and holding it in registers. scalar() is the same for
// a value that all lanes of the wave share.
template <class V>
GPU_DEVICE V recomputed(V value) {
#if defined(GPU_AMD)
  asm volatile("" : "+v"(value));
#endif
  return value;
}
template <class V>
GPU_DEVICE V scalar(V value) {
#if defined(GPU_AMD)
  asm volatile("" : "+s"(value));
#endif
  return value;
}

// Computes a pointer here, for all of its uses. Else NVIDIA's compiler computes it again at each
// use that has a condition of its own.
template <class V>
GPU_DEVICE V* computed_here(V* pointer) {
#if defined(GPU_NVIDIA)
  asm volatile("" : "+l"(pointer));
#endif
  return pointer;
}

// Tells the compiler that value may be anything from here on. If one path of a loop sets a variable
// and the other does not, AMD's compiler reserves registers to carry the previous iteration's value
// along the other path; this call on that path frees them.
template <int N>
GPU_DEVICE void leave_undefined([[maybe_unused]] Floats<N>& value) {
#if defined(GPU_AMD)
  asm volatile("" : "=v"(value));
#endif
}
GPU_DEVICE void leave_undefined([[maybe_unused]] Bits64& value) {
#if defined(GPU_AMD)
  Floats<2> any;
  leave_undefined<2>(any);
  value = __builtin_bit_cast(Bits64, any);
#endif
}
GPU_DEVICE void leave_undefined([[maybe_unused]] Bits128& value) {
#if defined(GPU_AMD)
  Floats<4> any;
  leave_undefined<4>(any);
  value = __builtin_bit_cast(Bits128, any);
#endif
}

// Whether the condition holds in any lane of the wave: the same answer in all lanes.
template <int kWave>
GPU_DEVICE bool any(bool condition) {
#if defined(GPU_ON_HOST)
  return host::current().any(condition, kWave);
#elif defined(GPU_NVIDIA)
  return __any_sync(0xFFFFFFFFu, condition);
#else
  if constexpr (kWave == 64) return __builtin_amdgcn_ballot_w64(condition) != 0;
  return __builtin_amdgcn_ballot_w32(condition) != 0;
#endif
}

}  // namespace gpu
