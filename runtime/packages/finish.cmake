# runtime/packages/finish.cmake: adds to the installed files of a package what Debian asks of each
#
# cpack runs it (CPACK_PRE_BUILD_SCRIPTS) when it has installed the files, before it packs them: the
# copyright file, the changelog, and the compression of both changelogs and of manual pages.
set(root ${CPACK_TEMPORARY_DIRECTORY}/usr/share)
set(doc ${root}/doc/${CPACK_PACKAGE_NAME})

# ---- copyright: the licence, and those of what is compiled in ----
file(READ ${CPACK_ATTNRT_LICENSE} copyright)
foreach(notice IN LISTS CPACK_ATTNRT_NOTICES)
  file(READ ${notice} text)
  get_filename_component(part ${notice} DIRECTORY)
  get_filename_component(part ${part} NAME)
  set(what "The headers of Debian's package ${part} are compiled in:")
  if(NOT notice MATCHES "^/usr/share/doc/")
    set(what "A part of this package has the following licence:")
  endif()
  string(APPEND copyright "\n--------\n\n${what}\n\n${text}")
endforeach()
file(WRITE ${doc}/copyright "${copyright}")

# ---- changelogs ----
set(changes "CHANGELOG.md of the sources of this version")
if(CPACK_ATTNRT_UPSTREAM_CHANGELOG)
  set(changes /usr/share/doc/${CPACK_PACKAGE_NAME}/changelog.gz)
  file(COPY_FILE ${doc}/CHANGELOG.md ${doc}/changelog)
  file(REMOVE ${doc}/LICENSE)  # it is in the copyright file
endif()
string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)  # SOURCE_DATE_EPOCH, if it is set
file(WRITE ${doc}/changelog.Debian "attnrt (${CPACK_DEBIAN_PACKAGE_VERSION}) bookworm; urgency=medium

  * What changed is in ${changes}.

 -- ${CPACK_PACKAGE_CONTACT}  ${date}
")

# ---- Compression, as Debian's policy wants it: the same bytes each time ----
file(GLOB pages ${doc}/changelog ${doc}/changelog.Debian ${root}/man/man*/*.[1-9])
execute_process(COMMAND gzip -9 --no-name --force ${pages} COMMAND_ERROR_IS_FATAL ANY)
file(GLOB_RECURSE pages ${doc}/* ${root}/man/*)
file(CHMOD ${pages} FILE_PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
