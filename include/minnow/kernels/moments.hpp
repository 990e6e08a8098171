#pragma once
/// @file
/// Mean and variance of many numbers, and the merging of partial results in a fixed order.
///
/// All sums run in two stages: lane by lane in `T` over pieces of at most `detail::moment_piece`
/// numbers (64 additions a lane), then in double over the pieces. A piece whose squares overflow
/// `T` is summed again in double.

#include <algorithm>
#include <cmath>

#include "minnow/core/config.hpp"
#include "minnow/core/simd.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// How many numbers there are, their mean, and the sum of their squared distances from it.
struct Moments {
  double count = 0, mean = 0, m2 = 0;

  /// The biased variance m2 / count; 0 for no numbers.
  double variance() const { return count > 0 ? m2 / count : 0; }
};

/// The moments of two sets of numbers together.
///
/// With d = b.mean - a.mean: mean = a.mean + d * b.count / count, m2 = a.m2 + b.m2 + d^2 * a.count
/// * b.count / count. Paper: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
/// computing sample variances", 1979.
inline Moments merge(const Moments& a, const Moments& b) {
  const double count = a.count + b.count;
  if (count == 0) return {};
  const double delta = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + delta * share, a.m2 + b.m2 + delta * (delta * a.count * share)};
}

namespace detail {

/// The longest run of numbers that is summed in `T` alone. As floats it fills a third of a 48 KB L1
/// cache, so the second pass of a variance reads from there.
inline constexpr Index moment_piece = 4096;

/// Calls `f(first, count, runs)` for pieces of a set of `runs` runs, each of `count` contiguous
/// numbers, `stride` apart: pieces of at most `moment_piece` numbers, in order.
template <class F>
MINNOW_INLINE void for_pieces(Index count, Index runs, Index stride, const F& f) {
  if (count * runs == 0) return;
  if (count <= moment_piece) {
    const Index most = moment_piece / count;
    for (Index run = 0; run < runs; run += most) f(run * stride, count, std::min(most, runs - run));
    return;
  }
  for (Index run = 0; run < runs; ++run)
    for (Index i = 0; i < count; i += moment_piece)
      f(run * stride + i, std::min(moment_piece, count - i), Index{1});
}

/// The first `lanes` <= width numbers from an address; the other lanes are zero.
template <class T>
MINNOW_INLINE Pack<T> load_lanes(const T* from, Index lanes) {
  return lanes == Pack<T>::width ? Pack<T>::load(from) : Pack<T>::load(from, lanes);
}
template <class T>
MINNOW_INLINE void store_lanes(T* to, Pack<T> value, Index lanes) {
  lanes == Pack<T>::width ? value.store(to) : value.store(to, lanes);
}

/// The sum over a strided set: sum = term(sum, x - center), lane by lane. `term` must leave a lane
/// alone whose difference is zero. Unless `ahead` is 0, what lies so far behind each number is
/// fetched meanwhile.
template <class T, class Term>
MINNOW_INLINE T sum_differences(const T* x, Index count, Index runs, Index stride, T center,
                                const Term& term, Index ahead = 0) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  const Index tail = count % W;
  const P c(center);
  // Four sums: an addition takes four cycles, and two can start in each.
  P s0 = P::zero(), s1 = s0, s2 = s0, s3 = s0;
  for (Index run = 0; run < runs; ++run) {
    const T* from = x + run * stride;
    Index i = 0;
    for (; i + 4 * W <= count; i += 4 * W) {
      if (ahead != 0)
        for (std::size_t byte = 0; byte < 4 * sizeof(P); byte += 64)
          __builtin_prefetch(reinterpret_cast<const char*>(from + i + ahead) + byte, 0, 2);
      s0 = term(s0, P::load(from + i) - c);
      s1 = term(s1, P::load(from + i + W) - c);
      s2 = term(s2, P::load(from + i + 2 * W) - c);
      s3 = term(s3, P::load(from + i + 3 * W) - c);
    }
    if (i + 2 * W <= count) {
      s0 = term(s0, P::load(from + i) - c);
      s1 = term(s1, P::load(from + i + W) - c);
      i += 2 * W;
    }
    if (i + W <= count) {
      s2 = term(s2, P::load(from + i) - c);
      i += W;
    }
    if (i < count) s3 = term(s3, (P::load(from + i, tail) - c).first(tail));
  }
  return sum((s0 + s1) + (s2 + s3));
}

template <class T>
MINNOW_INLINE T sum_differences(const T* x, Index count, Index runs, Index stride, T center) {
  return sum_differences(x, count, runs, stride, center, [](auto s, auto d) { return s + d; });
}
template <class T>
MINNOW_INLINE T sum_squared_differences(const T* x, Index count, Index runs, Index stride, T center,
                                        Index ahead = 0) {
  return sum_differences(
      x, count, runs, stride, center, [](auto s, auto d) { return fma(d, d, s); }, ahead);
}

/// The moments of a strided set in double, number by number: for what overflows `T`.
template <class T>
Moments wide_moments(const T* x, Index count, Index runs, Index stride) {
  const double n = static_cast<double>(count * runs), pivot = static_cast<double>(x[0]);
  double shift = 0, m2 = 0;
  for (Index run = 0; run < runs; ++run)
    for (Index i = 0; i < count; ++i) shift += static_cast<double>(x[run * stride + i]) - pivot;
  const double mean = pivot + shift / n;
  for (Index run = 0; run < runs; ++run)
    for (Index i = 0; i < count; ++i) {
      const double d = static_cast<double>(x[run * stride + i]) - mean;
      m2 += d * d;
    }
  return {n, mean, m2};
}

