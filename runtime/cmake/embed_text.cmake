# runtime/cmake/embed_text.cmake: writes a .cpp with a function that returns a text file's contents
#
#   cmake -D INPUT=config/default.yaml -D OUTPUT=build/builtin_policy.cpp [-D FUNCTION=builtin_policy] -P embed_text.cmake
#
# The function is std::string_view attnrt::core::FUNCTION(). The .cpp includes nothing of this
# project. The text must be
# ASCII. It is cut into pieces, because compilers may refuse string literals over 16 KB.
foreach(needed INPUT OUTPUT)
  if(NOT DEFINED ${needed})
    message(FATAL_ERROR "embed_text.cmake: -D ${needed}=... is missing")
  endif()
endforeach()
if(NOT DEFINED FUNCTION)
  set(FUNCTION builtin_policy)
endif()

file(READ "${INPUT}" hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR bytes "${digits} / 2")
file(READ "${INPUT}" text)
string(LENGTH "${text}" length)
string(FIND "${text}" ")attnrt\"" delimiter)
if(NOT length EQUAL bytes OR NOT delimiter EQUAL -1)
  message(FATAL_ERROR "embed_text.cmake: ${INPUT} holds NUL bytes or the delimiter )attnrt\"")
endif()

get_filename_component(name "${INPUT}" NAME)
set(code "// ${name} as text, written by embed_text.cmake\n#include <string_view>\n\nnamespace attnrt::core {\n\n")
string(APPEND code "std::string_view ${FUNCTION}();\n\nstd::string_view ${FUNCTION}() {\n  static constexpr char text[] =\n")
set(begin 0)
while(begin LESS length)
  string(SUBSTRING "${text}" ${begin} 8000 piece)
  string(APPEND code "R\"attnrt(${piece})attnrt\"\n")
  math(EXPR begin "${begin} + 8000")
endwhile()
string(APPEND code "\"\";\n  return {text, sizeof text - 1};\n}\n\n}  // namespace attnrt::core\n")
file(WRITE "${OUTPUT}" "${code}")
