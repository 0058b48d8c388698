# plugins/common/gpu/gpu_plugin.cmake: builds a GPU plugin: <name>.so (rocm) or
# <name>_cuda.so (cuda)
#
# attnrt_add_gpu_plugin(
#   NAME <name> VERSION <semver>
#   PLATFORM rocm|cuda      the device interface to link, and the manifest's devices
#   KERNELS <target>        a static library with what kernels/hip declares in launch.hpp and
#                           code_objects.hpp. Its property ATTNRT_ARCHS lists the architectures of its
#                           code objects. If there is no such target, the plugin is not built.
#   [DIRECTORY <folder>]    of plugin.cpp and manifest.yaml; default: the current one
#   [SOURCES <file>...]     of that folder, beside plugin.cpp
#   [TARGET <target>]       default: the name of the file
#   [INSTALL])
#
# The two files are one plugin with one name and version; their manifests differ in devices.
include_guard(GLOBAL)
set(attnrt_gpu_plugin_shared ${CMAKE_CURRENT_LIST_DIR})

function(attnrt_add_gpu_plugin)
  cmake_parse_arguments(PARSE_ARGV 0 arg "INSTALL" "NAME;VERSION;PLATFORM;KERNELS;DIRECTORY;TARGET" "SOURCES")
  set(file ${arg_NAME})
  if(arg_PLATFORM STREQUAL "cuda")
    set(file ${arg_NAME}_cuda)
  endif()
  set(device attnrt_kernels_device_hip)
  if(arg_PLATFORM STREQUAL "cuda")
    set(device attnrt_kernels_device_cuda)
  endif()
  foreach(needed ${arg_KERNELS} ${device})
    if(NOT TARGET ${needed})
      message(STATUS "${file}.so is left out: there is no GPU code for ${arg_PLATFORM} in this build (a line above "
        "names the missing compiler, or ATTNRT_GPU_CODE is OFF)")
      return()
    endif()
  endforeach()
  if(NOT arg_DIRECTORY)
    set(arg_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  if(NOT arg_TARGET)
    set(arg_TARGET ${file})
  endif()
  if(arg_INSTALL)
    set(arg_INSTALL INSTALL)
  else()
    set(arg_INSTALL "")
  endif()

  get_target_property(archs ${arg_KERNELS} ATTNRT_ARCHS)
  attnrt_archs_served(archs ${archs})
  set(shared arch.cpp devices.cpp instance.cpp launch.cpp memory.cpp timing.cpp ../translate.cpp)
  list(TRANSFORM shared PREPEND ${attnrt_gpu_plugin_shared}/)
  list(TRANSFORM arg_SOURCES PREPEND ${arg_DIRECTORY}/)
  attnrt_add_plugin(TARGET ${arg_TARGET} NAME ${arg_NAME} VERSION ${arg_VERSION} MANIFEST ${arg_DIRECTORY}/manifest.yaml
    DEVICES ${arg_PLATFORM} ARCHS ${archs} SOURCES ${arg_DIRECTORY}/plugin.cpp ${arg_SOURCES} ${shared}
    ${arg_INSTALL})
  set_target_properties(${arg_TARGET} PROPERTIES OUTPUT_NAME ${file})
  target_link_libraries(${arg_TARGET} PRIVATE ${arg_KERNELS} ${device})
endfunction()

# Lists every architecture that code for the given ones serves, for the manifest. Code for sm_80
# also runs on sm_86 and sm_89. Code whose name ends with a letter, and AMD's, runs only on what it
# was compiled for. PTX for compute_80 serves sm_80 and all that is newer: sm_80+, which says it for
# each of these.
function(attnrt_archs_served out)
  set(known 80 86 87 89 90 100 103 110 120 121)
  set(served "")
  foreach(arch IN LISTS ARGN)
    if(arch MATCHES "^sm_([0-9]+)([0-9])$")
      set(major ${CMAKE_MATCH_1})
      set(minor ${CMAKE_MATCH_2})
      foreach(number IN LISTS known)
        string(REGEX MATCH "^([0-9]+)([0-9])$" _ ${number})
        if(CMAKE_MATCH_1 STREQUAL major AND CMAKE_MATCH_2 GREATER_EQUAL minor)
          list(APPEND served sm_${number})
        endif()
      endforeach()
    elseif(arch MATCHES "^sm_([0-9]+)")
      list(APPEND served sm_${CMAKE_MATCH_1})
    elseif(arch MATCHES "^compute_([0-9]+)$")
      list(APPEND served sm_${CMAKE_MATCH_1}+)
    else()
      list(APPEND served ${arch})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES served)
  set(shown "")
  foreach(arch IN LISTS served)
    set(said FALSE)
    foreach(open_ended IN LISTS served)
      if(open_ended MATCHES "^sm_([0-9]+)[+]$")
        set(first ${CMAKE_MATCH_1})
        if(arch MATCHES "^sm_([0-9]+)$" AND CMAKE_MATCH_1 GREATER_EQUAL first)
          set(said TRUE)
        endif()
      endif()
    endforeach()
    if(NOT said)
      list(APPEND shown ${arch})
    endif()
  endforeach()
  set(${out} ${shown} PARENT_SCOPE)
endfunction()
