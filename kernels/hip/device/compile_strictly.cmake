# kernels/hip/device/compile_strictly.cmake: compiles a kernel file of wgmma instructions, and fails
# where ptxas runs them one after another (C7510, C7520) or spills more than SPILL_BYTES of a kernel's
# registers
#
#   cmake [-D SPILL_BYTES=<n>] -P compile_strictly.cmake -- <compiler> -Xptxas -v <argument>... -o <file>
set(command "")
set(given FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(n RANGE ${last})
  if(given)
    list(APPEND command "${CMAKE_ARGV${n}}")
  elseif(CMAKE_ARGV${n} STREQUAL "--")
    set(given TRUE)
  endif()
endforeach()
execute_process(COMMAND ${command} RESULT_VARIABLE failed OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(text MATCHES "wgmma.mma_async instructions are serialized")
  set(failed 1)
endif()
string(REGEX MATCHALL "[0-9]+ bytes spill stores" spills "${text}")
foreach(spill IN LISTS spills)
  string(REGEX MATCH "[0-9]+" bytes ${spill})
  if(bytes GREATER "0${SPILL_BYTES}")
    set(failed 1)
  endif()
endforeach()
if(failed)
  list(GET command -1 file)
  file(REMOVE ${file})  # so that the next build compiles it again
  message(FATAL_ERROR "${text}")
elseif(text MATCHES "warning")
  message("${text}")
endif()
