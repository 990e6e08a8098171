#pragma once
/// @file
/// Errors that say what was found, what was needed and what to do.

#include <concepts>
#include <stdexcept>
#include <string>
#include <string_view>

#include "minnow/core/config.hpp"

namespace minnow::inline MINNOW_ABI {

/// Everything minnow throws.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Sizes that do not fit together.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A file, or another thing outside the program, that is not what it should be.
class DataError : public Error {
 public:
  using Error::Error;
};

namespace detail {

inline void append(std::string& out, std::string_view part) { out += part; }
inline void append(std::string& out, char part) { out += part; }
inline void append(std::string& out, std::integral auto part) { out += std::to_string(part); }
void append(std::string& out, std::floating_point auto part);
template <class P>
requires requires(const P& part) { part.str(); }
void append(std::string& out, const P& part) { out += part.str(); }

}  // namespace detail

/// Joins text, numbers, and everything with a member `str()`.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::string out;
  (detail::append(out, parts), ...);
  return out;
}

/// Throws `E` with the joined parts unless `condition` holds. The parts are joined only on failure.
template <class E = Error, class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    throw E(text(parts...));
}

namespace detail {

inline void append_number(std::string& out, double value) {
  // "0.1" rather than to_string's "0.100000".
  char buffer[32];
  const int length = __builtin_snprintf(buffer, sizeof buffer, "%.6g", value);
  out.append(buffer, static_cast<std::size_t>(length));
}
void append(std::string& out, std::floating_point auto part) {
  append_number(out, static_cast<double>(part));
}

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI
