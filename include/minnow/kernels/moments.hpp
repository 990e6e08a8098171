#pragma once
/// @file
/// Mean and variance of many numbers, and the merging of partial results in a fixed order.
///
/// All sums run in two stages: lane by lane in `T` over pieces of at most `detail::moment_piece`
/// numbers (64 additions a lane), then in double over the pieces. A piece whose squares overflow
/// `T` is summed again in double. Decision 6 says why.

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
  if (a.count == 0) return b;
  const double count = a.count + b.count;
  const double delta = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + delta * share, a.m2 + b.m2 + delta * (delta * a.count * share)};
}

namespace detail {

/// The longest run of numbers that is summed in `T` alone. As floats it fills a third of a 48 KB L1
/// cache, so a second pass reads from there.
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

/// Sums over a set of numbers, lane by lane, of their distances d from a center and of d^2.
template <class T>
struct DistanceSums {
  Pack<T> d = Pack<T>::zero(), squares = d;

  MINNOW_INLINE void add(Pack<T> distance) {
    d += distance;
    squares = fma(distance, distance, squares);
  }
  MINNOW_INLINE void add(const DistanceSums& other) {
    d += other.d;
    squares += other.squares;
  }
};

/// The same of d^2 alone.
template <class T>
struct SquareSums {
  Pack<T> squares = Pack<T>::zero();

  MINNOW_INLINE void add(Pack<T> distance) { squares = fma(distance, distance, squares); }
  MINNOW_INLINE void add(const SquareSums& other) { squares += other.squares; }
};

/// Four sums side by side: an addition takes four cycles, and two can start in each.
template <class Sums, class T>
struct FourSums {
  using P = Pack<T>;
  static constexpr Index W = P::width;
  Sums s0, s1, s2, s3;

  /// Adds the distances from a center of four packs of numbers.
  MINNOW_INLINE void add_four(const T* from, P center) {
    s0.add(P::load(from) - center);
    s1.add(P::load(from + W) - center);
    s2.add(P::load(from + 2 * W) - center);
    s3.add(P::load(from + 3 * W) - center);
  }
  /// The same of less than four packs.
  MINNOW_INLINE void add_rest(const T* from, Index count, P center) {
    Index i = 0;
    if (i + 2 * W <= count) {
      s0.add(P::load(from) - center);
      s1.add(P::load(from + W) - center);
      i += 2 * W;
    }
    if (i + W <= count) {
      s2.add(P::load(from + i) - center);
      i += W;
    }
    // Beyond the numbers, distances are 0.
    if (const Index tail = count - i; tail > 0)
      s3.add((P::load(from + i, tail) - center).first(tail));
  }

