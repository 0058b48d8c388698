// runtime/python/src/tensors.hpp: all tensors of one call, as the C library takes them
//
// Results that are not given are allocated as q is. What users of numpy and torch are used to is
// translated here: heads before seq, one cache for a whole batch, a scale without dimensions.
#pragma once

#include <attnrt/attnrt.h>
#include <nanobind/nanobind.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "torch.hpp"
#include "view.hpp"

namespace attnrt_python {

namespace nb = nanobind;

// Whether the layout is "bhsd" and not "bshd". Raises for anything else.
inline bool is_heads_first(nb::handle layout) {
  if (PyUnicode_Check(layout.ptr()) != 0) {
    if (PyUnicode_CompareWithASCIIString(layout.ptr(), "bshd") == 0) return false;
    if (PyUnicode_CompareWithASCIIString(layout.ptr(), "bhsd") == 0) return true;
  }
  invalid("layout: found " + std::string(nb::repr(layout).c_str()) + "; expected 'bshd' or 'bhsd'");
}

// The tensors of one call, as attnrt_args. REQUIRES: the tuple outlives it, which keeps the Python
// objects alive.
class Tensors {
 public:
  // objects: in the order of tensor_names; None: absent. If out is None, it is allocated as q is
  // (but not if q and v have no such shapes: the C library says more); likewise lse if with_lse is
  // set. layout: see is_heads_first.
  Tensors(const nb::tuple& objects, nb::handle stream, nb::handle layout, bool with_lse = false)
      : heads_first_(is_heads_first(layout)) {
    if (objects.size() != kTensorCount) throw nb::type_error("expected a tuple of all tensors");
    args_.struct_size = sizeof args_;
    for (size_t i = 0; i < kTensorCount; ++i) {
      const TensorEntry& entry = kTensors[i];
      const nb::handle object = PyTuple_GetItem(objects.ptr(), static_cast<Py_ssize_t>(i));
      if (!object.is_none()) {
        add(i, object);
      } else if (entry.required) {
        invalid(std::string(entry.name) + " is None; expected a tensor");
      }
    }
    broadcast_batch();
    const nb::handle q = PyTuple_GetItem(objects.ptr(), 0);
    out_ = nb::borrow(PyTuple_GetItem(objects.ptr(), kOut));
    allocate_results(q, with_lse);
    device_ = views_.front().device;
    expect(device_, "as q is");
    args_.stream = reinterpret_cast<void*>(stream_of(stream, q));
  }

  // Raises if a tensor is on another device.
  void expect(DeviceId device, const char* why) const {
    for (size_t i = 0; i < kTensorCount; ++i) {
      if (!given_.at(i) || views_.at(i).device == device) continue;
      invalid(std::string(kTensors[i].name) + " is on " + text_of(views_.at(i).device) +
              "; expected " + text_of(device) + ", " + why);
    }
  }

  const attnrt_args* args() const { return &args_; }
  DeviceId device() const { return device_; }
  const nb::object& out() const { return out_; }
  const nb::object& lse() const { return lse_; }

 private:
  void add(size_t i, nb::handle object) {
    read(kTensors[i], object, views_.at(i));
    check_habits(i, views_.at(i).tensor);
    if (heads_first_) put_seq_first(i, views_.at(i).tensor);
    args_.*kTensors[i].member = views_.at(i).tensor;
    given_.at(i) = true;
  }

  // Takes a number for a scale of one element, and refuses a mask of bytes.
  static void check_habits(size_t i, attnrt_tensor& tensor) {
    if (tensor.ndim == 0) {
      tensor.ndim = 1;
      tensor.shape[0] = tensor.stride[0] = 1;
    }
    if (i == index_of("mask") && tensor.dtype.code == ATTNRT_DTYPE_UINT)
      invalid("mask is uint" + std::to_string(tensor.dtype.bits) +
              "; expected bool (give mask != 0), or an additive mask in float");
  }

  // Shows one sequence of k, v and their scales to all of q's. Pages have no such dimension.
  void broadcast_batch() {
    const attnrt_tensor& q = args_.q;
    if (q.ndim != 4 || given_.at(index_of("page_table"))) return;
    for (size_t i = 0; i < kTensorCount; ++i) {
      const TensorEntry& entry = kTensors[i];
      attnrt_tensor& tensor = args_.*entry.member;
      const bool of_keys = entry.has_heads && !entry.written && i != index_of("q");
      if (!of_keys || !given_.at(i) || tensor.ndim != (entry.is_scale() ? 3 : 4)) continue;
      if (tensor.shape[0] != 1 || q.shape[0] == 1) continue;
      tensor.shape[0] = q.shape[0];
      tensor.stride[0] = 0;
    }
  }

