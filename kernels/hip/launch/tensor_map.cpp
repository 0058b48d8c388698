// kernels/hip/launch/tensor_map.cpp: describes q, k or v to the tensor copies of NVIDIA's sm_90
#include "kernels/hip/launch/tensor_map.hpp"

namespace kernels::hip {
namespace {

constexpr int64_t kElementBytes = 2, kStrideLimit = int64_t{1} << 40;  // in bytes
// Of a dimension that is never left: any stride that the driver takes.
constexpr uint64_t kUnusedStride = 16;

// Appends a dimension of size elements, `times` strides of the tensor apart.
// RETURNS false if a map cannot describe it.
bool add_dimension(TensorMapRequest* request, int64_t size, int64_t stride, int64_t times,
                   uint32_t box) {
  const uint32_t n = request->rank++;
  request->box[n] = box;
  request->size[n] = 1;
  request->stride[n - 1] = kUnusedStride;
  if (size <= 1) return true;
  if (stride == 0) return box == 1;
  int64_t bytes = 0;
  if (stride < 0 || __builtin_mul_overflow(stride, times * kElementBytes, &bytes) ||
      bytes >= kStrideLimit)
    return false;
  request->size[n] = static_cast<uint64_t>(size);
  request->stride[n - 1] = static_cast<uint64_t>(bytes);
  return true;
}

}  // namespace

bool request_for(const Tensor& tensor, int64_t columns, const Box& box, uint32_t at,
                 TensorMapRequest* request) {
  const int64_t batch = tensor.shape[0], seq = tensor.shape[1], heads = tensor.shape[2];
  const int64_t batch_stride = tensor.stride[0], row_stride = tensor.stride[1],
                head_stride = tensor.stride[2];
  *request = {at, tensor.data, 1, {static_cast<uint64_t>(columns)}, {}, {box.columns}};
  const auto add = [request](int64_t size, int64_t stride, int64_t times, uint32_t extent) {
    return add_dimension(request, size, stride, times, extent);
  };
  const int64_t group = box.group == 0 ? 1 : box.group;
  if (box.group > 0 && !add(group, head_stride, 1, box.heads)) return false;
  return add(seq, row_stride, 1, box.rows) && add(heads / group, head_stride, group, 1) &&
         add(batch, batch_stride, 1, 1);
}

}  // namespace kernels::hip
