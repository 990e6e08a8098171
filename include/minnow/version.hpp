#pragma once

/// The version of minnow, written down in this one place: CMake reads it from here, and the
/// library's inline namespace carries it.
#define MINNOW_VERSION_MAJOR 0
#define MINNOW_VERSION_MINOR 1
#define MINNOW_VERSION_PATCH 0