/// The moments of one piece. The second pass, which reads from L1, fetches what the first one of
/// another piece, `ahead` numbers behind this one, will wait for; 0 for none.
template <class T>
MINNOW_INLINE Moments piece_moments(const T* x, Index count, Index runs, Index stride,
                                    Index ahead = 0) {
  const double n = static_cast<double>(count * runs);
  // Distances from the first number are exact where the numbers are close to each other, so a
  // constant piece has exactly its constant for mean.
  const T pivot = x[0];
  const T shift =
      static_cast<T>(static_cast<double>(sum_differences(x, count, runs, stride, pivot)) / n);
  const T mean = pivot + shift;
  const double rest =
      static_cast<double>(shift - (mean - pivot));  // what rounding took from the mean
  const double m2 =
      static_cast<double>(sum_squared_differences(x, count, runs, stride, mean, ahead));
  if (!std::isfinite(m2)) [[unlikely]]
    return wide_moments(x, count, runs, stride);
  return {n, static_cast<double>(mean) + rest, std::max(0.0, m2 - n * rest * rest)};
}

}  // namespace detail

/// The moments of `runs` runs of `count` contiguous numbers each, `stride` apart.
///
/// Two passes, the first over x - x[0]. The error of the mean is below 1e-6 standard deviations (in
/// float), whatever the mean; squares may overflow `T` but not double. `ahead`: where the next call
/// will read, counted from x; 0 if that is not known.
template <class T>
Moments moments(const T* x, Index count, Index runs = 1, Index stride = 0, Index ahead = 0) {
  const Index size = count * runs;
  if (size > 0 && size <= detail::moment_piece)
    return detail::piece_moments(x, count, runs, stride, ahead);
  Moments result;
  detail::for_pieces(count, runs, stride, [&](Index first, Index piece_count, Index piece_runs) {
    result = merge(result, detail::piece_moments(x + first, piece_count, piece_runs, stride));
  });
  return result;
}

/// The sum of x[i]^2 for `count` contiguous numbers. Squares may overflow `T` but not double.
template <class T>
double sum_squares(const T* x, Index count) {
  double result = 0;
  detail::for_pieces(count, 1, 0, [&](Index first, Index piece_count, Index) {
    double squares =
        static_cast<double>(detail::sum_squared_differences(x + first, piece_count, 1, 0, T(0)));
    if (!std::isfinite(squares)) [[unlikely]] {
      squares = 0;
      for (Index i = first; i < first + piece_count; ++i)
        squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    result += squares;
  });
  return result;
}

/// Merges partial moments column by column: row b of `mean` and `m2`, both [blocks, cols],
/// describes `count` numbers of each column (the last row: `last_count`). Row 0 is overwritten by
/// the result.
///
/// Chan's formula for many parts at once: mean = sum(count_b * mean_b) / n, taken as distances from
/// mean_0, and m2 = sum(m2_b + count_b * (mean_b - mean)^2).
inline void merge_columns(double* mean, double* m2, Index blocks, Index cols, Index count,
                          Index last_count) {
  constexpr Index tile = 16;
  const double total = static_cast<double>((blocks - 1) * count + last_count);
  const auto count_of = [&](Index b) {
    return static_cast<double>(b + 1 < blocks ? count : last_count);
  };
  for (Index first = 0; first < cols; first += tile) {
    const Index width = std::min(tile, cols - first);
    double center[tile], squares[tile] = {}, shift[tile] = {};
    for (Index b = 1; b < blocks; ++b) {
      const double weight = count_of(b) / total;
      MINNOW_SIMD
      for (Index j = 0; j < width; ++j)
        shift[j] += weight * (mean[b * cols + first + j] - mean[first + j]);
    }
    for (Index j = 0; j < width; ++j) center[j] = mean[first + j] + shift[j];
    for (Index b = 0; b < blocks; ++b) {
      const double n = count_of(b);
      MINNOW_SIMD
      for (Index j = 0; j < width; ++j) {
        const double d = mean[b * cols + first + j] - center[j];
        squares[j] += m2[b * cols + first + j] + n * d * d;
      }
    }
    std::copy_n(center, width, mean + first);
    std::copy_n(squares, width, m2 + first);
  }
}

/// y[j] = sum over b of partial[b * pitch + j], in the order of b, in double.
template <class T, class U>
void sum_columns(T* y, const U* partial, Index blocks, Index cols, Index pitch) {
  constexpr Index tile = 16;
  for (Index first = 0; first < cols; first += tile) {
    const Index width = std::min(tile, cols - first);
    double sums[tile] = {};
    for (Index b = 0; b < blocks; ++b) {
      MINNOW_SIMD
      for (Index j = 0; j < width; ++j)
        sums[j] += static_cast<double>(partial[b * pitch + first + j]);
    }
    for (Index j = 0; j < width; ++j) y[first + j] = static_cast<T>(sums[j]);
  }
}

}  // namespace minnow::inline MINNOW_ABI::kernels
