#pragma once
/// @file
/// The texts of errors.

#include <string>

#include "minnow/core/error.hpp"

namespace minnow_test {

/// What `action` throws, as text; "" if it throws nothing.
template <class E = minnow::Error, class Action>
std::string error_of(const Action& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

}  // namespace minnow_test
