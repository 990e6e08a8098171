# `cmake --install`: the headers, and a package for `find_package(minnow)` with the targets that `add_subdirectory` gives.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package "${CMAKE_INSTALL_DATADIR}/cmake/minnow")
set(targets minnow)
if(TARGET minnow_download)
  list(APPEND targets minnow_download)
  set_target_properties(minnow_download PROPERTIES EXPORT_NAME download)
endif()
target_include_directories(minnow INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/minnow" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(TARGETS ${targets} EXPORT minnowTargets)
install(EXPORT minnowTargets NAMESPACE minnow:: DESTINATION "${package}")

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/minnowConfig.cmake.in" "${PROJECT_BINARY_DIR}/minnowConfig.cmake"
                              INSTALL_DESTINATION "${package}" NO_SET_AND_CHECK_MACRO)
# While versions begin with 0, a new minor version may change the interface.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/minnowConfigVersion.cmake" COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)
install(
  FILES "${PROJECT_BINARY_DIR}/minnowConfig.cmake" "${PROJECT_BINARY_DIR}/minnowConfigVersion.cmake"
        "${CMAKE_CURRENT_LIST_DIR}/MinnowCompiled.cmake" "${CMAKE_CURRENT_LIST_DIR}/compiled.cpp"
  DESTINATION "${package}")
