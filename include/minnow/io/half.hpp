#pragma once
/// @file
/// Numbers of 16 bits, as files hold them. Both convert to float exactly.

#include <bit>
#include <cstdint>

#include "minnow/core/config.hpp"

namespace minnow::inline MINNOW_ABI::io {

/// The upper half of a float.
struct BFloat16 {
  std::uint16_t bits;

  explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

/// IEEE 754's binary16: a sign, 5 bits of exponent, 10 of mantissa.
struct Half {
  std::uint16_t bits;

  explicit operator float() const {
    // Both parts where a float has them. The exponents differ by 112.
    const std::uint32_t sign = (bits & 0x8000u) << 16, rest = (bits & 0x7FFFu) << 13;
    constexpr std::uint32_t exponent = 1u << 23, infinity = 0xFF * exponent;
    if (rest >= 31 * exponent) return std::bit_cast<float>(sign | infinity | rest);  // or NaN
    if (rest >= exponent) return std::bit_cast<float>(sign | (rest + 112 * exponent));
    const float subnormal = static_cast<float>(bits & 0x3FFu) * 0x1p-24f;
    return sign == 0 ? subnormal : -subnormal;
  }
};

}  // namespace minnow::inline MINNOW_ABI::io
