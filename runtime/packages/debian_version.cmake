# runtime/packages/debian_version.cmake: the Debian form of a semantic version
#
# dpkg sorts ~ before everything, so 1.3.0~rc.1-1 is older than 1.3.0-1. The revision is the packaging's own number.
function(attnrt_debian_version out semver revision)
  string(REGEX REPLACE "^([0-9.]+)-" "\\1~" version ${semver})
  set(${out} ${version}-${revision} PARENT_SCOPE)
endfunction()
