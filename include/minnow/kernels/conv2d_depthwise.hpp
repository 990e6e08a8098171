#pragma once
/// @file
/// Depthwise convolution: each channel is convolved by itself, so that there is nothing to share
/// between channels. As many planes as a pack has lanes, of whatever images, are interleaved: then
/// a position is an aligned pack, and strides, dilations and borders cost nothing. A plane goes in
/// bands of rows that stay in the second-level cache.

#include <algorithm>
#include <numeric>
#include <utility>

#include "minnow/core/items.hpp"
#include "minnow/kernels/conv2d_staging.hpp"
#include "minnow/kernels/lanes.hpp"
#include "minnow/kernels/reduce.hpp"
#include "minnow/kernels/streaming.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// True where each channel has one kernel of its own.
template <class T>
bool is_depthwise(const Conv2dSizes& s) {
  return Pack<T>::width > 1 && s.group_c() == 1 && s.group_k() == 1;
}

/// One axis of a depthwise convolution: output i reads input i * stride + tap * dilation - padding.
struct DepthwiseAxis {
  Index in, out, taps, stride, dilation, padding;

  /// The taps [first, last) of output i that read an input.
  Index first(Index i) const { return std::clamp<Index>(ceil(padding - i * stride), 0, taps); }
  Index last(Index i) const {
    return std::clamp<Index>(ceil(in + padding - i * stride), first(i), taps);
  }
  /// The outputs [begin, end) of which all taps read an input.
  std::pair<Index, Index> whole() const {
    Index low = 0, high = out;
    while (low < high && first(low) > 0) ++low;
    while (low < high && last(high - 1) < taps) --high;
    return {low, high};
  }
  /// The inputs [begin, end) that outputs [begin, end) read.
  Index begin(Index output) const { return std::clamp<Index>(output * stride - padding, 0, in); }
  Index end(Index output) const {
    return std::clamp<Index>((output - 1) * stride + (taps - 1) * dilation - padding + 1,
                             begin(output - 1), in);
  }

 private:
  /// The first tap that is at least `distance` behind the first.
  Index ceil(Index distance) const {
    return distance <= 0 || dilation == 1 ? distance : (distance + dilation - 1) / dilation;
  }
};

/// The planes of a depthwise convolution, in groups of as many as a pack has lanes.
template <class T>
struct DepthwisePlanes {
  static constexpr Index W = Pack<T>::width;

  Index channels, count;
  DepthwiseAxis rows, cols;

  explicit DepthwisePlanes(const Conv2dSizes& s)
      : channels(s.c),
        count(s.n * s.c),
        rows{s.h, s.oh(), s.kernel.h, s.stride.h, s.dilation.h, s.padding.h},
        cols{s.w, s.ow(), s.kernel.w, s.stride.w, s.dilation.w, s.padding.w} {}

  Index groups() const { return (count + W - 1) / W; }
  Index lanes(Index group) const { return std::min(W, count - group * W); }
  Index taps() const { return rows.taps * cols.taps; }
  Index x_size() const { return rows.in * cols.in; }
  Index y_size() const { return rows.out * cols.out; }
  /// After so many groups the channels in the lanes are the same again.
  Index period() const { return std::min(groups(), channels / std::gcd(channels, W)); }
  /// Rows of outputs of a band.
  Index band() const {
    constexpr Index budget = Index{256} * 1024 / Index{sizeof(T)};
    return std::clamp<Index>(budget / (W * (cols.in * rows.stride + cols.out)), 1,
                             std::max<Index>(1, rows.out));
  }
  /// The most inputs, and outputs, of a band.
  Index x_band() const {
    const Index reach = (band() - 1) * rows.stride + (rows.taps - 1) * rows.dilation + 1;
    return std::min(rows.in, reach) * cols.in;
  }
  Index y_band() const { return band() * cols.out; }

  /// packed [group in a period][tap][lane] of weights [channel][tap], the last tap first if
  /// `reverse`.
  void pack(T* packed, const T* weight, bool reverse) const {
    for (Index i = 0; i < period() * taps() * W; ++i) {
      const Index plane = i / (taps() * W) * W + i % W, tap = i / W % taps();
      packed[i] = weight[plane % channels * taps() + (reverse ? taps() - 1 - tap : tap)];
    }
  }
};

