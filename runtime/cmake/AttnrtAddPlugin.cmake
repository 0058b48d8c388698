# runtime/cmake/AttnrtAddPlugin.cmake: the function attnrt_add_plugin builds a plugin
#
#   find_package(attnrt REQUIRED)
#   attnrt_add_plugin(NAME plain VERSION 1.0.0 MANIFEST manifest.yaml SOURCES plugin.c)
#
# attnrt_add_plugin(
#   NAME <name>         [a-z][a-z0-9_]*; the file is <name>.so, without lib
#   [VERSION <semver>]  the plugin's own version
#   MANIFEST <file>     embedded as ELF section .attnrt_manifest; a change of it links the plugin again
#   SOURCES <file>...   C or C++; the project may have LANGUAGES C alone
#   [DEVICES <kind>...] the kinds of device that this build serves: cpu, rocm, cuda
#   [ARCHS <arch>...]   the device architectures that this build compiled code for
#   [TARGET <target>]   the CMake target's name, if <name> is already taken; default <name>
#   [INSTALL])          installs into <libdir>/attnrt/plugins, where libattnrt looks by default, as component <target>
#
# Name, version, abi, devices and archs may be in the manifest or in the call. What is missing in
# the manifest is added at the end of the embedded copy, so that line numbers stay those of your
# file. What is in both must agree, or CMake stops. The sources get ATTNRT_PLUGIN_NAME and
# ATTNRT_PLUGIN_VERSION as string literals, for the first fields of attnrt_plugin.
#
# What the function arranges, and why:
#  - Hidden visibility and a version script: attnrt_plugin_v1 is the only dynamic symbol, so two versions of one plugin
#    can be loaded side by side. -fno-gnu-unique (gcc's) for the same reason.
#  - -z defs: a missing library is an error of your build, not of the application's dlopen.
#  - libstdc++ and libgcc are linked statically, so that a plugin runs in any application, whatever compiler built that.
#    Nothing of C++ crosses the ABI, so two copies never meet. Do not link C++ libraries that throw. With -fsanitize,
#    neither this nor -z defs is used: sanitizers replace parts of the shared libraries, and clang's leave symbols undefined.
#  - The section has the flag R (retain), so --gc-sections and strip keep it.
include_guard(GLOBAL)
include(GNUInstallDirs)

