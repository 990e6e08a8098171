# Every header compiles alone, and twice: one translation unit a header, with our warnings, and cheaply: -O0.
# Part of `all`, so of every build before the tests. `ninja check_headers` does just this. A build with sanitizers, which
# would see nothing else than the one without, leaves it out.
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  return()
endif()
file(GLOB_RECURSE headers RELATIVE "${PROJECT_SOURCE_DIR}/include" CONFIGURE_DEPENDS
     "${PROJECT_SOURCE_DIR}/include/minnow/*.hpp")
if(NOT TARGET minnow::download)
  list(REMOVE_ITEM headers minnow/data/download.hpp)
endif()
if(NOT TARGET nlohmann_json::nlohmann_json)
  list(REMOVE_ITEM headers minnow/io/checkpoint.hpp minnow/io/safetensors.hpp minnow/train/history.hpp)
endif()

set(sources "")
foreach(header IN LISTS headers)
  string(REGEX REPLACE "\\.hpp$" ".cpp" source "${PROJECT_BINARY_DIR}/check_headers/${header}")
  # Touches the file only when its text changes.
  file(CONFIGURE OUTPUT "${source}" CONTENT "#include \"${header}\"\n#include \"${header}\"\n")
  list(APPEND sources "${source}")
endforeach()

add_library(check_headers OBJECT ${sources})
target_link_libraries(check_headers PRIVATE minnow_dev minnow_extras)
target_compile_options(check_headers PRIVATE -O0)