/// y [rows of the band][cols.out][lane] = shift + the taps of x, whose first row is `x_first`.
template <class T>
void depthwise_band(T* y, Index first, Index last, const T* x, Index x_first, const T* weight,
                    Pack<T> shift, const DepthwisePlanes<T>& planes) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  constexpr int side = 8;
  const DepthwiseAxis rows = planes.rows, cols = planes.cols;
  const Index row_step = rows.dilation * cols.in * W, step = cols.stride * W,
              tap_step = cols.dilation * W;
  const auto [inner, outer] = cols.whole();
  for (Index i = first; i < last; ++i, y += cols.out * W) {
    const Index a0 = rows.first(i), a1 = rows.last(i);
    const T* row = x + ((i * rows.stride - rows.padding - x_first) * cols.in - cols.padding) * W +
                   a0 * row_step;
    const T* factors = weight + a0 * cols.taps * W;
    const auto positions = [&, a = a1 - a0](auto count, Index j, Index b0, Index b1) {
      constexpr int P = count;
      V sums[P];
      MINNOW_UNROLL
      for (int p = 0; p < P; ++p) sums[p] = shift;
      const T *line = row + j * step, *w = factors;
      for (Index left = a; left > 0; --left, line += row_step, w += cols.taps * W)
        for (Index b = b0; b < b1; ++b) {
          const V factor = V::load(w + b * W);
          const T* from = line + b * tap_step;
          MINNOW_UNROLL
          for (int p = 0; p < P; ++p) sums[p] = fma(V::load(from + p * step), factor, sums[p]);
        }
      MINNOW_UNROLL
      for (int p = 0; p < P; ++p) sums[p].store(y + (j + p) * W);
    };
    const auto edge = [&](Index j) {
      positions(std::integral_constant<int, 1>{}, j, cols.first(j), cols.last(j));
    };
    Index j = 0;
    for (; j < inner; ++j) edge(j);
    for (; j + side <= outer; j += side)
      positions(std::integral_constant<int, side>{}, j, 0, cols.taps);
    for (; j + side / 2 <= outer; j += side / 2)
      positions(std::integral_constant<int, side / 2>{}, j, 0, cols.taps);
    for (; j < cols.out; ++j) edge(j);
  }
}

/// y = bias + each plane of x with its taps, packed by DepthwisePlanes.
template <class T>
void depthwise_correlate(T* y, const T* x, const T* packed, const T* bias,
                         const DepthwisePlanes<T>& planes) {
  constexpr Index W = Pack<T>::width;
  const Index x_band = planes.x_band() * W, y_band = planes.y_band() * W, step = planes.band();
  const DepthwiseAxis rows = planes.rows, cols = planes.cols;
  for_each_item<T>(planes.groups(), planes.taps() * planes.y_size() * W, x_band + y_band, 0,
                   [&](Index group, T* in) {
                     const Index images = planes.lanes(group), plane = group * W;
                     T* out = in + x_band;
                     const T* weight = packed + group % planes.period() * planes.taps() * W;
                     T shift[W] = {};
                     for (Index j = 0; bias && j < images; ++j)
                       shift[j] = bias[(plane + j) % planes.channels];
                     for (Index first = 0; first < rows.out; first += step) {
                       const Index last = std::min(rows.out, first + step),
                                   x_first = rows.begin(first), size = (last - first) * cols.out;
                       interleave(in, x + plane * planes.x_size() + x_first * cols.in, images,
                                  (rows.end(last) - x_first) * cols.in, planes.x_size());
                       T* to = y + plane * planes.y_size() + first * cols.out;
                       for (Index j = 0; j < images; ++j)
                         prefetch_to_write(to + j * planes.y_size(), size);
                       depthwise_band(out, first, last, in, x_first, weight, Pack<T>::load(shift),
                                      planes);
                       separate(to, out, images, size, planes.y_size());
                     }
                   });
}

template <class T>
void forward_depthwise(T* y, const T* x, const T* weight, const T* bias, const Conv2dSizes& s) {
  if (s.n * s.c * s.oh() * s.ow() == 0) return;
  const DepthwisePlanes<T> planes(s);
  const Scratch<T> packed(planes.period() * planes.taps() * Pack<T>::width);
  planes.pack(packed.data(), weight, false);
  depthwise_correlate(y, x, packed.data(), bias, planes);
}

/// dx [rows.in][cols.in][lane] += what outputs dy [rows.out][cols.out][lane] have read of it.
template <class T>
void depthwise_spread(T* dx, const T* dy, const T* weight, const DepthwisePlanes<T>& planes) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  const DepthwiseAxis rows = planes.rows, cols = planes.cols;
  for (Index i = 0; i < rows.out; ++i)
    for (Index j = 0; j < cols.out; ++j, dy += W) {
      const V g = V::load(dy);
      for (Index a = rows.first(i); a < rows.last(i); ++a)
        for (Index b = cols.first(j); b < cols.last(j); ++b) {
          const Index row = i * rows.stride + a * rows.dilation - rows.padding,
                      col = j * cols.stride + b * cols.dilation - cols.padding;
          T* to = dx + (row * cols.in + col) * W;
          fma(g, V::load(weight + (a * cols.taps + b) * W), V::load(to)).store(to);
        }
    }
}

