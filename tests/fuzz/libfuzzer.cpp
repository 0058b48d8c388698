// tests/fuzz/libfuzzer.cpp: hands libFuzzer's inputs to one target
#include <cstddef>
#include <cstdint>
#include <string_view>

void ATTNRT_FUZZ_TARGET(std::string_view input);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ATTNRT_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
