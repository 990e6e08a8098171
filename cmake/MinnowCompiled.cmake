# The templates compiled once, for programs of many files (minnow/compiled.hpp): in the user's project, for its processor
# and with its options, and only when a target links it. For minnow's own tree and for its package alike.
if(NOT TARGET minnow_compiled)
  add_library(minnow_compiled STATIC EXCLUDE_FROM_ALL "${CMAKE_CURRENT_LIST_DIR}/compiled.cpp")
  add_library(minnow::compiled ALIAS minnow_compiled)
  target_link_libraries(minnow_compiled PUBLIC minnow::minnow)
  target_compile_definitions(minnow_compiled PUBLIC MINNOW_COMPILED)
endif()
