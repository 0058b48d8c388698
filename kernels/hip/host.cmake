# kernels/hip/host.cmake: the GPU kernels' host build and the launches' arithmetic into attnrt_kernels_hip_host
include_guard(GLOBAL)
find_package(Boost REQUIRED COMPONENTS context)

add_library(attnrt_kernels_hip_host STATIC EXCLUDE_FROM_ALL)
target_sources(attnrt_kernels_hip_host PRIVATE ${CMAKE_CURRENT_LIST_DIR}/host.cpp ${CMAKE_CURRENT_LIST_DIR}/params.cpp
  ${CMAKE_CURRENT_LIST_DIR}/family.cpp ${CMAKE_CURRENT_LIST_DIR}/launch_flash.cpp)
target_link_libraries(attnrt_kernels_hip_host PUBLIC attnrt_kernels_common PRIVATE Boost::context)
target_compile_options(attnrt_kernels_hip_host PRIVATE -Wall -Wextra -Wpedantic -Wshadow)
