#pragma once
/// @file
/// The passes over a whole batch [n, c, hw] that batch normalisation is made of: sums per channel,
/// and maps whose coefficients depend on the channel.
///
/// Lanes usually lie along a plane. Where a plane is too small for that, the batch is read as a
/// matrix [n, c * hw] and lanes lie across its columns; a channel is then the sum of its hw
/// columns.

#include <algorithm>
#include <cmath>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/core/simd.hpp"
#include "minnow/kernels/moments.hpp"
#include "minnow/kernels/plane_norm.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// True where lanes lie across the columns of the matrix: along so short a plane, beginning and end
/// take most of the time, whatever the width of a pack. But each column reads numbers of its own,
/// which are to come from a near cache and to serve many images.
template <class T>
constexpr bool lies_across(Index n, Index c, Index hw) {
  return hw < Pack<T>::width || (hw < 32 && c * hw <= 4096 && n >= 32);
}

/// How the sums over a batch are cut: into blocks of images, and a block into tasks of neighbouring
/// channels. What a task adds up is handed over as two numbers a channel: less to fetch from
/// another core than the sums of its columns.
template <class T>
struct BatchBlocks {
  static constexpr Index W = Pack<T>::width, most_channels = 32, packs = 4, most_cols = 1024;

  Index n, c, hw;
  bool across = lies_across<T>(n, c, hw);
  /// Images in a block: so many that each lane adds up 64 numbers.
  Index images =
      std::clamp<Index>(across ? 64 : 64 * W / std::max<Index>(1, hw), 1, std::max<Index>(1, n));
  Index count = hw > 0 ? (n + images - 1) / images : 0;

  /// Images in block b.
  Index images_in(Index b) const { return std::min(images, n - b * images); }

  /// Calls `task(b, first, last)` for every block and every range of channels of a task: some packs
  /// of columns, or channels that fill 16 KB of an image, because memory is fastest where it is
  /// read on and on.
  template <class Task>
  void for_each_task(const Task& task) const {
    const Index plane = std::max<Index>(1, hw),
                step =
                    across ? most_cols / plane : std::clamp<Index>(4096 / plane, 1, most_channels),
                tasks = (c + step - 1) / step;
    parallel_chunks(count * tasks, images * std::min(step, c) * hw, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const Index first = i % tasks * step;
        task(i / tasks, first, std::min(c, first + step));
      }
    });
  }
};

/// sums[ch] = the sum of the `size` numbers of channel ch, in four sums, so that none waits for the
/// one before.
template <class U>
void sum_runs(double* sums, const U* numbers, Index channels, Index size) {
  if (size == 1) {
    std::copy_n(numbers, channels, sums);
    return;
  }
  for (Index ch = 0; ch < channels; ++ch, numbers += size) {
    double parts[4] = {};
    Index i = 0;
    for (; i + 4 <= size; i += 4)
      for (Index j = 0; j < 4; ++j) parts[j] += static_cast<double>(numbers[i + j]);
    for (; i < size; ++i) parts[0] += static_cast<double>(numbers[i]);
    sums[ch] = (parts[0] + parts[1]) + (parts[2] + parts[3]);
  }
}

/// Two sums over all numbers of each channel, a and b [c]. Either of the two computes them for a
/// block of images: across(to_a, to_b, first image, images, first column, columns), at most
/// BatchBlocks::packs packs of columns, or planes(to_a, to_b, first image, images, first channel,
/// channels). They are added in order.
template <class T, class Across, class Planes>
void sum_channels(double* a, double* b, const BatchBlocks<T>& blocks, const Across& across,
                  const Planes& planes) {
  const Index c = blocks.c, hw = blocks.hw;
  const Scratch<double> scratch(blocks.count * 2 * c);
  blocks.for_each_task([&](Index block, Index first, Index last) {
    double* to = scratch.data() + block * 2 * c + first;
    const Index image = block * blocks.images, images = blocks.images_in(block),
                channels = last - first;
    if (!blocks.across) return planes(to, to + c, image, images, first, channels);
    constexpr Index step = BatchBlocks<T>::packs * BatchBlocks<T>::W;
    double of_a[BatchBlocks<T>::most_cols], of_b[BatchBlocks<T>::most_cols];
    for (Index col = 0; col < channels * hw; col += step)
      across(of_a + col, of_b + col, image, images, first * hw + col,
             std::min(step, channels * hw - col));
    sum_runs(to, of_a, channels, hw);
    sum_runs(to + c, of_b, channels, hw);
  });
  for (Index ch = 0; ch < c; ++ch) {
    a[ch] = b[ch] = 0;
    for (Index block = 0; block < blocks.count; ++block) {
      a[ch] += scratch.data()[block * 2 * c + ch];
      b[ch] += scratch.data()[(block * 2 + 1) * c + ch];
    }
  }
}