  // Turns a view of [batch, heads, seq, .] into the C library's [batch, seq, heads, .].
  static void put_seq_first(size_t i, attnrt_tensor& tensor) {
    if (!kTensors[i].has_heads) return;
    const int32_t expected = kTensors[i].is_scale() ? 3 : 4;
    if (tensor.ndim == expected) {
      std::swap(tensor.shape[1], tensor.shape[2]);
      std::swap(tensor.stride[1], tensor.stride[2]);
    } else if (!kTensors[i].is_scale()) {
      invalid(std::string(kTensors[i].name) + " has " + std::to_string(tensor.ndim) +
              " dimensions; layout \"bhsd\" expects 4 (packed sequences: layout \"bshd\")");
    }
  }

  void allocate_results(nb::handle q, bool with_lse) {
    const attnrt_tensor& rows = args_.q;
    const attnrt_tensor& values = given_.at(index_of("v")) ? args_.v : args_.k;
    const bool packed = given_.at(index_of("offsets_q"));
    if (rows.ndim != (packed ? 3 : 4)) return;
    if (!given_.at(kOut)) {
      const int64_t columns = values.shape[values.ndim - 1];
      out_ = packed || Torch::table_for(q) == nullptr ? allocate(q, columns, packed)
                                                      : new_empty(q, columns);
      add(kOut, out_);
    }
    if (!with_lse) return;
    const int64_t* const s = rows.shape;
    lse_ = packed ? allocated(q, nb::make_tuple(s[1], s[0]), packed, true)
                  : allocated(q, nb::make_tuple(s[0], s[2], s[1]), packed, true);
    add(kLse, lse_);
  }

  // The shape of out in the caller's layout: q's, with another number of columns.
  nb::tuple out_shape(int64_t columns) const {
    const int64_t* const s = args_.q.shape;
    if (args_.q.ndim == 3) return nb::make_tuple(s[0], s[1], columns);
    return heads_first_ ? nb::make_tuple(s[0], s[2], s[1], columns)
                        : nb::make_tuple(s[0], s[1], s[2], columns);
  }
  nb::object allocate(nb::handle q, int64_t columns, bool packed) const {
    return allocated(q, out_shape(columns), packed, false);
  }
  // q.new_empty(batch, seq, heads, columns): torch reads numbers faster than a tuple of them.
  nb::object new_empty(nb::handle q, int64_t columns) const {
    static PyObject* const name = PyUnicode_InternFromString("new_empty");
    const nb::tuple shape = out_shape(columns);
    return q.attr(nb::handle(name))(*shape);
  }

  // The stream that the caller names; else, for a tensor of torch on a device, torch's current one.
  uint64_t stream_of(nb::handle stream, nb::handle q) const {
    if (stream.is_none() && (device_.type == ATTNRT_DEVICE_CPU || !Torch::has(q))) return 0;
    const ExchangeApi* const table = stream.is_none() ? Torch::table_for(q) : nullptr;
    if (table == nullptr) return nb::cast<uint64_t>(stream_pointer(stream, q));
    void* current = nullptr;
    if (table->current_stream(device_.type, device_.id, &current) != 0) throw nb::python_error();
    return reinterpret_cast<uintptr_t>(current);
  }

  bool heads_first_;
  attnrt_args args_{};
  std::array<View, kTensorCount> views_;
  std::array<bool, kTensorCount> given_{};
  DeviceId device_{};
  nb::object out_, lse_ = nb::none();
};

// The tensors of one merge. REQUIRES: the caller keeps the Python objects alive.
class Partials {
 public:
  // REQUIRES: outs and lses have the same length, at least 1.
  Partials(const nb::list& outs, const nb::list& lses, nb::handle out, nb::handle lse) {
    for (size_t i = 0; i < outs.size(); ++i) {
      outs_.push_back(view("outs[" + std::to_string(i) + "]", outs[i], false));
      lses_.push_back(view("lses[" + std::to_string(i) + "]", lses[i], false));
    }
    out_ = view("out", out, true);
    if (!lse.is_none()) lse_ = view("lse", lse, true);
  }

  attnrt_status merge(attnrt_runtime* runtime, uint64_t stream, attnrt_error* error) const {
    return attnrt_merge(runtime, device_->type, device_->id, outs_.data(), lses_.data(),
                        static_cast<int32_t>(outs_.size()), &out_, &lse_,
                        reinterpret_cast<void*>(stream), error);
  }

 private:
  attnrt_tensor view(const std::string& name, nb::handle object, bool written) {
    View& view = views_.emplace_back();
    read({name.c_str(), nullptr, written, true, false}, object, view);
    if (!device_) device_ = view.device;
    if (view.device != *device_) {
      invalid(name + " is on " + text_of(view.device) + "; expected " + text_of(*device_) +
              ", as outs[0] is");
    }
    return view.tensor;
  }

  std::vector<attnrt_tensor> outs_, lses_;
  attnrt_tensor out_{}, lse_{};
  std::deque<View> views_;
  std::optional<DeviceId> device_;  // of outs[0]
};

}  // namespace attnrt_python
