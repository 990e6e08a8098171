# `minnow_build_info` gives a program "minnow_build_info.hpp": which commit it was built from, and how.
# Written at build time, since commits come and go without CMake being run; touched only when it changes.
if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(header "${PROJECT_BINARY_DIR}/generated/minnow_build_info.hpp")
  string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
  set(flags "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${type}} $<$<BOOL:${MINNOW_NATIVE}>:-march=native>")
  add_custom_target(
    minnow_write_build_info
    BYPRODUCTS "${header}"
    COMMAND
      "${CMAKE_COMMAND}" "-Dheader=${header}" "-Dsource=${PROJECT_SOURCE_DIR}" "-Dflags=${flags}"
      "-Dcompiler=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}" -P "${CMAKE_CURRENT_LIST_FILE}"
    COMMENT "Noting the commit"
    VERBATIM)
  add_library(minnow_build_info INTERFACE)
  target_include_directories(minnow_build_info INTERFACE "${PROJECT_BINARY_DIR}/generated")
  add_dependencies(minnow_build_info minnow_write_build_info)
  return()
endif()

cmake_minimum_required(VERSION 3.22)
set(commit "unknown")
if(EXISTS "${source}/.git")
  execute_process(
    COMMAND git -C "${source}" describe --always --dirty --abbrev=12 --match=NeverATag
    OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed)
    set(commit "${described}")
  endif()
endif()
string(STRIP "${flags}" flags)
string(REGEX REPLACE " +" " " flags "${flags}")
string(REGEX REPLACE "([\"\\])" "\\\\\\1" flags "${flags}")
file(CONFIGURE OUTPUT "${header}" CONTENT "#pragma once
#define MINNOW_BUILD_COMMIT \"${commit}\"
#define MINNOW_BUILD_COMPILER \"${compiler}\"
#define MINNOW_BUILD_FLAGS \"${flags}\"
" @ONLY)