/// The two sums, by add(sum_a, sum_b, row, column, lanes), over `rows` rows of neighbouring columns
/// of a matrix, BatchBlocks::packs packs at most.
template <class T, class Add>
MINNOW_INLINE void sum_columns_in_packs(double* a, double* b, Index rows, Index cols,
                                        const Add& add) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  const auto take = [&](Index first, auto packs_constant) {
    constexpr int packs = packs_constant;
    P sums_a[packs], sums_b[packs];
    MINNOW_UNROLL
    for (int p = 0; p < packs; ++p) sums_a[p] = sums_b[p] = P::zero();
    const Index lanes = std::min(W, cols - first);
    for (Index row = 0; row < rows; ++row) {
      MINNOW_UNROLL
      for (int p = 0; p < packs; ++p)
        add(sums_a[p], sums_b[p], row, first + p * W, packs > 1 ? W : lanes);
    }
    T of_a[packs * W], of_b[packs * W];
    MINNOW_UNROLL
    for (int p = 0; p < packs; ++p) {
      sums_a[p].store(of_a + p * W);
      sums_b[p].store(of_b + p * W);
    }
    for (Index j = 0; j < (packs > 1 ? packs * W : lanes); ++j) {
      a[first + j] = static_cast<double>(of_a[j]);
      b[first + j] = static_cast<double>(of_b[j]);
    }
  };
  constexpr int most = int{BatchBlocks<T>::packs};
  if (cols == most * W) return take(0, std::integral_constant<int, most>());
  for (Index first = 0; first < cols; first += W) take(first, std::integral_constant<int, 1>());
}

/// Adds the distances of a plane, one after the other where it is too short for four sums at once.
template <class T>
MINNOW_INLINE void add_plane(DistanceSums<T>& sums, const T* x, Index hw, T pivot) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  if (hw >= 4 * W) return sums.add(sum_distances<DistanceSums<T>>(x, hw, 1, 0, pivot));
  const P center(pivot);
  DistanceSums<T> own = sums;
  Index i = 0;
  for (; i + W <= hw; i += W) own.add(P::load(x + i) - center);
  if (const Index rest = hw - i; rest > 0) own.add((P::load(x + i, rest) - center).first(rest));
  sums = own;
}

/// The sums of d and d^2, d = x - pivot, of at most BatchBlocks::most_channels neighbouring
/// channels in some images.
template <class T>
void sum_plane_distances(double* d, double* squares, const T* x, const T* pivot, Index channels,
                         Index images, Index c, Index hw) {
  DistanceSums<T> sums[BatchBlocks<T>::most_channels];
  std::fill_n(d, channels, 0.0);
  std::fill_n(squares, channels, 0.0);
  const auto finish = [&](Index ch) {
    d[ch] += static_cast<double>(sum(sums[ch].d));
    squares[ch] += static_cast<double>(sum(sums[ch].squares));
  };
  if (images == 1) {
    for (Index ch = 0; ch < channels; ++ch)
      for_pieces(hw, 1, 0, [&](Index first, Index count, Index) {
        sums[ch] = sum_distances<DistanceSums<T>>(x + ch * hw + first, count, 1, 0, pivot[ch]);
        finish(ch);
      });
    return;
  }
  for (Index i = 0; i < images; ++i)
    for (Index ch = 0; ch < channels; ++ch)
      add_plane(sums[ch], x + (i * c + ch) * hw, hw, pivot[ch]);
  for (Index ch = 0; ch < channels; ++ch) finish(ch);
}

