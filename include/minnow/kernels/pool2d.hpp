#pragma once
/// @file
/// Largest and mean values of windows of a plane.

#include <algorithm>

#include "minnow/core/items.hpp"
#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/core/simd_lanes.hpp"
#include "minnow/kernels/pool_axis.hpp"
#include "minnow/kernels/pool_rows.hpp"
#include "minnow/kernels/reduce.hpp"
#include "minnow/kernels/row_packs.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// 2x2 windows side by side, nothing padded, no window cut off.
inline bool pools_pairs(const PoolAxis& rows, const PoolAxis& cols) {
  const auto pairs = [](const PoolAxis& axis) {
    return axis.kernel == 2 && axis.stride == 2 && axis.padding == 0 && axis.dilation == 1 &&
           2 * axis.out <= axis.size;
  };
  return pairs(rows) && pairs(cols);
}
inline bool pools_pairs(const AdaptivePoolAxis& rows, const AdaptivePoolAxis& cols) {
  return 2 * rows.out == rows.size && 2 * cols.out == cols.size;
}

/// One row of 2x2 windows.
template <class T>
void max_pairs_row(T* y, std::uint8_t* arg, const T* top, const T* bottom, Index out) {
  using V = Pack<T>;
  constexpr Index width = V::width;
  for (Index c = 0; c < out; c += width) {
    const Index left = 2 * (out - c);
    V x[4];
    deinterleave(load_up_to<V>(top + 2 * c, left), load_up_to<V>(top + 2 * c + width, left - width),
                 x[0], x[1]);
    deinterleave(load_up_to<V>(bottom + 2 * c, left),
                 load_up_to<V>(bottom + 2 * c + width, left - width), x[2], x[3]);
    V best = x[0], place = V::zero();
    MINNOW_UNROLL
    for (int k = 1; k < 4; ++k) {
      // Taken if larger or NaN; a NaN, once taken, is larger than nothing and smaller than nothing.
      const V here(static_cast<T>(k));
      place = select_equal(x[k], x[k], select_less(best, x[k], here, place), here);
      best = select_equal(x[k], x[k], select_less(best, x[k], x[k], best), x[k]);
    }
    store_up_to(best, y + c, out - c);
    if (arg) store_bytes(place, arg + c, std::min(width, out - c));
  }
}

template <class T>
void max_pairs_plane(T* y, std::uint8_t* arg, const T* x, Index rows, Index size, Index out) {
  for (Index oh = 0; oh < rows; ++oh)
    max_pairs_row(y + oh * out, arg ? arg + oh * out : nullptr, x + 2 * oh * size,
                  x + (2 * oh + 1) * size, out);
}

template <class T>
void max_pairs_backward_row(T* top, T* bottom, const T* dy, const std::uint8_t* arg, Index out) {
  using V = Pack<T>;
  constexpr Index width = V::width;
  for (Index c = 0; c < out; c += width) {
    const V place = load_bytes<V>(arg + c, std::min(width, out - c)),
            dv = load_up_to<V>(dy + c, out - c);
    const Index left = 2 * (out - c);
    T* const rows[2] = {top + 2 * c, bottom + 2 * c};
    for (int r = 0; r < 2; ++r) {
      V a, b;
      interleave(select_equal(place, V(static_cast<T>(2 * r)), dv, V::zero()),
                 select_equal(place, V(static_cast<T>(2 * r + 1)), dv, V::zero()), a, b);
      store_up_to(a, rows[r], left);
      store_up_to(b, rows[r] + width, left - width);
    }
  }
}

/// The means of one row of 2x2 windows. A quarter of each first, which is exact, so that no sum
/// overflows. The rows 4 KB further on are fetched: the hardware comes late for two rows in turn.
template <class T>
void avg_pairs_row(T* y, const T* top, const T* bottom, Index out) {
  using V = Pack<T>;
  constexpr Index width = V::width, ahead = 4096 / Index{sizeof(T)};
  const V quarter(T(0.25));
  for (Index c = 0; c < out; c += width) {
    const auto quarters = [&](Index at) {
      const Index left = 2 * out - at;
      __builtin_prefetch(top + at + ahead, 0, 2);
      __builtin_prefetch(bottom + at + ahead, 0, 2);
      return fma(load_up_to<V>(bottom + at, left), quarter,
                 load_up_to<V>(top + at, left) * quarter);
    };
    V even, odd;
    deinterleave(quarters(2 * c), quarters(2 * c + width), even, odd);
    store_up_to(even + odd, y + c, out - c);
  }
}

template <class T>
void avg_pairs_plane(T* y, const T* x, Index rows, Index size, Index out) {
  for (Index oh = 0; oh < rows; ++oh)
    avg_pairs_row(y + oh * out, x + 2 * oh * size, x + (2 * oh + 1) * size, out);
}

