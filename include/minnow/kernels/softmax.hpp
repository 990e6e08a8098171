#pragma once
/// @file
/// Softmax and its logarithm along the middle axis of [outer, size, inner].

#include <array>
#include <cmath>
#include <limits>

#include "minnow/core/parallel.hpp"
#include "minnow/core/simd_math.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// Lanes are summed over this many packs, then added to a wider or second sum.
inline constexpr Index softmax_block = 32;

/// Lanes from `count` on become `other`.
template <class V>
MINNOW_INLINE V first_lanes(V v, Index count, V other) {
  using T = typename V::value_type;
  static constexpr auto numbers = [] {
    std::array<T, V::width> lanes{};
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<T>(i);
    return lanes;
  }();
  return select_less(V::load(numbers.data()), V(static_cast<T>(count)), v, other);
}

/// The sum over i in [0, size) of f(i, count), a pack for elements [i, i + width) of which the
/// lanes from `count` on are ignored. f may write elements i and up.
template <class V, class F>
MINNOW_INLINE double sum_by_packs(Index size, const F& f) {
  double total = 0;
  Index i = 0;
  while (i + V::width <= size) {
    const Index end = std::min(size, i + softmax_block * V::width);
    V partial = V::zero();
    for (; i + V::width <= end; i += V::width) partial += f(i, V::width);
    total += static_cast<double>(sum(partial));
  }
  if (i < size) total += static_cast<double>(sum(first_lanes(f(i, size - i), size - i, V::zero())));
  return total;
}

/// y[i] = f(i, count) for i in [0, size), by packs.
template <class V, class T, class F>
MINNOW_INLINE void fill_packs(T* y, Index size, const F& f) {
  Index i = 0;
  for (; i + V::width <= size; i += V::width) f(i, V::width).store(y + i);
  if (i < size) f(i, size - i).store(y + i, size - i);
}

template <bool logarithm, class T>
void softmax_row(T* y, const T* x, Index size) {
  using V = Pack<T>;
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  V largest(lowest);
  Index i = 0;
  for (; i + V::width <= size; i += V::width) largest = max(largest, V::load(x + i));
  if (i < size) largest = max(largest, first_lanes(V::load(x + i, size - i), size - i, V(lowest)));
  const V top(max(largest));
  const double total = sum_by_packs<V>(size, [&](Index at, Index count) {
    const V e = exp(load_lanes(x + at, count) - top);
    if constexpr (!logarithm) count == V::width ? e.store(y + at) : e.store(y + at, count);
    return e;
  });
  if constexpr (logarithm) {
    const V shift(static_cast<T>(std::log(total)));
    fill_packs<V>(y, size,
                  [&](Index at, Index count) { return load_lanes(x + at, count) - top - shift; });
  } else {
    const V scale(static_cast<T>(1 / total));
    fill_packs<V>(y, size,
                  [&](Index at, Index count) { return load_lanes(y + at, count) * scale; });
  }
}

template <bool logarithm, class T>
void softmax_backward_row(T* dx, const T* dy, const T* y, Index size) {
  using V = Pack<T>;
  const V total(static_cast<T>(sum_by_packs<V>(size, [&](Index at, Index count) {
    const V dv = load_lanes(dy + at, count);
    return logarithm ? dv : dv * load_lanes(y + at, count);
  })));
  fill_packs<V>(dx, size, [&](Index at, Index count) {
    const V v = load_lanes(y + at, count), dv = load_lanes(dy + at, count);
    return logarithm ? dv - exp(v) * total : v * (dv - total);
  });
}

/// The sum over a in [0, size) of f(a), lane by lane.
template <class V, class F>
MINNOW_INLINE V sum_down(Index size, const F& f) {
  V total = V::zero();
  for (Index a = 0; a < size;) {
    const Index end = std::min(size, a + softmax_block);
    V partial = V::zero();
    for (; a < end; ++a) partial += f(a);
    total += partial;
  }
  return total;
}

/// `count` neighbouring columns, their elements `pitch` apart.
template <bool logarithm, class T>
void softmax_columns(T* y, const T* x, Index size, Index pitch, Index count) {
  using V = Pack<T>;
  const auto store = [&](V v, Index a) {
    count == V::width ? v.store(y + a * pitch) : v.store(y + a * pitch, count);
  };
  V top(-std::numeric_limits<T>::infinity());
  for (Index a = 0; a < size; ++a) top = max(top, load_lanes(x + a * pitch, count));
  const V total = sum_down<V>(size, [&](Index a) {
    const V e = exp(load_lanes(x + a * pitch, count) - top);
    if constexpr (!logarithm) store(e, a);
    return e;
  });
  const V end = logarithm ? log(total) : V(1) / total;
  for (Index a = 0; a < size; ++a) {
    if constexpr (logarithm)
      store(load_lanes(x + a * pitch, count) - top - end, a);
    else
      store(load_lanes(y + a * pitch, count) * end, a);
  }
}

