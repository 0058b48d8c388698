// runtime/conformance/guarded_memory.hpp: memory in which a plugin's mistakes are noticed
//
//     | guard | content | guard |    an image: it is written and read back as a whole
//             ^ the address that the plugin gets
//
// The guards are bytes that the plugin must leave alone. Whoever made the image compares them after
// the run. Unlike pages that are protected against access, this works in memory of any device. The
// content is aligned exactly: at a multiple of the alignment, but at no multiple of twice the
// alignment. So a plugin that assumes a larger alignment than it asked for or was promised does not
// succeed by luck. On the cpu, malloc allocates the memory. On other devices the plugin's
// attnrt.memory/1 does, and copies go through its pinned memory on the run's stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "conformance/subject.hpp"

namespace attnrt::conformance {

class GuardedMemory {
 public:
  // image_bytes: includes both guards. stream: the device memory is allocated and freed in its
  // order; it outlives this. If error() is not empty afterwards, there is no memory.
  GuardedMemory(Subject& subject, int64_t image_bytes, int64_t alignment, int64_t guard_bytes,
                void* stream);
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  ~GuardedMemory();

  std::byte* content() const { return image_ + guard_bytes_; }
  const std::string& error() const { return error_; }

  // Both copy the whole image. RETURN "" or what failed.
  std::string write(const void* image, void* stream);
  std::string read(void* image, void* stream);

 private:
  std::string copy(void* host, int32_t direction, void* stream);
  Subject& subject_;
  int64_t image_bytes_, guard_bytes_;
  void* const stream_;
  void* allocation_ = nullptr;
  std::byte* image_ = nullptr;
  std::string error_;
};

}  // namespace attnrt::conformance