/// Their sum(dy) and sum(dy * xhat).
template <class T>
void sum_plane_gradients(double* dy_sum, double* dy_xhat_sum, const T* dy, const T* x,
                         const T* mean, const T* rstd, Index channels, Index images, Index c,
                         Index hw) {
  if (images == 1) {
    for (Index ch = 0; ch < channels; ++ch) {
      const GradientSums plane = gradient_sums(dy + ch * hw, x + ch * hw, hw, mean[ch], rstd[ch]);
      dy_sum[ch] = plane.dy;
      dy_xhat_sum[ch] = plane.dy_xhat;
    }
    return;
  }
  GradientLanes<T> sums[BatchBlocks<T>::most_channels];
  for (Index i = 0; i < images; ++i)
    for (Index ch = 0; ch < channels; ++ch)
      sums[ch].add(dy + (i * c + ch) * hw, x + (i * c + ch) * hw, hw, mean[ch], rstd[ch]);
  for (Index ch = 0; ch < channels; ++ch) {
    dy_sum[ch] = static_cast<double>(sum(sums[ch].dy));
    dy_xhat_sum[ch] = static_cast<double>(sum(sums[ch].dy_xhat));
  }
}

/// Repeats each of `c` numbers `hw` times: what the columns of channel ch share.
template <class T, class F>
void spread(T* cols, Index c, Index hw, const F& of_channel) {
  for (Index ch = 0; ch < c; ++ch) std::fill_n(cols + ch * hw, hw, of_channel(ch));
}

}  // namespace detail

/// The mean and the biased variance of each channel of a batch.
///
///   mean[c] = sum(x[n,c,i]) / (n * hw)    variance[c] = sum((x[n,c,i] - mean[c])^2) / (n * hw)
///
/// x [n, c, hw]; mean, variance [c], in double because the digits of a large mean matter later.
/// Reads x once, image by image, and once more for a channel whose pivot was far off (moments.hpp).
/// Parallel over blocks of images and channels, whose sums are added in order, in double.
template <class T>
void batch_moments(double* mean, double* variance, const T* x, Index n, Index c, Index hw) {
  const detail::BatchBlocks<T> blocks{n, c, hw};
  const double count = static_cast<double>(n * hw);
  if (blocks.count == 0) {
    std::fill_n(mean, c, 0.0);
    std::fill_n(variance, c, 0.0);
    return;
  }
  const Index across = blocks.across ? c * hw : 0;
  const Scratch<T> pivots(c + across);
  T *pivot = pivots.data(), *col_pivot = pivot + c;
  for (Index ch = 0; ch < c; ++ch) pivot[ch] = detail::find_pivot(x + ch * hw, hw, n, c * hw);
  if (blocks.across) detail::spread(col_pivot, c, hw, [&](Index ch) { return pivot[ch]; });
  double *d = mean, *squares = variance;
  detail::sum_channels(
      d, squares, blocks,
      [&](double* to, double* to_squares, Index image, Index images, Index first, Index cols) {
        const T* from = x + image * c * hw + first;
        detail::sum_columns_in_packs<T>(
            to, to_squares, images, cols,
            [&](Pack<T>& sum, Pack<T>& sum_squares, Index row, Index col, Index lanes) {
              const Pack<T> distance = load_lanes(from + row * c * hw + col, lanes) -
                                       load_lanes(col_pivot + first + col, lanes);
              sum += distance;
              sum_squares = fma(distance, distance, sum_squares);
            });
      },
      [&](double* to, double* to_squares, Index image, Index images, Index first, Index channels) {
        detail::sum_plane_distances(to, to_squares, x + (image * c + first) * hw, pivot + first,
                                    channels, images, c, hw);
      });
  const auto pass = [&](Index ch) { return detail::OnePass<T>{count, d[ch], squares[ch]}; };
  const auto finish = [&](Index ch) {
    const Moments channel = pass(ch).is_good() ? pass(ch).moments(pivot[ch]).whole(count)
                                               : moments(x + ch * hw, hw, n, c * hw);
    mean[ch] = channel.mean;
    variance[ch] = channel.variance();
  };
  // Threads are woken only if there are channels to read once more.
  bool good = true;
  for (Index ch = 0; ch < c; ++ch) good &= pass(ch).is_good();
  parallel_for(c, finish, good ? 1 : worker_count(c));
}