template <bool logarithm, class T>
void softmax_backward_columns(T* dx, const T* dy, const T* y, Index size, Index pitch,
                              Index count) {
  using V = Pack<T>;
  const V total = sum_down<V>(size, [&](Index a) {
    const V dv = load_lanes(dy + a * pitch, count);
    return logarithm ? dv : dv * load_lanes(y + a * pitch, count);
  });
  for (Index a = 0; a < size; ++a) {
    const V v = load_lanes(y + a * pitch, count), dv = load_lanes(dy + a * pitch, count);
    const V out = logarithm ? dv - exp(v) * total : v * (dv - total);
    count == V::width ? out.store(dx + a * pitch) : out.store(dx + a * pitch, count);
  }
}

/// Calls row(offset) for each contiguous row, or columns(offset, count) for each pack of columns.
template <class T, class Row, class Columns>
void for_each_softmax(Index outer, Index size, Index inner, const Row& row,
                      const Columns& columns) {
  constexpr Index width = Pack<T>::width, cost = 16;
  if (inner == 1)
    return parallel_chunks(outer, cost * size, [&](Index begin, Index end) {
      for (Index o = begin; o < end; ++o) row(o * size);
    });
  const Index blocks = (inner + width - 1) / width;
  parallel_chunks(outer * blocks, cost * size * width, [&](Index begin, Index end) {
    for (Index item = begin; item < end; ++item) {
      const Index c = item % blocks * width;
      columns(item / blocks * size * inner + c, std::min(width, inner - c));
    }
  });
}

template <bool logarithm, class T>
void softmax_forward(T* y, const T* x, Index outer, Index size, Index inner) {
  for_each_softmax<T>(
      outer, size, inner, [=](Index at) { softmax_row<logarithm>(y + at, x + at, size); },
      [=](Index at, Index count) {
        softmax_columns<logarithm>(y + at, x + at, size, inner, count);
      });
}

template <bool logarithm, class T>
void softmax_backward(T* dx, const T* dy, const T* y, Index outer, Index size, Index inner) {
  for_each_softmax<T>(
      outer, size, inner,
      [=](Index at) { softmax_backward_row<logarithm>(dx + at, dy + at, y + at, size); },
      [=](Index at, Index count) {
        softmax_backward_columns<logarithm>(dx + at, dy + at, y + at, size, inner, count);
      });
}

}  // namespace detail

/// Softmax along the middle axis.
///
///     y[o, a, i] = exp(x[o, a, i] - m) / s    m = max over a of x,  s = sum over a of exp(x - m)
///
/// x and y are [outer, size, inner]; writes y, which may be x. No exponential exceeds 1, so nothing
/// overflows; a logit of -infinity weighs 0. Relative error below 1e-6 (float) for logits that are
/// spread over less than 16; a spread of d adds about 1e-7 d. Parallel over rows, or over packs of
/// columns.
template <class T>
void softmax_forward(T* y, const T* x, Index outer, Index size, Index inner) {
  detail::softmax_forward<false>(y, x, outer, size, inner);
}

/// dx = y * (dy - sum over a of dy * y), from dy_a / dx_b = y_a * ([a = b] - y_b). Writes dx, which
/// may be dy. Parallel as the forward.
template <class T>
void softmax_backward(T* dx, const T* dy, const T* y, Index outer, Index size, Index inner) {
  detail::softmax_backward<false>(dx, dy, y, outer, size, inner);
}

/// The logarithm of softmax along the middle axis.
///
///     y[o, a, i] = (x[o, a, i] - m) - log(s)    m and s as in softmax
///
/// x and y are [outer, size, inner]; writes y, which may be x. The largest is taken off before
/// anything is rounded, so that logits near 1e4 lose nothing. Parallel as softmax.
template <class T>
void log_softmax_forward(T* y, const T* x, Index outer, Index size, Index inner) {
  detail::softmax_forward<true>(y, x, outer, size, inner);
}

/// dx = dy - exp(y) * sum over a of dy, from dy_a / dx_b = [a = b] - exp(y_b). Writes dx, which may
/// be dy. Parallel as softmax.
template <class T>
void log_softmax_backward(T* dx, const T* dy, const T* y, Index outer, Index size, Index inner) {
  detail::softmax_backward<true>(dx, dy, y, outer, size, inner);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
