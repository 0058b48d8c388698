# kernels/hip/host.cmake: the kernels' host build and their launches into attnrt_kernels_hip_host, which tests link
find_package(Boost 1.74 REQUIRED COMPONENTS context)

add_library(attnrt_kernels_hip_host STATIC family.cpp host.cpp launch_flash.cpp launch_unfused.cpp fill_params.cpp)
target_link_libraries(attnrt_kernels_hip_host PUBLIC attnrt_kernels_common Boost::context)
target_compile_options(attnrt_kernels_hip_host PRIVATE -Wall -Wextra -Wpedantic -Wshadow)
