// kernels/hip/tile/wgmma.hpp: NVIDIA's products of a warpgroup (wgmma, sm_90a), 64 x columns x 16
//
// A warpgroup, four waves side by side, multiplies D[64, columns] += A[64, 16] B[16, columns]. B is
// in workgroup memory, A there or in registers, D in registers. Products run beside the threads:
//
//   wgmma_fence()     after the threads' own accesses to D, and to A in registers
//   multiply(...)     products on the same D, one after the other, need no fence between them
//   wgmma_commit()    makes a group of the products since the last one
//   wgmma_wait<n>()   waits until at most the n newest groups are running
//
// From multiply to the wait that covers it nobody may touch D, A's registers or the operands in
// workgroup memory. What threads stored there must pass gpu::fence_async_proxy() first. On the host
// (host/wgmma.cpp) a misuse gives NaN or ends the process with the reason.
//
// Which lane l of wave w of the warpgroup holds which element (PTX ISA, wgmma.m64nNk16):
//
//   D  element e: row 16 w + l / 4 + 8 (e / 2 % 2), column 8 (e / 4) + 2 (l % 4) + e % 2
//   A  words 0, 1: rows 16 w + l / 4 and 8 further, k 2 (l % 4) and the next; words 2, 3: k 8
//      further. So elements 8 t to 8 t + 7 of a D, rounded in pairs, are A of its columns 16 t to
//      16 t + 15.
//
// Operands in workgroup memory lie as copy_tile puts them, in panels of rows of 64 or 32 elements
// that begin at multiples of 1024 or 512 bytes:
//
//   K-major    a row holds k's of one row of A or column of B. The next 16 k are 32 bytes on.
//   MN-major   a row holds columns of one k of B. The next 16 k are 16 rows on.
#pragma once

#include "kernels/hip/async.hpp"
#include "kernels/hip/dtype.hpp"

#if defined(GPU_ON_HOST)
#include "kernels/hip/host/wgmma.hpp"
#endif

