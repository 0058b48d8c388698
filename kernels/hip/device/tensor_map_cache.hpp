// kernels/hip/device/tensor_map_cache.hpp: tensor maps that were encoded before, by their request
//
// A tensor map is a function of its request alone: it holds addresses and sizes, nothing of the
// memory or the device. So one cache serves all plans and threads, and nothing in it grows stale.
//
//   request --> hash --> slot: the same request?  yes: copy its map    no: encode, and replace it
//
//   bound    kSlots slots of about 256 bytes. Two requests of one slot replace each other.
//   threads  a slot has a flag in place of a lock: a thread that finds it taken encodes its map
//            itself, and never waits. After a fork, a slot that was taken stays so in the child.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "kernels/hip/launch/tensor_map.hpp"

namespace kernels::hip {

// THREADS: any call from any threads at once. Allocates nothing.
class TensorMapCache {
 public:
  // Twice the maps of 80 layers, six of each, so that most of them have a slot of their own.
  static constexpr uint32_t kSlots = 1024;

  // Writes the request's map to `to`, which has kTensorMapBytes: the one from before, or the one
  // that encode(to) writes. RETURNS false, and keeps nothing, if encode does.
  template <class Encode>
  bool get(const TensorMapRequest& request, unsigned char* to, Encode&& encode) {
    const Key key = key_of(request);
    Slot& slot = slots_[hash_of(key) % kSlots];
    if (slot.taken.test_and_set(std::memory_order_acquire)) return encode(to);
    const bool found = slot.full && slot.key == key;
    bool done = true;
    if (found) {
      std::memcpy(to, slot.map, kTensorMapBytes);
    } else if ((done = encode(to))) {
      slot.key = key;
      slot.full = true;
      std::memcpy(slot.map, to, kTensorMapBytes);
    }
    slot.taken.clear(std::memory_order_release);
    return done;
  }

 private:
  // All that a map is encoded from, in whole words: base, rank, sizes, strides, the box.
  using Key = std::array<uint64_t, 14>;
  struct Slot {
    std::atomic_flag taken;
    bool full = false;
    Key key{};
    alignas(kTensorMapAlignment) unsigned char map[kTensorMapBytes] = {};
  };

  // What is beyond the rank means nothing, and is 0 in the key.
  static Key key_of(const TensorMapRequest& request) {
    const uint32_t rank = std::min(request.rank, 5U);
    Key key{reinterpret_cast<uintptr_t>(request.base), request.rank};
    uint64_t* word = key.data() + 2;
    for (uint32_t n = 0; n < rank; ++n) word[n] = request.size[n];
    word += 5;
    for (uint32_t n = 0; n + 1 < rank; ++n) word[n] = request.stride[n];
    word += 4;
    for (uint32_t n = 0; n < rank; ++n) word[n / 2] |= uint64_t{request.box[n]} << (n % 2 * 32);
    return key;
  }

  // By what differs between the maps of a model: the address, the size and stride of rows, and the
  // box, since one launch may have several maps of one tensor.
  static uint64_t hash_of(const Key& key) {
    constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
    const uint64_t box = key[11] * kOdd ^ key[12] * (kOdd << 1 | 1);
    return ((key[0] ^ key[3] << 40 ^ key[7] << 48) * kOdd ^ box) * kOdd >> 40;
  }

  std::array<Slot, kSlots> slots_{};
};

}  // namespace kernels::hip
