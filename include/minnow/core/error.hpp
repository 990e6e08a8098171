#pragma once
/// @file
/// Errors that say what was found, what was needed and what to do.

#include <concepts>
#include <cstdint>
#include <initializer_list>
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

/// One piece of a message: text, a number, or something with a member `str()`. What it refers to
/// must outlive it. One class for all of them, so that a message costs its caller hardly any code.
class MessagePart {
 public:
  MessagePart(std::string_view text) : append_(&append_text), text_(text) {}
  MessagePart(const std::string& text) : MessagePart(std::string_view(text)) {}
  MessagePart(const char* text) : MessagePart(std::string_view(text)) {}
  MessagePart(char letter) : append_(&append_letter), number_(letter) {}
  MessagePart(std::integral auto number)
      : append_(&append_integer), number_(static_cast<Index>(number)) {}
  MessagePart(std::unsigned_integral auto number)
      : append_(&append_unsigned), unsigned_(static_cast<std::uint64_t>(number)) {}
  MessagePart(std::floating_point auto number)
      : append_(&append_real), real_(static_cast<double>(number)) {}
  template <class P>
  requires requires(const P& part) { part.str(); }
  MessagePart(const P& part) : append_(&append_object<P>), object_(&part) {}

  void append_to(std::string& out) const { append_(out, *this); }

 private:
  static void append_text(std::string& out, const MessagePart& part) { out += part.text_; }
  static void append_letter(std::string& out, const MessagePart& part) {
    out += static_cast<char>(part.number_);
  }
  static void append_integer(std::string& out, const MessagePart& part) {
    out += std::to_string(part.number_);
  }
  static void append_unsigned(std::string& out, const MessagePart& part) {
    out += std::to_string(part.unsigned_);
  }
  static void append_real(std::string& out, const MessagePart& part) {
    // "0.1" rather than to_string's "0.100000".
    char buffer[32];
    const int length = __builtin_snprintf(buffer, sizeof buffer, "%.6g", part.real_);
    out.append(buffer, static_cast<std::size_t>(length));
  }
  template <class P>
  static void append_object(std::string& out, const MessagePart& part) {
    out += static_cast<const P*>(part.object_)->str();
  }

  void (*append_)(std::string& out, const MessagePart& part);
  union {
    std::string_view text_;
    Index number_;
    std::uint64_t unsigned_;
    double real_;
    const void* object_;
  };
};

MINNOW_NOINLINE inline std::string join(std::initializer_list<MessagePart> parts) {
  std::string out;
  for (const MessagePart& part : parts) part.append_to(out);
  return out;
}

template <class E>
[[noreturn, gnu::cold]] MINNOW_NOINLINE void raise(std::initializer_list<MessagePart> parts) {
  throw E(join(parts));
}

}  // namespace detail

/// Joins text, numbers, and everything with a member `str()`.
template <class... Parts>
std::string text(const Parts&... parts) {
  return detail::join({parts...});
}

/// Throws `E` with the joined parts unless `condition` holds. The parts are joined only on failure.
template <class E = Error, class... Parts>
MINNOW_INLINE void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    detail::raise<E>({parts...});
}

}  // namespace minnow::inline MINNOW_ABI
