# kernels/hip/device/code_objects.cmake: compiles each kernel file for each architecture, and puts
# these code objects into static libraries that the plugins link
#
# Each code object is also left in <build>/kernels/<arch>/<kernel>.elf, for tests and for a look at it.
# NVIDIA's are packed into <kernel>.fatbin, which compresses them to about a quarter; the driver unpacks
# one when it is loaded.
include_guard(GLOBAL)

option(ATTNRT_GPU_CODE "Compile device code, and the plugins that carry it" ON)
set(ATTNRT_ROCM_ARCHS gfx1100 gfx1101 gfx1102 gfx1201 gfx90a gfx942 gfx1030
  CACHE STRING "AMD architectures to compile for")
# compute_80 is PTX, which the driver compiles on devices that no other code serves. sm_90a is for
# flash_attention_sm90.hip alone.
set(ATTNRT_CUDA_ARCHS sm_80 sm_90 sm_90a sm_100 sm_120 compute_80 CACHE STRING "NVIDIA architectures to compile for")

# AMD: clang alone, 19 or newer (RDNA4's matrix instructions); no HIP headers, no device libraries.
find_program(ATTNRT_HIP_CLANG NAMES clang++-21 clang++-20 clang++-19 amdclang++ HINTS /opt/rocm/llvm/bin /opt/rocm/bin
  DOC "clang that compiles for AMD GPUs")
# NVIDIA: nvcc, and fatbinary of the same toolkit.
find_program(ATTNRT_NVCC nvcc HINTS ${CUDAToolkit_BIN_DIR} /usr/local/cuda/bin DOC "nvcc")
if(ATTNRT_NVCC)
  get_filename_component(attnrt_nvcc_dir ${ATTNRT_NVCC} DIRECTORY)
  get_filename_component(attnrt_real_nvcc_dir ${ATTNRT_NVCC} REALPATH)
  get_filename_component(attnrt_real_nvcc_dir ${attnrt_real_nvcc_dir} DIRECTORY)
  find_program(ATTNRT_FATBINARY fatbinary HINTS ${attnrt_nvcc_dir} ${attnrt_real_nvcc_dir} DOC "fatbinary, which packs NVIDIA's code objects")
endif()

get_filename_component(attnrt_hip_dir ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)

# Adds the command that compiles source for one architecture, and for one dtype and head_dim (or head_dim and
# head_dim_v: 192_128) if they are given, through the compiler launcher (ccache) if there is one; sets out to its file.
# nvcc gets -c beside -cubin because ccache caches nothing without it.
function(attnrt_code_object out source arch) # [<dtype> <dim>]
  get_filename_component(kernel ${source} NAME_WE)
  set(common -std=c++20 -O3 -I${PROJECT_SOURCE_DIR})
  if(ARGC GREATER 3)
    set(dtype ${ARGV3})
    set(dim ${ARGV4})
    string(TOLOWER ${dtype} word)
    set(kernel ${kernel}_${word}_${dim})
    string(REGEX MATCHALL "[0-9]+" dims ${dim})
    list(GET dims 0 dim_qk)
    list(GET dims -1 dim_v)
    list(APPEND common -DGPU_DTYPE=${dtype} -DGPU_DIM=${dim_qk} -DGPU_DIM_V=${dim_v})
  endif()
  set(form elf)
  if(arch MATCHES "^compute_")
    set(form fatbin)
  endif()
  set(file ${PROJECT_BINARY_DIR}/kernels/${arch}/${kernel}.${form})
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/kernels/${arch})
  if(arch MATCHES "^(sm|compute)_(.*)$")
    string(REPLACE elf cubin form ${form})
    set(strictly "")
    if(arch STREQUAL "sm_90a" AND CMAKE_COMPILE_WARNING_AS_ERROR)
      # What the threads that start the copies spill, which have 24 to 56 registers and mostly wait.
      set(spills_64 160)
      set(spills_96 56)
      set(spills_128 160)
      set(spills_192 96)
      set(spills_192_128 96)
      set(spills_256 96)
      set(spills_512 192)
      set(spills_576_512 192)
      set(strictly ${CMAKE_COMMAND} -D SPILL_BYTES=${spills_${dim}}
        -P ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/compile_strictly.cmake --)
      list(APPEND common -Xptxas -v)
    endif()
    set(command ${strictly} ${CMAKE_CXX_COMPILER_LAUNCHER} ${ATTNRT_NVCC} ${common} -gencode arch=compute_${CMAKE_MATCH_2},code=${arch} -x cu -c
      -${form} -MD -MF ${file}.d ${source} -o ${file})
  else()
    set(command ${CMAKE_CXX_COMPILER_LAUNCHER} ${ATTNRT_HIP_CLANG} -x hip -nogpuinc -nogpulib --offload-arch=${arch} ${common} -fno-exceptions
      --offload-device-only --no-gpu-bundle-output -MD -MF ${file}.d -MT ${file} -c ${source} -o ${file})
  endif()
  add_custom_command(OUTPUT ${file} COMMAND ${command} DEPENDS ${source} DEPFILE ${file}.d
    COMMENT "GPU code: ${arch} ${kernel}" VERBATIM)
  if(form STREQUAL cubin)
    string(REGEX REPLACE "elf$" fatbin packed ${file})
    string(REGEX REPLACE "^sm_" "" sm ${arch})
    add_custom_command(OUTPUT ${packed} DEPENDS ${file} ${ATTNRT_FATBINARY} VERBATIM COMMENT "GPU code: ${arch} ${kernel}, packed"
      COMMAND ${ATTNRT_FATBINARY} --create=${packed} --compress-all -64
        --image3=kind=elf,sm=${sm},file=${file})
    set(file ${packed})
  endif()
  set(${out} ${file} PARENT_SCOPE)
