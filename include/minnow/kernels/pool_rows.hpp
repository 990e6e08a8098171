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

/// A plane's rows as the windows read them, in memory of its own for each of `workers` threads.
template <class T>
class PoolRows {
 public:
  using V = Pack<T>;

  PoolRows(const PoolAxis& rows, const PoolAxis& cols, Index workers)
      : rows_(rows),
        cols_(cols),
        phase_(phase_of(cols)),
        pitch_(cols.stride * phase_),
        kept_(std::min(cols.size, pitch_ - cols.padding)),
        filled_((cols.padding + kept_ + cols.stride - 1) / cols.stride),
        memory_size_((rows.size + behind + 1) * pitch_),
        memory_(workers * memory_size_),
        first_places_(cols.out),
        taps_(cols.kernel) {
    // Padding is the same for all rows and planes, so it is written once.
    std::fill_n(memory_.data(), workers * memory_size_, lowest);
    for (Index ow = 0; ow < cols.out; ++ow)
      first_places_.data()[ow] = static_cast<T>(cols.window(ow).first);
    for (Index kw = 0; kw < cols.kernel; ++kw) {
      const Index at = kw * cols.dilation;
      taps_.data()[kw] = at % cols.stride * phase_ + at / cols.stride;
    }
  }

  /// The largest number of each window of plane x, and its place. A NaN is larger than any number.
  void max(T* y, const PoolPlaces& places, const T* x, Index worker) const {
    T *staged = memory_.data() + worker * memory_size_, *lines = staged + rows_.size * pitch_;
    // A line is split long after it was copied: what is just being stored cannot be loaded at once.
    const Index size = rows_.size;
    for (Index h = 0; h < size + behind; ++h) {
      if (h < size) copy(line(staged, lines, h), x + h * cols_.size);
      if (h >= behind && cols_.stride > 1)
        split(staged + (h - behind) * pitch_, line(staged, lines, h - behind));
    }
    constexpr int together = 4;
    for (Index oh = 0; oh < rows_.out;) {
      const PoolWindow row = rows_.window(oh), last = rows_.window(oh + together - 1);
      const bool alike = oh + together <= rows_.out && row.first == last.first &&
                         row.last == last.last;  // then so are those between
      const Index at = oh * cols_.out;
      if (alike)
        max_of_rows<together>(y + at, places.from(at), staged, row);
      else
        max_of_rows<1>(y + at, places.from(at), staged, row);
      oh += alike ? together : 1;
    }
  }

 private:
  static constexpr T lowest = -std::numeric_limits<T>::infinity();
  static constexpr Index behind = 1;

  /// Whole packs; one is readable from the last window's taps on.
  static Index phase_of(const PoolAxis& cols) {
    const Index read = cols.out + (cols.kernel - 1) * cols.dilation / cols.stride + V::width;
    return (read + V::width - 1) / V::width * V::width;
  }

  /// R rows of windows, which have the taps of the first, `row`: side by side, as each tap of a
  /// window waits for the one before it.
  template <int R>
  void max_of_rows(T* y, const PoolPlaces& places, const T* staged, const PoolWindow& row) const {
    const Index out = cols_.out, step = rows_.stride * pitch_;
    for (Index ow = 0; ow < out; ow += V::width) {
      const Index count = std::min(V::width, out - ow);
      // If all of a window is -infinity, its first number counts.
      const V first = load_up_to<V>(first_places_.data() + ow, count) +
                      V(static_cast<T>(row.first * cols_.kernel));
      V best[R], place[R];
      MINNOW_UNROLL
      for (int r = 0; r < R; ++r) {
        best[r] = V(lowest);
        place[r] = first;
      }
      for (Index kh = row.first; kh < row.last; ++kh) {
        const T* from = staged + (row.start + kh * rows_.dilation) * pitch_ + ow;
        for (Index kw = 0; kw < cols_.kernel; ++kw) {
          const V here(static_cast<T>(kh * cols_.kernel + kw));
          MINNOW_UNROLL
          for (int r = 0; r < R; ++r) {
            const V value = V::load(from + r * step + taps_.data()[kw]);
            place[r] =
                select_equal(value, value, select_less(best[r], value, here, place[r]), here);
            best[r] =
                select_equal(value, value, select_less(best[r], value, value, best[r]), value);
          }
        }
      }
      MINNOW_UNROLL
      for (int r = 0; r < R; ++r) {
        store_up_to(best[r], y + r * out + ow, count);
        store_places(place[r], places.from(r * out + ow), count);
      }
    }
  }

  /// A row with its padding; of stride 1, this is what windows read. That of the next plane is
  /// asked for: reading rests while windows are compared.
  void copy(T* to, const T* row) const {
    for (Index i = 0; i < cols_.size; i += Index{64 / sizeof(T)})
      __builtin_prefetch(row + rows_.size * cols_.size + i, 0, 2);
    std::copy_n(row, kept_, to + cols_.padding);
  }
  /// Where row h goes at first: where it stays, or into a line that `split` reads.
  T* line(T* staged, T* lines, Index h) const {
    return cols_.stride == 1 ? staged + h * pitch_ : lines + h % (behind + 1) * pitch_;
  }

  /// A row of staged [stride][phase]: number i of phase p is column i * stride + p - padding. The
  /// common strides are split a pack at a time.
  void split(T* to, const T* from) const {
    const Index stride = cols_.stride;
    if (stride == 2) return split_packs<2>(to, from);
    if (stride == 3) return split_packs<3>(to, from);
    if (stride == 4) return split_packs<4>(to, from);
    for (Index i = 0; i < filled_; ++i)
      for (Index p = 0; p < stride; ++p) to[p * phase_ + i] = from[i * stride + p];
  }
  template <int stride>
  void split_packs(T* to, const T* from) const {
    for (Index i = 0; i < filled_; i += V::width) {
      V numbers[stride], phases[stride];
      MINNOW_UNROLL
      for (int q = 0; q < stride; ++q) numbers[q] = V::load(from + i * stride + q * V::width);
      deinterleave(numbers, phases);
      MINNOW_UNROLL
      for (int p = 0; p < stride; ++p) phases[p].store(to + p * phase_ + i);
    }
  }

  static void store_places(V place, const PoolPlaces& to, Index count) {
    if (to.bytes) return store_bytes(place, to.bytes, count);
    if (!to.numbers) return;
    T places[V::width];
    place.store(places);
    for (Index i = 0; i < count; ++i) to.numbers[i] = static_cast<std::int32_t>(places[i]);
  }

  PoolAxis rows_, cols_;
  Index phase_;        ///< columns of a phase
  Index pitch_;        ///< numbers of a row of all phases
  Index kept_;         ///< numbers of a row that a window may read
  Index filled_;       ///< columns of a phase that have such numbers; all others are padding
  Index memory_size_;  ///< numbers for a worker: the rows, and lines before they are split
  Scratch<T> memory_, first_places_;
  Scratch<Index> taps_;
};

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