namespace kernels::hip {

// Describes an operand in workgroup memory. Adding bytes / 16 moves it. kRowBytes: of a panel, 128
// or 64. offset: of its first element. leading_bytes: between panels (MN-major; ignored if
// K-major). stride_bytes: between groups of 8 rows.
template <uint32_t kRowBytes = 128>
GPU_DEVICE uint64_t matrix_descriptor(uint32_t offset, uint32_t leading_bytes,
                                      uint32_t stride_bytes) {
  static_assert(kRowBytes == 128 || kRowBytes == 64);
#if defined(GPU_NVIDIA)
  offset = gpu::shared_address(offset);
#endif
  constexpr uint64_t kSwizzle = kRowBytes == 128 ? 1 : 2;
  return kSwizzle << 62 | (offset & 0x3FFFF) >> 4 | uint64_t{leading_bytes >> 4} << 16 |
         uint64_t{stride_bytes >> 4} << 32;
}

GPU_DEVICE void wgmma_fence() {
#if defined(GPU_ON_HOST)
  gpu::host::wgmma_fence();
#else
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
GPU_DEVICE void wgmma_commit() {
#if defined(GPU_ON_HOST)
  gpu::host::wgmma_commit();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int kPending>
GPU_DEVICE void wgmma_wait() {
#if defined(GPU_ON_HOST)
  gpu::host::wgmma_wait(kPending);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

// Keeps the compiler from moving accesses to D across this point. Comes before the fence and after
// the wait.
template <int n>
GPU_DEVICE void pin([[maybe_unused]] float (&registers)[n]) {
#if defined(GPU_NVIDIA)
  GPU_UNROLL for (int i = 0; i < n; ++i) asm volatile("" : "+f"(registers[i])::"memory");
#endif
}

#if defined(GPU_NVIDIA)
// The accumulators in an asm statement: WGMMA_TEXT_n is their names, WGMMA_LIST_n the operands.
#define WGMMA_TEXT_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define WGMMA_TEXT_16 WGMMA_TEXT_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_TEXT_24 WGMMA_TEXT_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define WGMMA_TEXT_32 WGMMA_TEXT_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_TEXT_40 WGMMA_TEXT_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define WGMMA_TEXT_48 WGMMA_TEXT_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_TEXT_56 WGMMA_TEXT_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define WGMMA_TEXT_64 WGMMA_TEXT_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_TEXT_72 WGMMA_TEXT_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define WGMMA_TEXT_80 WGMMA_TEXT_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_TEXT_88 WGMMA_TEXT_80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define WGMMA_TEXT_96 WGMMA_TEXT_88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_TEXT_104 WGMMA_TEXT_96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define WGMMA_TEXT_112 WGMMA_TEXT_104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define WGMMA_TEXT_120 WGMMA_TEXT_112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define WGMMA_TEXT_128 WGMMA_TEXT_120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_LIST_8_FROM(i)                                                                  \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_LIST_8 WGMMA_LIST_8_FROM(0)
#define WGMMA_LIST_16 WGMMA_LIST_8, WGMMA_LIST_8_FROM(8)
#define WGMMA_LIST_24 WGMMA_LIST_16, WGMMA_LIST_8_FROM(16)
#define WGMMA_LIST_32 WGMMA_LIST_24, WGMMA_LIST_8_FROM(24)
#define WGMMA_LIST_40 WGMMA_LIST_32, WGMMA_LIST_8_FROM(32)
#define WGMMA_LIST_48 WGMMA_LIST_40, WGMMA_LIST_8_FROM(40)
#define WGMMA_LIST_56 WGMMA_LIST_48, WGMMA_LIST_8_FROM(48)
#define WGMMA_LIST_64 WGMMA_LIST_56, WGMMA_LIST_8_FROM(56)
#define WGMMA_LIST_72 WGMMA_LIST_64, WGMMA_LIST_8_FROM(64)
#define WGMMA_LIST_80 WGMMA_LIST_72, WGMMA_LIST_8_FROM(72)
#define WGMMA_LIST_88 WGMMA_LIST_80, WGMMA_LIST_8_FROM(80)
#define WGMMA_LIST_96 WGMMA_LIST_88, WGMMA_LIST_8_FROM(88)
#define WGMMA_LIST_104 WGMMA_LIST_96, WGMMA_LIST_8_FROM(96)
#define WGMMA_LIST_112 WGMMA_LIST_104, WGMMA_LIST_8_FROM(104)
#define WGMMA_LIST_120 WGMMA_LIST_112, WGMMA_LIST_8_FROM(112)
#define WGMMA_LIST_128 WGMMA_LIST_120, WGMMA_LIST_8_FROM(120)

// One product. type: of A and B. floats: accumulators in a thread. i1, i2, ...: floats + 1,
// floats + 2, ..., which with floats itself are the numbers of the operands after the accumulators.
#define WGMMA_SHARED(type, columns, floats, i1, i2, i3, i4)                              \
  asm volatile("{ .reg .pred keep; setp.ne.b32 keep, %" #i2                              \
               ", 0;\n"                                                                  \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type     \
               " {" WGMMA_TEXT_##floats "}, %" #floats ", %" #i1 ", keep, 1, 1, 0, 0; }" \
               : WGMMA_LIST_##floats                                                     \
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))
#define WGMMA_SHARED_WEIGHTS(type, columns, floats, i1, i2, i3, i4)                  \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type \
               " {" WGMMA_TEXT_##floats "}, %" #floats ", %" #i1 ", 1, 1, 1, 0, 1;"  \
               : WGMMA_LIST_##floats                                                 \
               : "l"(a), "l"(b))
#define WGMMA_REGISTERS(type, columns, floats, i1, i2, i3, i4)                                   \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type             \
               " {" WGMMA_TEXT_##floats "}, {%" #floats ", %" #i1 ", %" #i2 ", %" #i3 "}, %" #i4 \
                                        ", 1, 1, 1, 1;"                                          \
               : WGMMA_LIST_##floats                                                             \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
// The product of kColumns and T. one_product: one of the three above.
#define WGMMA_CASE(one_product, columns, ...)    \
  if constexpr (kColumns == columns) {           \
    if constexpr (T::kDType == DType::f16) {     \
      one_product("f16", columns, __VA_ARGS__);  \
    } else {                                     \
      one_product("bf16", columns, __VA_ARGS__); \
    }                                            \
  }
#define WGMMA_OF_WIDTH(one_product)                 \
  WGMMA_CASE(one_product, 32, 16, 17, 18, 19, 20)   \
  WGMMA_CASE(one_product, 64, 32, 33, 34, 35, 36)   \
  WGMMA_CASE(one_product, 80, 40, 41, 42, 43, 44)   \
  WGMMA_CASE(one_product, 96, 48, 49, 50, 51, 52)   \
  WGMMA_CASE(one_product, 112, 56, 57, 58, 59, 60)  \
  WGMMA_CASE(one_product, 128, 64, 65, 66, 67, 68)  \
  WGMMA_CASE(one_product, 192, 96, 97, 98, 99, 100) \
  WGMMA_CASE(one_product, 256, 128, 129, 130, 131, 132)
#endif

// T: F16 or BF16, of A and B.
template <class T, int kColumns>
struct Wgmma {
  static_assert(T::kBytes == 2);
  static_assert(kColumns == 32 || kColumns == 64 || kColumns == 80 || kColumns == 96 ||
                kColumns == 112 || kColumns == 128 || kColumns == 192 || kColumns == 256);
  using Accumulator = float[kColumns / 2];

  // D = A B, or D += A B if accumulate. a, b: descriptors of K-major operands.
  GPU_DEVICE static void multiply(Accumulator& d, uint64_t a, uint64_t b, bool accumulate) {
#if defined(GPU_ON_HOST)
    gpu::host::wgmma({T::kDType, kColumns, d, accumulate, nullptr, a, b, false});
#else
    WGMMA_OF_WIDTH(WGMMA_SHARED)
#endif
  }

  // D += A B, with A in workgroup memory too. a: descriptor of a K-major operand, b: of an MN-major
  // one.
  GPU_DEVICE static void multiply_weights(Accumulator& d, uint64_t a, uint64_t b) {
#if defined(GPU_ON_HOST)
    gpu::host::wgmma({T::kDType, kColumns, d, true, nullptr, a, b, true});
#else
    WGMMA_OF_WIDTH(WGMMA_SHARED_WEIGHTS)
#endif
  }

  // D += A B, with A in registers. b: descriptor of an MN-major operand.
  GPU_DEVICE static void multiply(Accumulator& d, const uint32_t (&a)[4], uint64_t b) {
#if defined(GPU_ON_HOST)
    gpu::host::wgmma({T::kDType, kColumns, d, true, a, 0, b, true});
#else
    WGMMA_OF_WIDTH(WGMMA_REGISTERS)
#endif
  }
};

#if defined(GPU_NVIDIA)
#undef WGMMA_OF_WIDTH
#undef WGMMA_CASE
#undef WGMMA_REGISTERS
#undef WGMMA_SHARED_WEIGHTS
#undef WGMMA_SHARED
#endif

}  // namespace kernels::hip
