# kernels/hip/device/code_objects.cmake: device code into one code object for each architecture and kernel file, and those into
# static libraries that the plugins link
#
# Left behind, unbundled, for whoever wants to look: <build>/kernels/<arch>/<kernel>.elf
include_guard(GLOBAL)

option(ATTNRT_GPU_CODE "Compile device code, and the plugins that carry it" ON)
set(ATTNRT_ROCM_ARCHS gfx1100 gfx1101 gfx1102 gfx1201 gfx90a gfx942 gfx1030
  CACHE STRING "AMD architectures to compile for")
set(ATTNRT_CUDA_ARCHS sm_80 sm_90 CACHE STRING "NVIDIA architectures to compile for")

# AMD: clang alone, 19 or newer (RDNA4's matrix instructions); no HIP headers, no device libraries.
find_program(ATTNRT_HIP_CLANG NAMES clang++-21 clang++-20 clang++-19 amdclang++ HINTS /opt/rocm/llvm/bin /opt/rocm/bin
  DOC "clang that compiles for AMD GPUs")
# NVIDIA: nvcc.
find_program(ATTNRT_NVCC nvcc HINTS ${CUDAToolkit_BIN_DIR} /usr/local/cuda/bin DOC "nvcc")

get_filename_component(attnrt_hip_dir ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)

# Adds the command that compiles source for arch, through the compiler launcher (ccache) if there is
# one; sets out to the file. nvcc gets -c beside -cubin because ccache caches nothing without it.
function(attnrt_code_object out source arch dtype dim)
  get_filename_component(name ${source} NAME_WE)
  string(TOLOWER ${dtype} word)
  set(kernel ${name}_${word}_${dim})
  set(file ${PROJECT_BINARY_DIR}/kernels/${arch}/${kernel}.elf)
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/kernels/${arch})
  set(common -std=c++20 -O3 -I${PROJECT_SOURCE_DIR} -DGPU_DTYPE=${dtype} -DGPU_DIM=${dim})
  if(arch MATCHES "^sm_(.*)$")
    set(command ${CMAKE_CXX_COMPILER_LAUNCHER} ${ATTNRT_NVCC} ${common} -gencode arch=compute_${CMAKE_MATCH_1},code=${arch} -x cu -c
      -cubin -MD -MF ${file}.d ${source} -o ${file})
  else()
    set(command ${CMAKE_CXX_COMPILER_LAUNCHER} ${ATTNRT_HIP_CLANG} -x hip -nogpuinc -nogpulib --offload-arch=${arch} ${common} -fno-exceptions
      --offload-device-only --no-gpu-bundle-output -MD -MF ${file}.d -MT ${file} -c ${source} -o ${file})
  endif()
  add_custom_command(OUTPUT ${file} COMMAND ${command} DEPENDS ${source} DEPFILE ${file}.d
    COMMENT "GPU code: ${arch} ${kernel}" VERBATIM)
  set(${out} ${file} PARENT_SCOPE)
endfunction()

# attnrt_gpu_kernels(<target> ARCHS <arch>... SOURCE <file.hip> HOST <file.cpp>...): every dtype and padded head_dim.
function(attnrt_gpu_kernels target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SOURCE" "ARCHS;HOST")
  set(assembly "")
  set(table "")
  set(count 0)
  foreach(arch IN LISTS arg_ARCHS)
    foreach(dtype F32 F16 BF16)
      foreach(dim 64 128 256)
        attnrt_code_object(file ${attnrt_hip_dir}/${arg_SOURCE} ${arch} ${dtype} ${dim})
        list(APPEND files ${file})
        get_filename_component(name ${file} NAME_WE)
        string(APPEND assembly
          "  \".balign 4096\\n\"\n  \"attnrt_code_${count}:\\n\"\n  \".incbin \\\"${file}\\\"\\n\"\n  \"attnrt_code_${count}_end:\\n\"\n")
        string(APPEND declarations
          "extern \"C\" __attribute__((visibility(\"hidden\"))) const unsigned char attnrt_code_${count}[], attnrt_code_${count}_end[];\n")
        string(APPEND table "    {\"${name}\", \"${arch}\", attnrt_code_${count},\n     static_cast<uint64_t>(attnrt_code_${count}_end - attnrt_code_${count})},\n")
        math(EXPR count "${count} + 1")
      endforeach()
    endforeach()
  endforeach()
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${target}_code_objects.cpp)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
// Written by attnrt_gpu_kernels.
#include "kernels/hip/device/code_objects.hpp"

__asm__(
  ".pushsection .rodata.attnrt_code,\"a\",%progbits\n"
@assembly@  ".popsection\n");

@declarations@
namespace kernels::hip {
const CodeObject code_objects[] = {
@table@};
const uint32_t code_object_count = @count@;
}  // namespace kernels::hip
]])
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${files}" COMPILE_OPTIONS -fno-lto)
  list(TRANSFORM arg_HOST PREPEND ${attnrt_hip_dir}/)
  add_library(${target} STATIC ${source} ${arg_HOST})
  target_link_libraries(${target} PUBLIC attnrt_kernels_common)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON ATTNRT_ARCHS "${arg_ARCHS}")
endfunction()

function(attnrt_platform_kernels platform archs)
  attnrt_gpu_kernels(attnrt_kernels_flash_${platform} ARCHS ${archs} SOURCE flash_attention.hip
    HOST launch/flash_attention.cpp launch/fill_params.cpp launch/family.cpp)
  attnrt_gpu_kernels(attnrt_kernels_unfused_${platform} ARCHS ${archs} SOURCE unfused_attention.hip
    HOST launch/unfused_attention.cpp launch/fill_params.cpp launch/family.cpp)
endfunction()

if(NOT ATTNRT_GPU_CODE)
  return()
endif()
if(ATTNRT_HIP_CLANG)
  attnrt_platform_kernels(rocm "${ATTNRT_ROCM_ARCHS}")
else()
  message(NOTICE "-- The plugins for AMD GPUs are left out: clang 19 or newer was not found "
    "(set ATTNRT_HIP_CLANG to it; -DATTNRT_GPU_CODE=OFF asks for no GPU code)")
endif()
if(ATTNRT_NVCC AND TARGET attnrt_kernels_device_cuda)
  attnrt_platform_kernels(cuda "${ATTNRT_CUDA_ARCHS}")
else()
  message(NOTICE "-- The plugins for NVIDIA GPUs are left out: nvcc 12.8 or newer with its toolkit was not found "
    "(set ATTNRT_NVCC to it; -DATTNRT_GPU_CODE=OFF asks for no GPU code)")
endif()