template <class T>
void avg_pairs_backward_row(T* top, T* bottom, const T* dy, Index out) {
  using V = Pack<T>;
  constexpr Index width = V::width;
  for (Index c = 0; c < out; c += width) {
    const V share = load_up_to<V>(dy + c, out - c) * V(T(0.25));
    V a, b;
    interleave(share, share, a, b);
    const Index left = 2 * (out - c);
    for (T* row : {top + 2 * c, bottom + 2 * c}) {
      store_up_to(a, row, left);
      store_up_to(b, row + width, left - width);
    }
  }
}

/// Calls f(top, bottom, oh), which writes the two rows of a plane below each row of 2x2 windows;
/// what lies under no window is set to zero.
template <class T, class Axis, class F>
void write_pairs(T* plane, const Axis& rows, const Axis& cols, const F& f) {
  for (Index oh = 0; oh < rows.out; ++oh) {
    T *top = plane + 2 * oh * cols.size, *bottom = top + cols.size;
    f(top, bottom, oh);
    for (T* row : {top, bottom}) std::fill(row + 2 * cols.out, row + cols.size, T(0));
  }
  std::fill(plane + 2 * rows.out * cols.size, plane + rows.size * cols.size, T(0));
}

/// The means of `planes` planes of `size` numbers.
template <class T>
void mean_of_planes(T* y, const T* x, Index planes, Index size) {
  constexpr Index width = Pack<T>::width;
  Index p = 0;
  with_packs_of_row<T>(size, [&](auto packs_constant) {
    constexpr int packs = packs_constant;
    const RowPacks<T, packs> shape(size);
    const Pack<T> share(T(1) / static_cast<T>(size));
    for (; p + width <= planes; p += width) {
      shape.sum_rows(y + p, x + p * size, width, [](Index, Pack<T> value) { return value; });
      (Pack<T>::load(y + p) * share).store(y + p);
    }
  });
  for (; p < planes; ++p)
    y[p] = static_cast<T>(sum_of_row(x + p * size, size) / static_cast<double>(size));
}

/// True if one window is the whole plane.
template <class Axis>
bool pools_whole(const Axis& rows, const Axis& cols) {
  const auto whole = [](const Axis& axis) {
    const PoolWindow window = axis.window(0);
    return axis.out == 1 && window.begin() == 0 && window.end() == axis.size &&
           window.count == axis.size;
  };
  return whole(rows) && whole(cols);
}

/// `sums` has room for one row of x.
template <class T, class Axis>
void avg_pool_plane(T* y, const T* x, T* sums, const Axis& rows, const Axis& cols) {
  for (Index oh = 0; oh < rows.out; ++oh) {
    // Down the columns first: that runs along the rows of memory.
    const PoolWindow row = rows.window(oh);
    std::copy_n(x + row.begin() * cols.size, cols.size, sums);
    for (Index h = row.begin() + 1; h < row.end(); ++h) {
      const T* from = x + h * cols.size;
      MINNOW_SIMD
      for (Index w = 0; w < cols.size; ++w) sums[w] += from[w];
    }
    for (Index ow = 0; ow < cols.out; ++ow) {
      const PoolWindow col = cols.window(ow);
      double total = 0;
      for (Index w = col.begin(); w < col.end(); ++w) total += static_cast<double>(sums[w]);
      *y++ = static_cast<T>(total / static_cast<double>(row.count * col.count));
    }
  }
}

template <class T, class Axis>
void avg_pool_backward_plane(T* dx, const T* dy, T* shares, const Axis& rows, const Axis& cols) {
  Index written = 0;  // rows of dx above hold a sum already
  for (Index oh = 0; oh < rows.out; ++oh) {
    const PoolWindow row = rows.window(oh);
    std::fill_n(shares, cols.size, T(0));
    for (Index ow = 0; ow < cols.out; ++ow) {
      const PoolWindow col = cols.window(ow);
      const T share = *dy++ / static_cast<T>(row.count * col.count);
      for (Index w = col.begin(); w < col.end(); ++w) shares[w] += share;
    }
    for (; written < row.begin(); ++written) std::fill_n(dx + written * cols.size, cols.size, T(0));
    for (Index h = row.begin(); h < written; ++h) {
      T* to = dx + h * cols.size;
      MINNOW_SIMD
      for (Index w = 0; w < cols.size; ++w) to[w] += shares[w];
    }
    for (; written < row.end(); ++written) std::copy_n(shares, cols.size, dx + written * cols.size);
  }
  for (; written < rows.size; ++written) std::fill_n(dx + written * cols.size, cols.size, T(0));
}

}  // namespace detail

/// The largest number of each window, and where in its window it was.
///
///     y[p, oh, ow] = max over (kh, kw) of x[p, oh * stride - padding + kh * dilation, ow * ... +
///     kw * ...]
///
/// x is [planes, h, w], y and the places [planes, out_h, out_w]. Writes y and the places. Padding
/// is never the largest. Of equal numbers the first in row-major order counts; a NaN is larger than
/// any number. Exact. Parallel over planes.
template <class T>
void max_pool2d_forward(T* y, PoolPlaces places, const T* x, Index planes, const PoolAxis& rows,
                        const PoolAxis& cols) {
  const Index in = rows.size * cols.size, out = rows.out * cols.out;
  if (detail::pools_pairs(rows, cols))
    return parallel_chunks(planes, in + 4 * out, [&](Index first, Index last) {
      for (Index p = first; p < last; ++p)
        detail::max_pairs_plane(y + p * out, places.from(p * out).bytes, x + p * in, rows.out,
                                cols.size, cols.out);
    });
  const Chunks chunks = make_chunks(planes, in + out * rows.kernel * cols.kernel);
  const Index workers = worker_count(chunks);
  const detail::PoolRows<T> windows(rows, cols, workers);
  const auto run = [&](Index chunk, Index worker) {
    for (Index p = chunks.begin(chunk); p < chunks.end(chunk); ++p)
      windows.max(y + p * out, places.from(p * out), x + p * in, worker);
  };
  parallel_for(chunks.count, run, workers);
}

