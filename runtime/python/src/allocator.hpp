// runtime/python/src/allocator.hpp: device memory of a Python library, for workspaces
#pragma once

#include <attnrt/attnrt.h>
#include <attnrt/plugin.h>
#include <nanobind/nanobind.h>

#include <cstdint>
#include <exception>
#include <string>

namespace attnrt_python {

namespace nb = nanobind;

// Two Python functions, allocate(device_type, device_id, bytes, stream) and free(device_type,
// device_id, pointer, stream). allocate returns an address, or None where the backend's own memory
// is to be used. The runtime calls them from any thread, but never holds a lock that a thread with
// the GIL may wait for.
class PythonAllocator {
 public:
  explicit PythonAllocator(const nb::tuple& functions)
      : allocate_(functions[0]), free_(functions[1]) {}

  static attnrt_status allocate(void* self, int32_t device_type, int32_t device_id, int64_t bytes,
                                void* stream, void** pointer, attnrt_error* error) {
    if (!nb::is_alive() || Py_IsInitialized() == 0) return ATTNRT_UNSUPPORTED;
    const nb::gil_scoped_acquire gil;
    try {
      const nb::object address = static_cast<PythonAllocator*>(self)->allocate_(
          device_type, device_id, bytes, reinterpret_cast<uintptr_t>(stream));
      if (address.is_none()) return ATTNRT_UNSUPPORTED;
      *pointer = reinterpret_cast<void*>(nb::cast<uintptr_t>(address));
      return ATTNRT_OK;
    } catch (nb::python_error& raised) {
      const std::string type = nb::type_name(raised.type()).c_str();
      const bool no_memory =
          type.find("OutOfMemory") != std::string::npos || raised.matches(PyExc_MemoryError);
      return attnrt_fail(error, no_memory ? ATTNRT_OUT_OF_MEMORY : ATTNRT_INTERNAL, "%s",
                         raised.what());
    } catch (const std::exception& raised) {
      return attnrt_fail(error, ATTNRT_INTERNAL, "%s", raised.what());
    }
  }

  // At the end of the process the memory goes with it.
  static void free(void* self, int32_t device_type, int32_t device_id, void* pointer,
                   void* stream) {
    if (!nb::is_alive() || Py_IsInitialized() == 0) return;
    const nb::gil_scoped_acquire gil;
    try {
      static_cast<PythonAllocator*>(self)->free_(device_type, device_id,
                                                 reinterpret_cast<uintptr_t>(pointer),
                                                 reinterpret_cast<uintptr_t>(stream));
    } catch (nb::python_error& raised) {
      raised.discard_as_unraisable("attnrt: freeing device memory");
    }
  }

 private:
  nb::object allocate_, free_;
};

}  // namespace attnrt_python
