# kernels/hip/device/device.cmake: the libraries attnrt_kernels_device_hip and _cuda
#
# The first needs nothing of HIP to build. The second exists only if CUDA's headers and static
# runtime were found.
include_guard(GLOBAL)
find_package(Threads REQUIRED)

function(attnrt_device_library name)
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC attnrt_kernels_common PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
  set_target_properties(${name} PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()

attnrt_device_library(attnrt_kernels_device_hip device_hip.cpp hip_runtime.cpp)

# Not by enable_language(CUDA): only the code objects need nvcc, and they call it themselves.
find_package(CUDAToolkit 12.8 QUIET)
if(TARGET CUDA::cudart_static)
  attnrt_device_library(attnrt_kernels_device_cuda device_cuda.cpp)
  target_link_libraries(attnrt_kernels_device_cuda PRIVATE CUDA::cudart_static)
endif()
