# What our own tests, examples and benchmarks are built with, and no user of the library ever sees:
# warnings, -march=native, and the place of the binaries.
add_library(minnow_dev INTERFACE)
target_link_libraries(minnow_dev INTERFACE minnow::minnow)

set(gnu "$<CXX_COMPILER_ID:GNU>")
set(clang "$<CXX_COMPILER_ID:Clang,AppleClang>")
target_compile_options(
  minnow_dev
  INTERFACE
    -Wall
    -Wextra
    -Wpedantic
    -Wconversion
    -Wshadow
    $<$<BOOL:${MINNOW_WERROR}>:-Werror>
    $<$<BOOL:${MINNOW_NATIVE}>:-march=native>
    # Clang counts -Wsign-conversion to -Wconversion, GCC does not: ask the same of both.
    $<${clang}:-Wno-sign-conversion>
    # Clang's note that it did not vectorise a loop under `#pragma omp simd` depends on -O, and is no mistake.
    $<${clang}:-Wno-error=pass-failed>
    # `#pragma omp simd` is a comment to a compiler that was told nothing of OpenMP.
    $<$<NOT:$<BOOL:${MINNOW_OPENMP}>>:-Wno-unknown-pragmas>)

# Files that link the library must be compiled for the same processor.
target_link_libraries(minnow_compiled PRIVATE minnow_dev)

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")

if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(MINNOW_CCACHE ccache)
  mark_as_advanced(MINNOW_CCACHE)
  if(MINNOW_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${MINNOW_CCACHE}")
  endif()
endif()

# What only tests and examples use. `minnow_extras` is whatever of it was found.
find_package(CLI11 QUIET CONFIG)
find_package(nlohmann_json QUIET CONFIG)
add_library(minnow_extras INTERFACE)
foreach(target minnow::download nlohmann_json::nlohmann_json)
  if(TARGET ${target})
    target_link_libraries(minnow_extras INTERFACE ${target})
  endif()
endforeach()

include("${CMAKE_CURRENT_LIST_DIR}/MinnowBuildInfo.cmake")