template <class T>
void backward_data_depthwise(T* dx, const T* dy, const T* weight, const Conv2dSizes& s) {
  if (s.n * s.c * s.h * s.w == 0) return;
  constexpr Index W = Pack<T>::width;
  const bool spread = s.stride != Size2(1);
  const DepthwisePlanes<T> planes(spread ? s : reversed(s));
  const Scratch<T> packed(planes.period() * planes.taps() * W);
  planes.pack(packed.data(), weight, !spread);
  const T* const no_bias = nullptr;
  if (!spread) return depthwise_correlate(dx, dy, packed.data(), no_bias, planes);
  const Index x_size = planes.x_size(), y_size = planes.y_size();
  for_each_item<T>(planes.groups(), planes.taps() * y_size * W, (x_size + y_size) * W, 0,
                   [&](Index group, T* to) {
                     const Index images = planes.lanes(group);
                     T* from = to + x_size * W;
                     std::fill_n(to, x_size * W, T(0));
                     interleave(from, dy + group * W * y_size, images, y_size, y_size);
                     depthwise_spread(to, from,
                                      packed.data() + group % planes.period() * planes.taps() * W,
                                      planes);
                     separate(dx + group * W * x_size, to, images, x_size, x_size);
                   });
}

/// sums [tap][lane] += dy * what each tap has read of x, of a band; as in depthwise_band.
template <class T>
void depthwise_products(T* sums, const T* dy, Index first, Index last, const T* x, Index x_first,
                        const DepthwisePlanes<T>& planes) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  const DepthwiseAxis rows = planes.rows, cols = planes.cols;
  for (Index a = 0; a < rows.taps; ++a)
    for (Index b = 0; b < cols.taps; ++b, sums += W) {
      V total[4] = {V::load(sums), V::zero(), V::zero(), V::zero()};
      Index j0 = 0, j1 = cols.out;
      while (j0 < j1 && b < cols.first(j0)) ++j0;
      while (j0 < j1 && b >= cols.last(j1 - 1)) --j1;
      for (Index i = first; i < last; ++i) {
        if (a < rows.first(i) || a >= rows.last(i)) continue;
        const T* g = dy + (i - first) * cols.out * W;
        const T* from =
            x + ((i * rows.stride + a * rows.dilation - rows.padding - x_first) * cols.in +
                 b * cols.dilation - cols.padding) *
                    W;
        const Index step = cols.stride * W;
        Index j = j0;
        for (; j + 4 <= j1; j += 4) {
          MINNOW_UNROLL
          for (int u = 0; u < 4; ++u)
            total[u] = fma(V::load(g + (j + u) * W), V::load(from + (j + u) * step), total[u]);
        }
        for (; j < j1; ++j) total[0] = fma(V::load(g + j * W), V::load(from + j * step), total[0]);
      }
      ((total[0] + total[1]) + (total[2] + total[3])).store(sums);
    }
}

/// Sums of a plane are added up over the images of a chunk, and over chunks, in double.
template <class T>
void backward_weight_depthwise(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  constexpr Index W = Pack<T>::width;
  const DepthwisePlanes<T> planes(s);
  const Index taps = planes.taps(), size = s.c * taps, step = planes.band(),
              x_band = planes.x_band() * W, y_band = planes.y_band() * W,
              memory = x_band + y_band + taps * W;
  const DepthwiseAxis rows = planes.rows, cols = planes.cols;
  const Chunks chunks = make_chunks(planes.groups(), taps * planes.y_size() * W, 16);
  const Index workers = worker_count(chunks);
  const Scratch<T> scratch(workers * memory);
  const Scratch<double> partial(chunks.count * size);
  const auto run = [&](Index chunk, Index worker) {
    T* in = scratch.data() + worker * memory;
    T *gradient = in + x_band, *sums = gradient + y_band;
    double* totals = partial.data() + chunk * size;
    std::fill_n(totals, size, 0.0);
    for (Index group = chunks.begin(chunk); group < chunks.end(chunk); ++group) {
      const Index images = planes.lanes(group), plane = group * W;
      std::fill_n(sums, taps * W, T(0));
      for (Index first = 0; first < rows.out; first += step) {
        const Index last = std::min(rows.out, first + step), x_first = rows.begin(first);
        interleave(in, x + plane * planes.x_size() + x_first * cols.in, images,
                   (rows.end(last) - x_first) * cols.in, planes.x_size());
        interleave(gradient, dy + plane * planes.y_size() + first * cols.out, images,
                   (last - first) * cols.out, planes.y_size());
        depthwise_products(sums, gradient, first, last, in, x_first, planes);
      }
      for (Index j = 0; j < images; ++j)
        for (Index t = 0; t < taps; ++t)
          totals[(plane + j) % s.c * taps + t] += static_cast<double>(sums[t * W + j]);
    }
  };
  parallel_for(chunks.count, run, workers);
  sum_columns(dweight, partial.data(), chunks.count, size, size);
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
