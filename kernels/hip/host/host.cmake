# kernels/hip/host/host.cmake: attnrt_kernels_hip_host, the kernels' host build and launches, for
# tests
find_package(Boost 1.74 REQUIRED COMPONENTS context)

add_library(attnrt_kernels_hip_host STATIC host/async.cpp host/host.cpp host/wgmma.cpp
  launch/family.cpp launch/fill_params.cpp launch/fill_serving.cpp launch/flash_attention.cpp launch/listed_attention.cpp launch/merge.cpp launch/pipelined_attention.cpp
  launch/tensor_map.cpp launch/unfused_attention.cpp)
target_link_libraries(attnrt_kernels_hip_host PUBLIC attnrt_kernels_common Boost::context)
target_compile_options(attnrt_kernels_hip_host PRIVATE -Wall -Wextra -Wpedantic -Wshadow)
