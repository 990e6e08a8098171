#pragma once
/// @file
/// Where the windows of a pooling lie along one axis, and loads and stores at the end of a row.

#include <algorithm>
#include <cstdint>

#include "minnow/core/simd_lanes.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// The part of one window that lies inside the input: its taps [first, last), tap k at position
/// start + k * dilation. An average divides by `count`.
struct PoolWindow {
  Index start, first, last, count;

  Index begin() const { return start + first; }  ///< for a dilation of 1
  Index end() const { return start + last; }
};

/// Windows of equal size along one axis of a plane.
struct PoolAxis {
  Index size, out, kernel, stride = 1, padding = 0, dilation = 1;
  bool count_padding = true;  ///< an average counts the padding's zeros too

  PoolWindow window(Index o) const {
    const Index start = o * stride - padding;
    const Index first = start < 0 ? (dilation - 1 - start) / dilation : 0;
    const Index last =
        start + (kernel - 1) * dilation < size ? kernel : (size - start + dilation - 1) / dilation;
    return {start, first, last,
            count_padding ? std::min(start + kernel, size + padding) - start : last - first};
  }

  /// How many windows fit. With `ceil_mode` the last may hang over the end, but not start beyond it
  /// or in the padding behind it. Zero or less where not even one fits.
  static Index count(Index size, Index kernel, Index stride, Index padding, Index dilation,
                     bool ceil_mode) {
    const Index room = size + 2 * padding - dilation * (kernel - 1) - 1;
    if (room < 0 && !(ceil_mode && room > -stride)) return 0;
    const Index out = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    return ceil_mode && (out - 1) * stride >= size + padding ? out - 1 : out;
  }
};

/// `out` windows that cover an axis evenly: [floor(o * size / out), ceil((o + 1) * size / out)).
struct AdaptivePoolAxis {
  Index size, out;

  PoolWindow window(Index o) const {
    const Index begin = o * size / out, end = ((o + 1) * size + out - 1) / out;
    return {begin, 0, end - begin, end - begin};
  }
};

/// Where in its window the largest number was, as kh * kernel_w + kw: in bytes for windows of at
/// most 256 places, else in numbers; nowhere if nobody asks.
struct PoolPlaces {
  std::uint8_t* bytes = nullptr;
  std::int32_t* numbers = nullptr;

  PoolPlaces from(Index at) const {
    return {bytes ? bytes + at : nullptr, numbers ? numbers + at : nullptr};
  }
};

namespace detail {

/// The first `count` numbers; other lanes are zero. Any count, also none or more than a pack.
template <class V, class T>
MINNOW_INLINE V load_up_to(const T* from, Index count) {
  if (count >= V::width) return V::load(from);
  return count > 0 ? V::load(from, count) : V::zero();
}
template <class V, class T>
MINNOW_INLINE void store_up_to(V values, T* to, Index count) {
  if (count >= V::width)
    values.store(to);
  else if (count > 0)
    values.store(to, count);
}

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::kernels