function(attnrt_add_plugin)
  cmake_parse_arguments(PARSE_ARGV 0 arg "INSTALL" "NAME;VERSION;MANIFEST;TARGET" "SOURCES;DEVICES;ARCHS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "attnrt_add_plugin: ${arg_NAME}: unknown argument: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  foreach(required NAME MANIFEST SOURCES)
    if(NOT arg_${required})
      message(FATAL_ERROR "attnrt_add_plugin: ${required} is missing")
    endif()
  endforeach()
  if(NOT arg_NAME MATCHES "^[a-z][a-z0-9_]*$")
    message(FATAL_ERROR "attnrt_add_plugin: name \"${arg_NAME}\" is not [a-z][a-z0-9_]*")
  endif()
  if(NOT arg_TARGET)
    set(arg_TARGET ${arg_NAME})
  endif()

  attnrt_complete_manifest(embedded version ${arg_TARGET} ${arg_MANIFEST} "${arg_NAME}" "${arg_VERSION}" "${arg_DEVICES}"
    "${arg_ARCHS}")
  add_library(${arg_TARGET} MODULE ${arg_SOURCES})
  attnrt_embed_manifest(${arg_TARGET} ${embedded})
  target_link_libraries(${arg_TARGET} PRIVATE attnrt::plugin)
  target_compile_definitions(${arg_TARGET} PRIVATE
    ATTNRT_PLUGIN_NAME="${arg_NAME}" ATTNRT_PLUGIN_VERSION="${version}")
  set_target_properties(${arg_TARGET} PROPERTIES
    PREFIX "" SUFFIX ".so" OUTPUT_NAME ${arg_NAME}
    C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    LINK_DEPENDS ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/plugin.map ATTNRT_PLUGIN_VERSION "${version}")
  if(ATTNRT_PLUGIN_OUTPUT_DIRECTORY)
    set_target_properties(${arg_TARGET} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${ATTNRT_PLUGIN_OUTPUT_DIRECTORY})
  endif()

  target_compile_options(${arg_TARGET} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-gnu-unique>)
  target_link_options(${arg_TARGET} PRIVATE LINKER:--version-script=${CMAKE_CURRENT_FUNCTION_LIST_DIR}/plugin.map)
  if(NOT "${CMAKE_C_FLAGS} ${CMAKE_CXX_FLAGS}" MATCHES "-fsanitize=")
    target_link_options(${arg_TARGET} PRIVATE LINKER:-z,defs
      $<$<LINK_LANG_AND_ID:C,GNU,Clang>:-static-libgcc>
      $<$<LINK_LANG_AND_ID:CXX,GNU,Clang>:-static-libgcc$<SEMICOLON>-static-libstdc++>)
  endif()

  if(arg_INSTALL)
    install(TARGETS ${arg_TARGET} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/attnrt/plugins COMPONENT ${arg_TARGET})
  endif()
endfunction()

# Adds the file's bytes, without checking them, to the target as section .attnrt_manifest.
function(attnrt_embed_manifest target manifest)
  get_filename_component(manifest ${manifest} ABSOLUTE)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${manifest})
  file(SHA256 ${manifest} hash)  # in the source, so that an edit compiles again, also through a compiler cache
  get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if("C" IN_LIST languages)
    set(source ${CMAKE_CURRENT_BINARY_DIR}/${target}_manifest.c)
  else()
    set(source ${CMAKE_CURRENT_BINARY_DIR}/${target}_manifest.cpp)
  endif()
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
/* Written by attnrt_embed_manifest. */
__asm__(
    ".pushsection .attnrt_manifest,\"aR\",%progbits\n"
    "/* sha256 @hash@ */\n"
    ".incbin \"@manifest@\"\n"
    ".popsection\n");
]])
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS ${manifest} COMPILE_OPTIONS -fno-lto)
  target_sources(${target} PRIVATE ${source})
endfunction()

# Internal. Writes the manifest with the lines that the call adds. Sets the file to embed, and the
# version.
function(attnrt_complete_manifest out_file out_version target manifest name version devices archs)
  get_filename_component(manifest ${manifest} ABSOLUTE)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${manifest})
  file(READ ${manifest} text)
  foreach(list devices archs)
    string(JOIN ", " ${list} ${${list}})
    if(${list})
      set(${list} "[${${list}}]")
    endif()
  endforeach()
  set(written "")
  foreach(key name version abi devices archs)
    set(given "${${key}}")
    if(key STREQUAL "abi")
      set(given 1)  # attnrt_plugin_v1
    endif()
    if("\n${text}" MATCHES "\n${key}:[ \t]*([^\n#]*)")
      string(STRIP "${CMAKE_MATCH_1}" found)
      string(REGEX REPLACE "^[\"'](.*)[\"']$" "\\1" found "${found}")
      if(NOT given)
        set(${key} "${found}")
      elseif(NOT found STREQUAL given)
        message(FATAL_ERROR "attnrt_add_plugin: ${manifest}: ${key} is ${found}, and the call says ${given}")
      endif()
    elseif(given)
      string(APPEND written "${key}: ${given}\n")
    endif()
  endforeach()
  if(NOT version)
    message(FATAL_ERROR "attnrt_add_plugin: ${manifest}: found no version, neither in the manifest nor in the call")
  endif()
  if(NOT version MATCHES "^[0-9]+[.][0-9]+[.][0-9]+([-+].*)?$")
    message(FATAL_ERROR "attnrt_add_plugin: ${name}: version is ${version}, expected a semantic version such as 1.0.0")
  endif()
  set(complete ${CMAKE_CURRENT_BINARY_DIR}/${target}_manifest.yaml)
  file(CONFIGURE OUTPUT ${complete} @ONLY CONTENT "@text@\n@written@")
  set(${out_file} ${complete} PARENT_SCOPE)
  set(${out_version} "${version}" PARENT_SCOPE)
endfunction()