endfunction()

# attnrt_code_objects(<files> SOURCE <file.hip> ARCHS <arch>... [DTYPES <dtype>... DIMS <padded
# head_dim[_head_dim_v]>...]): compiles one kernel file for each of them, and appends the code objects
# to files.
function(attnrt_code_objects files)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SOURCE" "ARCHS;DTYPES;DIMS")
  foreach(arch IN LISTS arg_ARCHS)
    if(NOT arg_DTYPES)
      attnrt_code_object(file ${attnrt_hip_dir}/${arg_SOURCE} ${arch})
      list(APPEND ${files} ${file})
    endif()
    foreach(dtype IN LISTS arg_DTYPES)
      foreach(dim IN LISTS arg_DIMS)
        attnrt_code_object(file ${attnrt_hip_dir}/${arg_SOURCE} ${arch} ${dtype} ${dim})
        list(APPEND ${files} ${file})
      endforeach()
    endforeach()
  endforeach()
  set(${files} ${${files}} PARENT_SCOPE)
endfunction()

# attnrt_gpu_kernels(<target> CODE <file>... HOST <file.cpp>...): the library of code objects and
# their launches.
function(attnrt_gpu_kernels target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "CODE;HOST")
  set(assembly "")
  set(table "")
  set(archs "")
  set(count 0)
  foreach(file IN LISTS arg_CODE)
    get_filename_component(name ${file} NAME_WE)
    get_filename_component(arch ${file} DIRECTORY)
    get_filename_component(arch ${arch} NAME)
    list(APPEND archs ${arch})
    string(APPEND assembly
      "  \".balign 4096\\n\"\n  \"attnrt_code_${count}:\\n\"\n  \".incbin \\\"${file}\\\"\\n\"\n  \"attnrt_code_${count}_end:\\n\"\n")
    string(APPEND declarations
      "extern \"C\" __attribute__((visibility(\"hidden\"))) const unsigned char attnrt_code_${count}[], attnrt_code_${count}_end[];\n")
    string(APPEND table "    {\"${name}\", \"${arch}\", attnrt_code_${count},\n     static_cast<uint64_t>(attnrt_code_${count}_end - attnrt_code_${count})},\n")
    math(EXPR count "${count} + 1")
  endforeach()
  list(REMOVE_DUPLICATES archs)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${target}_code_objects.cpp)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
// Generated by attnrt_gpu_kernels.
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
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${arg_CODE}" COMPILE_OPTIONS -fno-lto)
  list(TRANSFORM arg_HOST PREPEND ${attnrt_hip_dir}/)
  add_library(${target} STATIC ${source} ${arg_HOST})
  target_link_libraries(${target} PUBLIC attnrt_kernels_common)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON ATTNRT_ARCHS "${archs}" ATTNRT_LAUNCHES "${arg_HOST}")
endfunction()

# The libraries of both plugins for one platform.
function(attnrt_platform_kernels platform archs)
  set(all DTYPES F32 F16 BF16 DIMS 64 128 256)
  # sm_90a is for the kernel file that uses what only it has.
  set(sm_90a ${archs})
  list(FILTER sm_90a INCLUDE REGEX "^sm_90a$")
  list(FILTER archs EXCLUDE REGEX "^sm_90a$")
  attnrt_code_objects(unfused SOURCE unfused_attention.hip ARCHS ${archs} ${all})
  attnrt_code_objects(flash SOURCE serving_attention.hip ARCHS ${archs} ${all})
  attnrt_code_objects(flash SOURCE serving_attention_kv8.hip ARCHS ${archs} DTYPES F16 BF16 DIMS 64 128 256)
  attnrt_code_objects(flash SOURCE merge.hip ARCHS ${archs})
  attnrt_code_objects(flash SOURCE schedule.hip ARCHS ${archs})
  if(sm_90a)  # leaves f32 to sm_90
    attnrt_code_objects(flash SOURCE flash_attention_sm90.hip ARCHS sm_90a DTYPES F16 BF16 DIMS 64 96 128 192 192_128 256 512 576_512)
    if("sm_90" IN_LIST archs)
      list(REMOVE_ITEM archs sm_90)
      attnrt_code_objects(flash SOURCE flash_attention.hip ARCHS sm_90 DTYPES F32 DIMS 64 128 256)
    endif()
  endif()
  attnrt_code_objects(flash SOURCE flash_attention.hip ARCHS ${archs} ${all})
  attnrt_gpu_kernels(attnrt_kernels_flash_${platform} CODE ${flash}
    HOST launch/flash_attention.cpp launch/listed_attention.cpp launch/merge.cpp launch/pipelined_attention.cpp launch/tensor_map.cpp
      launch/fill_params.cpp launch/fill_serving.cpp launch/family.cpp)
  attnrt_gpu_kernels(attnrt_kernels_unfused_${platform} CODE ${unfused}
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
if(ATTNRT_NVCC AND ATTNRT_FATBINARY AND TARGET attnrt_kernels_device_cuda)
  attnrt_platform_kernels(cuda "${ATTNRT_CUDA_ARCHS}")
else()
  message(NOTICE "-- The plugins for NVIDIA GPUs are left out: nvcc 12.8 or newer with its toolkit (fatbinary, too) was not found "
    "(set ATTNRT_NVCC to it; -DATTNRT_GPU_CODE=OFF asks for no GPU code)")
endif()