  MINNOW_INLINE Sums total() {
    s0.add(s1);
    s2.add(s3);
    s0.add(s2);
    return s0;
  }
};

/// Adds up the distances x - center of a strided set. Unless `ahead` is 0, what lies so far behind
/// each number is fetched meanwhile.
template <class Sums, class T>
MINNOW_INLINE Sums sum_distances(const T* x, Index count, Index runs, Index stride, T center,
                                 Index ahead = 0) {
  using P = Pack<T>;
  constexpr Index four = 4 * P::width;
  const P c(center);
  FourSums<Sums, T> sums;
  for (Index run = 0; run < runs; ++run) {
    const T* from = x + run * stride;
    Index i = 0;
    for (; i + four <= count; i += four) {
      if (ahead != 0)
        for (std::size_t byte = 0; byte < 4 * sizeof(P); byte += 64)
          __builtin_prefetch(reinterpret_cast<const char*>(from + i + ahead) + byte, 0, 2);
      sums.add_four(from + i, c);
    }
    sums.add_rest(from + i, count - i, c);
  }
  return sums.total();
}

/// sum(x^2) over a piece.
template <class T>
MINNOW_INLINE double piece_squares(const T* x, Index count) {
  return static_cast<double>(sum(sum_distances<SquareSums<T>>(x, count, 1, 0, T(0)).squares));
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

/// The moments of a piece, whose mean is center + rest: the digits that `T` cannot hold.
template <class T>
struct PieceMoments {
  T center;
  double rest, m2;

  PieceMoments(T at, double beyond, double squares) : center(at), rest(beyond), m2(squares) {}
  explicit PieceMoments(const Moments& m)
      : center(static_cast<T>(m.mean)), rest(m.mean - static_cast<double>(center)), m2(m.m2) {}

  double mean() const { return static_cast<double>(center) + rest; }
  Moments whole(double count) const { return {count, mean(), m2}; }
};

/// A number in the midst of a strided set: the mean of four of them, far from each other. That of
/// equal numbers is exactly the number.
template <class T>
MINNOW_INLINE T find_pivot(const T* x, Index count, Index runs, Index stride) {
  const auto at = [&](Index i) { return x[(runs - 1) * i / 3 * stride + (count - 1) * i / 3]; };
  return ((at(0) + at(1)) + (at(2) + at(3))) * T(0.25);
}

/// The moments of a strided set from one pass over its distances d from a pivot:
///
///   mean = pivot + sum(d) / n    m2 = sum(d^2) - sum(d)^2 / n
///
/// Distances are exact where numbers are close to each other, so a constant set has exactly its
/// constant for mean.
template <class T>
struct OnePass {
  double n, d, squares;

  OnePass(double count, double sum_d, double sum_squares)
      : n(count), d(sum_d), squares(sum_squares) {}
  OnePass(const DistanceSums<T>& sums, double count)
      : OnePass(count, static_cast<double>(sum(sums.d)), static_cast<double>(sum(sums.squares))) {}

  bool overflows() const { return !std::isfinite(squares); }
  double lost() const { return d * d * (1 / n); }  // 1 / n is one for all sets of a loop
  /// False where squares have overflown, or where the pivot is so far off that the difference loses
  /// more than two bits.
  bool is_good() const { return !overflows() && lost() <= 0.75 * squares; }

  PieceMoments<T> moments(T pivot) const {
    const T shift = static_cast<T>(d * (1 / n)), center = pivot + shift;
    return {center, static_cast<double>(shift - (center - pivot)), std::max(0.0, squares - lost())};
  }
};

/// The moments of what overflows `T` in double; of what is far from the pivot, by one more pass
/// around the mean that the first one found.
template <class T>
MINNOW_NOINLINE PieceMoments<T> second_moments(const OnePass<T>& first, T pivot, const T* x,
                                               Index count, Index runs, Index stride) {
  if (!first.overflows()) {
    pivot = first.moments(pivot).center;
    const OnePass<T> again(sum_distances<DistanceSums<T>>(x, count, runs, stride, pivot), first.n);
    if (!again.overflows()) return again.moments(pivot);
  }
  return PieceMoments<T>(wide_moments(x, count, runs, stride));
}

/// The moments of a strided set from `sums` over its distances from `pivot`.
template <class T>
MINNOW_INLINE PieceMoments<T> finish_moments(const DistanceSums<T>& sums, T pivot, const T* x,
                                             Index count, Index runs, Index stride) {
  const OnePass<T> pass(sums, static_cast<double>(count * runs));
  if (!pass.is_good()) [[unlikely]]
    return second_moments(pass, pivot, x, count, runs, stride);
  return pass.moments(pivot);
}

/// The moments of one piece of contiguous numbers that are added up a stretch at a time, between
/// other things: while the piece before it is written.
template <class T>
class MomentsInTurns {
 public:
  MomentsInTurns(const T* x, Index count)
      : x_(x), count_(count), pivot_(find_pivot(x, count, 1, 0)) {}

  /// Adds what lies before `end`, in whole steps.
  MINNOW_INLINE void add_until(Index end) {
    constexpr Index four = 4 * Pack<T>::width;
    const Pack<T> center(pivot_);
    auto sums = sums_;
    Index i = at_;
    for (; i + four <= end; i += four) sums.add_four(x_ + i, center);
    sums_ = sums;
    at_ = i;
  }
  MINNOW_INLINE PieceMoments<T> finish() {
    add_until(count_);
    sums_.add_rest(x_ + at_, count_ - at_, Pack<T>(pivot_));
    return finish_moments(sums_.total(), pivot_, x_, count_, 1, 0);
  }

 private:
  const T* x_;
  Index count_, at_ = 0;
  T pivot_;
  FourSums<DistanceSums<T>, T> sums_;
};

/// The moments of one piece. Unless `ahead` is 0, what lies so far behind is fetched meanwhile.
template <class T>
MINNOW_INLINE PieceMoments<T> piece_moments(const T* x, Index count, Index runs, Index stride,
                                            Index ahead = 0) {
  const T pivot = find_pivot(x, count, runs, stride);
  return finish_moments(sum_distances<DistanceSums<T>>(x, count, runs, stride, pivot, ahead), pivot,
                        x, count, runs, stride);
}

}  // namespace detail

/// The moments of `runs` runs of `count` contiguous numbers each, `stride` apart.
///
/// One pass, over the distances from a pivot. The error of the mean is below 1e-6 standard
/// deviations (in float), whatever the mean; squares may overflow `T` but not double. Unless
/// `ahead` is 0, what lies so far behind is fetched meanwhile.
template <class T>
Moments moments(const T* x, Index count, Index runs = 1, Index stride = 0, Index ahead = 0) {
  Moments result;
  detail::for_pieces(count, runs, stride, [&](Index first, Index piece_count, Index piece_runs) {
    const auto piece = detail::piece_moments(x + first, piece_count, piece_runs, stride, ahead);
    result = merge(result, piece.whole(static_cast<double>(piece_count * piece_runs)));
  });
  return result;
}

/// The sum of x[i]^2 for `count` contiguous numbers. Squares may overflow `T` but not double.
template <class T>
double sum_squares(const T* x, Index count) {
  double result = 0;
  detail::for_pieces(count, 1, 0, [&](Index first, Index piece_count, Index) {
    double squares = detail::piece_squares(x + first, piece_count);
    if (!std::isfinite(squares)) [[unlikely]] {
      squares = 0;
      for (Index i = first; i < first + piece_count; ++i)
        squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    result += squares;
  });
  return result;
}

/// Moves a running statistic towards a new value, whose weight is `momentum`.
template <class T>
void move_running(T& running, double value, double momentum) {
  running = static_cast<T>((1 - momentum) * static_cast<double>(running) + momentum * value);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