/// The sums that the gradients of each channel are made of.
///
///   dy_sum[c] = sum(dy)    dy_xhat_sum[c] = sum(dy * xhat)    xhat = (x - mean[c]) * rstd[c]
///
/// dy, x [n, c, hw]; the others [c]. Parallel over blocks of images and channels; their sums are
/// added in order, in double.
template <class T>
void batch_gradient_sums(double* dy_sum, double* dy_xhat_sum, const T* dy, const T* x,
                         const T* mean, const T* rstd, Index n, Index c, Index hw) {
  const detail::BatchBlocks<T> blocks{n, c, hw};
  const Index across = blocks.across ? c * hw : 0;
  const Scratch<T> spread(2 * across);
  T *col_mean = spread.data(), *col_rstd = col_mean + across;
  if (blocks.across) {
    detail::spread(col_mean, c, hw, [&](Index ch) { return mean[ch]; });
    detail::spread(col_rstd, c, hw, [&](Index ch) { return rstd[ch]; });
  }
  detail::sum_channels(
      dy_sum, dy_xhat_sum, blocks,
      [&](double* to, double* to_xhat, Index image, Index images, Index first, Index cols) {
        const Index at = image * c * hw + first;
        detail::sum_columns_in_packs<T>(
            to, to_xhat, images, cols,
            [&](Pack<T>& sum, Pack<T>& sum_xhat, Index row, Index col, Index lanes) {
              const Index i = at + row * c * hw + col;
              const Pack<T> g = load_lanes(dy + i, lanes),
                            m = load_lanes(col_mean + first + col, lanes),
                            r = load_lanes(col_rstd + first + col, lanes);
              sum += g;
              sum_xhat = fma(g, (load_lanes(x + i, lanes) - m) * r, sum_xhat);
            });
      },
      [&](double* to, double* to_xhat, Index image, Index images, Index first, Index channels) {
        const Index at = (image * c + first) * hw;
        detail::sum_plane_gradients(to, to_xhat, dy + at, x + at, mean + first, rstd + first,
                                    channels, images, c, hw);
      });
}

namespace detail {

/// y = map of a batch [n, c, hw] by what of_channel [c] says of each channel (see map_planes). From
/// the end, because the sums' pass has come from there.
template <class T, class OfChannel, class Map>
void map_batch(T* y, const OfChannel* of_channel, Index n, Index c, Index hw, const Map& map) {
  constexpr std::size_t N = std::tuple_size_v<decltype(of_channel->numbers())>;
  constexpr Index W = Pack<T>::width, cost = N > 3 ? 2 : 1;
  if (!lies_across<T>(n, c, hw)) {
    const bool past_caches = goes_past_caches<T>(n * c * hw, W);
    parallel_chunks_reversed(n * c, cost * hw, [&](Index begin, Index end) {
      map_planes(
          y + begin * hw, end - begin, hw, past_caches,
          [&](Index plane) { return of_channel[(begin + plane) % c]; }, map.from(begin * hw));
    });
    return;
  }
  const Index cols = c * hw, rows = std::max<Index>(1, 8192 / std::max<Index>(1, cols));
  parallel_ranges(n, worker_count(make_chunks(n, cost * cols)), [&](Index first, Index last) {
    // Each thread spreads them for itself: to fetch them from another core takes longer.
    const Scratch<T> numbers(Index{N} * cols);
    for (std::size_t k = 0; k < N; ++k)
      spread(numbers.data() + static_cast<Index>(k) * cols, c, hw,
             [&](Index ch) { return of_channel[ch].numbers()[k]; });
    for (Index end = last; end > first; end -= std::min(rows, end - first)) {
      const Index begin = std::max(first, end - rows);
      map_rows<N>(y + begin * cols, end - begin, cols, numbers.data(), map.from(begin * cols));
    }
  });
}

}  // namespace detail

/// y = (x - center[c]) * scale[c] + shift[c] over a batch [n, c, hw]. y may be x.
template <class T>
void normalize_batch(T* y, const T* x, const detail::Affine<T>* affine, Index n, Index c,
                     Index hw) {
  detail::map_batch(y, affine, n, c, hw, typename detail::Affine<T>::Map{x});
}

/// dx = of_dy[c] * dy + of_xhat[c] * xhat + of_one[c] over a batch [n, c, hw]. dx may be dy.
template <class T>
void gradient_batch(T* dx, const T* dy, const T* x, const detail::GradientWeights<T>* weights,
                    Index n, Index c, Index hw) {
  detail::map_batch(dx, weights, n, c, hw, typename detail::GradientWeights<T>::Map{dy, x});
}

}  // namespace minnow::inline MINNOW_ABI::kernels
