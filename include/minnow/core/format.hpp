#pragma once
/// @file
/// Numbers and columns as people read them. Without <format> and streams, which are dear to
/// compile.

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>

#include "minnow/core/config.hpp"

namespace minnow::inline MINNOW_ABI {

/// "1,234,567"
inline std::string thousands(Index number) {
  std::string digits = std::to_string(number);
  const Index first = number < 0 ? 1 : 0;
  for (Index at = std::ssize(digits) - 3; at > first; at -= 3)
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  return digits;
}

/// `number` with that many digits after the point: fixed(0.5, 2) is "0.50".
inline std::string fixed(double number, int digits) {
  std::array<char, 400> buffer;  // the largest double has 309 digits before the point
  const int length = std::snprintf(buffer.data(), buffer.size(), "%.*f", digits, number);
  return std::string(buffer.data(), std::clamp<std::size_t>(static_cast<std::size_t>(length), 0,
                                                            buffer.size() - 1));
}

/// `cell` moved to the right (left) end of a column; longer cells stay as they are.
inline std::string align_right(std::string_view cell, Index width) {
  const Index spaces = std::max<Index>(0, width - std::ssize(cell));
  return std::string(static_cast<std::size_t>(spaces), ' ').append(cell);
}
inline std::string align_left(std::string_view cell, Index width) {
  const Index spaces = std::max<Index>(0, width - std::ssize(cell));
  return std::string(cell).append(static_cast<std::size_t>(spaces), ' ');
}

}  // namespace minnow::inline MINNOW_ABI
