// runtime/python/src/torch.hpp: views of torch tensors by calls in C, without Python's __dlpack__
//
// torch.Tensor.__dlpack__ is a function in Python that takes microseconds. From 2.10 on torch also
// offers DLPack's C exchange API (dlpack.h of DLPack 1.3): a table of functions in a capsule. Other
// libraries, older versions of torch, and subclasses of its tensors are read by __dlpack__.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

namespace attnrt_python {

namespace nb = nanobind;

// The table, in DLPack's layout. Calls return 0, or -1 with a Python exception set.
struct ExchangeApi {
  struct Version {
    uint32_t major, minor;
  } version;
  ExchangeApi* previous;  // for an older major version; may be null
  void* unused[3];        // calls that pass ownership
  // Fills a view without ownership; it holds as long as the object lives and keeps its memory.
  int (*view)(void* object, nb::dlpack::dltensor* to);
  int (*current_stream)(int32_t device_type, int32_t device_id, void** stream);
};

// What is known of torch, once it was imported. REQUIRES of all calls: the GIL is held.
class Torch {
 public:
  // Whether the object is a torch tensor. If torch was never imported, nothing is.
  static bool has(nb::handle object) {
    return find() && PyType_IsSubtype(Py_TYPE(object.ptr()), tensor_) != 0;
  }
  // The table for the object; null if it is not exactly a torch.Tensor, or torch has no table.
  static const ExchangeApi* table_for(nb::handle object) {
    return find() && Py_TYPE(object.ptr()) == tensor_ ? table_ : nullptr;
  }
  // Whether torch records forward-mode gradients now, of some tensor.
  static bool in_forward_mode() {
    if (!find()) return false;
    static PyObject* const name = PyUnicode_InternFromString("_current_level");
    const auto level = nb::steal(PyObject_GetAttr(forward_ad_, name));
    if (level.is_valid() && PyLong_Check(level.ptr())) return PyLong_AsLong(level.ptr()) >= 0;
    PyErr_Clear();  // a torch that has another name for it
    return false;
  }

 private:
  static bool find() {
    if (tensor_ != nullptr) return true;
    static PyObject* const name = PyUnicode_InternFromString("torch");
    PyObject* const torch = PyDict_GetItemWithError(PyImport_GetModuleDict(), name);
    if (torch == nullptr) return false;
    const nb::object type = nb::getattr(torch, "Tensor", nb::none());
    if (!PyType_Check(type.ptr())) return false;  // it is being imported
    const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
    constexpr char kName[] = "dlpack_exchange_api";
    if (PyCapsule_IsValid(capsule.ptr(), kName) != 0) {
      auto* table = static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), kName));
      while (table != nullptr && table->version.major > 1) table = table->previous;
      if (table != nullptr && table->version.major == 1 && table->version.minor >= 3 &&
          table->view != nullptr && table->current_stream != nullptr)
        table_ = table;
    }
    const nb::object autograd = nb::getattr(torch, "autograd", nb::none());
    const nb::object forward_ad = nb::getattr(autograd, "forward_ad", nb::none());
    if (forward_ad.is_none()) return false;  // it is being imported
    forward_ad_ = nb::object(forward_ad).release().ptr();
    // Kept for ever, so that no other type gets this address.
    tensor_ = reinterpret_cast<PyTypeObject*>(nb::object(type).release().ptr());
    return true;
  }

  static inline PyTypeObject* tensor_ = nullptr;
  static inline PyObject* forward_ad_ = nullptr;  // the module
  static inline const ExchangeApi* table_ = nullptr;
};

}  // namespace attnrt_python
