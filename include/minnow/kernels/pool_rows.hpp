#pragma once
/// @file
/// The largest number of any windows, a pack of neighbouring windows at a time.
///
/// The columns of a plane are split by the stride, with the padding among them: each tap of a row's
/// windows is then a run of memory, whatever stride, padding and dilation are.

#include <algorithm>
#include <cstdint>
#include <limits>

#include "minnow/core/memory.hpp"
#include "minnow/core/simd_lanes.hpp"
#include "minnow/kernels/pool_axis.hpp"
#include "minnow/kernels/tile.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// A plane's rows as the windows read them.
template <class T>
class PoolRows {
 public:
  using V = Pack<T>;

  PoolRows(const PoolAxis& rows, const PoolAxis& cols)
      : rows_(rows),
        cols_(cols),
        phase_(cols.out + (cols.kernel - 1) * cols.dilation / cols.stride + V::width),
        staged_(rows.size * cols.stride * phase_),
        first_places_(cols.out),
        taps_(cols.kernel) {
    // Padding is the same for all rows and planes, so it is written once.
    std::fill_n(staged_.data(), rows.size * cols.stride * phase_, lowest);
    for (Index ow = 0; ow < cols.out; ++ow)
      first_places_.data()[ow] = static_cast<T>(cols.window(ow).first);
    for (Index kw = 0; kw < cols.kernel; ++kw) {
      const Index at = kw * cols.dilation;
      taps_.data()[kw] = at % cols.stride * phase_ + at / cols.stride;
    }
  }

  /// The largest number of each window of plane x and, unless arg is null, its place. A NaN is
  /// larger than any number.
  template <class Arg>
  void max(T* y, Arg* arg, const T* x) {
    const Index pitch = cols_.stride * phase_, out = cols_.out;
    for (Index h = 0; h < rows_.size; ++h) stage(staged_.data() + h * pitch, x + h * cols_.size);
    for (Index oh = 0; oh < rows_.out; ++oh) {
      const PoolWindow row = rows_.window(oh);
      for (Index ow = 0; ow < out; ow += V::width) {
        const Index count = std::min(V::width, out - ow);
        // If all of a window is -infinity, its first number counts.
        V best(lowest), place = load_up_to<V>(first_places_.data() + ow, count) +
                                V(static_cast<T>(row.first * cols_.kernel));
        for (Index kh = row.first; kh < row.last; ++kh) {
          const T* from = staged_.data() + (row.start + kh * rows_.dilation) * pitch + ow;
          for (Index kw = 0; kw < cols_.kernel; ++kw) {
            const V value = V::load(from + taps_.data()[kw]),
                    here(static_cast<T>(kh * cols_.kernel + kw));
            place = select_equal(value, value, select_less(best, value, here, place), here);
            best = select_equal(value, value, select_less(best, value, value, best), value);
          }
        }
        store_up_to(best, y + oh * out + ow, count);
        if (arg) store_places(place, arg + oh * out + ow, count);
      }
    }
  }

 private:
  static constexpr T lowest = -std::numeric_limits<T>::infinity();

  /// staged [stride][phase]: number i of phase p is column i * stride + p - padding. The common
  /// strides are constants, so that the compiler can split a pack at a time.
  void stage(T* staged, const T* row) const {
    if (cols_.stride > 4) return split(staged, row, cols_.stride);
    constant_height<4>(cols_.stride, [&](auto stride) { split(staged, row, stride); });
  }
  template <class Stride>
  void split(T* staged, const T* row, Stride stride) const {
    const Index size = cols_.size, padding = cols_.padding, phase = phase_,
                first = (padding + stride - 1) / stride,
                last = std::clamp((size + padding) / stride, first, phase);
    const auto put = [=](Index column) {
      const Index at = column + padding;
      if (at / stride < phase) staged[at % stride * phase + at / stride] = row[column];
    };
    // Between them, all phases have a column.
    const Index begin = std::min(size, first * stride - padding), end = last * stride - padding;
    for (Index column = 0; column < begin; ++column) put(column);
    for (Index i = first; i < last; ++i)
      for (Index p = 0; p < stride; ++p) staged[p * phase + i] = row[i * stride + p - padding];
    for (Index column = std::max(begin, end); column < size; ++column) put(column);
  }

  static void store_places(V place, std::uint8_t* to, Index count) {
    store_bytes(place, to, count);
  }
  template <class Arg>
  static void store_places(V place, Arg* to, Index count) {
    T places[V::width];
    place.store(places);
    for (Index i = 0; i < count; ++i) to[i] = static_cast<Arg>(places[i]);
  }

  PoolAxis rows_, cols_;
  Index phase_;  ///< columns of a phase; a pack is readable from the last window's taps on
  Scratch<T> staged_, first_places_;
  Scratch<Index> taps_;
};

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