/// dx = the sum of the dy of all windows whose largest number was here; the places are the
/// forward's.
///
/// Writes dx. The largest number's derivative is 1 for that number and 0 for the others. Parallel
/// over planes.
template <class T>
void max_pool2d_backward(T* dx, const T* dy, PoolPlaces places, Index planes, const PoolAxis& rows,
                         const PoolAxis& cols) {
  const Index in = rows.size * cols.size, out = rows.out * cols.out;
  const bool pairs = detail::pools_pairs(rows, cols);
  const Scratch<Index> behind(rows.kernel * cols.kernel);  // how far each is behind the first
  for (Index kh = 0, k = 0; kh < rows.kernel; ++kh)
    for (Index kw = 0; kw < cols.kernel; ++kw, ++k)
      behind.data()[k] = kh * rows.dilation * cols.size + kw * cols.dilation;
  parallel_chunks(planes, in + 4 * out, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      T* to = dx + p * in;
      const T* from = dy + p * out;
      const PoolPlaces place = places.from(p * out);
      if (pairs) {
        detail::write_pairs(to, rows, cols, [&](T* top, T* bottom, Index oh) {
          detail::max_pairs_backward_row(top, bottom, from + oh * cols.out,
                                         place.bytes + oh * cols.out, cols.out);
        });
        continue;
      }
      std::fill_n(to, in, T(0));
      for (Index oh = 0, i = 0; oh < rows.out; ++oh) {
        const Index start = (oh * rows.stride - rows.padding) * cols.size - cols.padding;
        for (Index ow = 0; ow < cols.out; ++ow, ++i)
          to[start + ow * cols.stride +
             behind.data()[place.bytes ? place.bytes[i] : place.numbers[i]]] += from[i];
      }
    }
  });
}

/// The mean of each window.
///
///     y[p, oh, ow] = (sum of x[p, h, w] over the window) / (rows' count * cols' count)
///
/// x is [planes, h, w], y [planes, out_h, out_w]; writes y. Axis is PoolAxis (with a dilation of 1)
/// or AdaptivePoolAxis. Sums lane by lane or column by column, then in double: for planes of up to
/// 1e4 numbers within 4e-6 (float) of the exact mean of |x|. Parallel over planes.
template <class T, class Axis>
void avg_pool2d_forward(T* y, const T* x, Index planes, const Axis& rows, const Axis& cols) {
  const Index in = rows.size * cols.size, out = rows.out * cols.out;
  const bool whole = detail::pools_whole(rows, cols), pairs = detail::pools_pairs(rows, cols);
  if (whole)
    return parallel_chunks(planes, in, [&](Index first, Index last) {
      detail::mean_of_planes(y + first, x + first * in, last - first, in);
    });
  for_each_item<T>(planes, in, pairs ? 0 : cols.size, 0, [&](Index p, T* sums) {
    T* to = y + p * out;
    const T* from = x + p * in;
    if (pairs)
      detail::avg_pairs_plane(to, from, rows.out, cols.size, cols.out);
    else
      detail::avg_pool_plane(to, from, sums, rows, cols);
  });
}

/// dx = the sum of dy / count over all windows that hold an element. Writes dx. Parallel over
/// planes.
template <class T, class Axis>
void avg_pool2d_backward(T* dx, const T* dy, Index planes, const Axis& rows, const Axis& cols) {
  const Index in = rows.size * cols.size, out = rows.out * cols.out;
  const bool whole = detail::pools_whole(rows, cols), pairs = detail::pools_pairs(rows, cols);
  if (whole)
    return parallel_chunks(planes, in, [&](Index first, Index last) {
      for (Index p = first; p < last; ++p) {
        const Pack<T> share(dy[p] / static_cast<T>(in));
        for (Index i = 0; i < in; i += Pack<T>::width)
          detail::store_up_to(share, dx + p * in + i, in - i);
      }
    });
  for_each_item<T>(planes, in, pairs ? 0 : cols.size, 0, [&](Index p, T* shares) {
    T* to = dx + p * in;
    const T* from = dy + p * out;
    if (pairs)
      detail::write_pairs(to, rows, cols, [&](T* top, T* bottom, Index oh) {
        detail::avg_pairs_backward_row(top, bottom, from + oh * cols.out, cols.out);
      });
    else
      detail::avg_pool_backward_plane(to, from, shares, rows, cols);
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
