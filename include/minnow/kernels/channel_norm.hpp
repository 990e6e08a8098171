#pragma once
/// @file
/// The passes over a whole batch [n, c, hw] that batch normalisation is made of: sums per channel,
/// and maps whose coefficients depend on the channel.
///
/// Lanes usually lie along a plane. Where a plane is smaller than a pack, the batch is read as a
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

/// How the sums over a batch are cut: into blocks of images, and a block into tasks of neighbouring
/// columns, which are channels or, if lanes lie across them, the columns of the matrix.
template <class T>
struct BatchBlocks {
  static constexpr Index W = Pack<T>::width, most_channels = 32;

  Index n, c, hw;
  bool across = hw < W;
  Index cols_per_channel = across ? hw : 1;
  Index cols = c * cols_per_channel;
  /// Images in a block: enough for about a thousand numbers a sum.
  Index images =
      std::clamp<Index>(1024 / std::max<Index>(1, across ? W : hw), 1, std::max<Index>(1, n));
  Index count = hw > 0 ? (n + images - 1) / images : 0;

  /// Images in block b.
  Index images_in(Index b) const { return std::min(images, n - b * images); }

  /// Calls `task(b, first, last)` for every block and every range of columns of a task: a pack, or
  /// channels that fill 16 KB of an image, because memory is fastest where it is read on and on.
  template <class Task>
  void for_each_task(const Task& task) const {
    const Index channels = std::clamp<Index>(4096 / std::max<Index>(1, hw), 1, most_channels),
                step = across ? W : channels, tasks = (cols + step - 1) / step;
    parallel_chunks(count * tasks, images * step * (across ? 1 : hw), [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const Index first = i % tasks * step;
        task(i / tasks, first, std::min(cols, first + step));
      }
    });
  }
};

/// The moments of at most BatchBlocks::most_channels neighbouring channels in a block of images.
template <class T>
void block_moments(double* mean, double* m2, const T* x, Index channels, Index images, Index c,
                   Index hw) {
  if (images == 1) {
    for (Index ch = 0; ch < channels; ++ch) {
      const Moments plane = moments(x + ch * hw, hw);
      mean[ch] = plane.mean;
      m2[ch] = plane.m2;
    }
    return;
  }
  const Index stride = c * hw;
  T pivot[BatchBlocks<T>::most_channels];
  DistanceSums<T> sums[BatchBlocks<T>::most_channels];
  for (Index ch = 0; ch < channels; ++ch) pivot[ch] = find_pivot(x + ch * hw, hw, images, stride);
  for (Index i = 0; i < images; ++i)
    for (Index ch = 0; ch < channels; ++ch)
      sums[ch].add(sum_distances<DistanceSums<T>>(x + i * stride + ch * hw, hw, 1, 0, pivot[ch]));
  for (Index ch = 0; ch < channels; ++ch) {
    const auto all = finish_moments(sums[ch], pivot[ch], x + ch * hw, hw, images, stride);
    mean[ch] = all.mean();
    m2[ch] = all.m2;
  }
}

/// Their sum(dy) and sum(dy * xhat).
template <class T>
void block_gradient_sums(double* dy_sum, double* dy_xhat_sum, const T* dy, const T* x,
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

/// Mean and m2 of `lanes` neighbouring columns, as piece_moments has them for one run.
template <class T>
void column_moments(double* mean, double* m2, const T* x, Index lanes, Index rows, Index pitch) {
  using P = Pack<T>;
  const P pivot = load_lanes(x, lanes);
  P shift = P::zero(), squares = P::zero();
  for (Index row = 0; row < rows; ++row) shift += load_lanes(x + row * pitch, lanes) - pivot;
  shift *= P(T(1) / static_cast<T>(rows));
  const P center = pivot + shift, rest = shift - (center - pivot);
  for (Index row = 0; row < rows; ++row) {
    const P d = load_lanes(x + row * pitch, lanes) - center;
    squares = fma(d, d, squares);
  }
  T centers[P::width], rests[P::width], sums[P::width];
  center.store(centers);
  rest.store(rests);
  squares.store(sums);
  for (Index j = 0; j < lanes; ++j) {
    const double r = static_cast<double>(rests[j]);
    mean[j] = static_cast<double>(centers[j]) + r;
    m2[j] = std::max(0.0, static_cast<double>(sums[j]) - static_cast<double>(rows) * r * r);
    if (!std::isfinite(sums[j])) [[unlikely]] {
      const Moments wide = wide_moments(x + j, 1, rows, pitch);
      mean[j] = wide.mean;
      m2[j] = wide.m2;
    }
  }
}

/// sum(dy) and sum(dy * xhat) of `lanes` neighbouring columns.
template <class T>
void column_gradient_sums(double* dy_sum, double* dy_xhat_sum, const T* dy, const T* x,
                          const T* mean, const T* rstd, Index lanes, Index rows, Index pitch) {
  using P = Pack<T>;
  const P m = load_lanes(mean, lanes), r = load_lanes(rstd, lanes);
  P a = P::zero(), b = P::zero();
  for (Index row = 0; row < rows; ++row) {
    const P g = load_lanes(dy + row * pitch, lanes);
    a += g;
    b = fma(g, (load_lanes(x + row * pitch, lanes) - m) * r, b);
  }
  T as[P::width], bs[P::width];
  a.store(as);
  b.store(bs);
  for (Index j = 0; j < lanes; ++j) {
    dy_sum[j] = static_cast<double>(as[j]);
    dy_xhat_sum[j] = static_cast<double>(bs[j]);
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
/// Reads x once, image by image; the moments of blocks of images are merged in order (Chan).
/// Parallel over blocks of images and channels.
template <class T>
void batch_moments(double* mean, double* variance, const T* x, Index n, Index c, Index hw) {
  const detail::BatchBlocks<T> blocks{n, c, hw};
  if (blocks.count == 0) {
    std::fill_n(mean, c, 0.0);
    std::fill_n(variance, c, 0.0);
    return;
  }
  const Scratch<double> scratch(2 * blocks.count * blocks.cols);
  double *means = scratch.data(), *m2s = means + blocks.count * blocks.cols;
  blocks.for_each_task([&](Index b, Index first, Index last) {
    const Index at = b * blocks.cols + first, images = blocks.images_in(b);
    const T* from = x + b * blocks.images * c * hw;
    if (blocks.across)
      detail::column_moments(means + at, m2s + at, from + first, last - first, images, c * hw);
    else
      detail::block_moments(means + at, m2s + at, from + first * hw, last - first, images, c, hw);
  });
  merge_columns(means, m2s, blocks.count, blocks.cols, blocks.images * (blocks.across ? 1 : hw),
                blocks.images_in(blocks.count - 1) * (blocks.across ? 1 : hw));
  const double count = static_cast<double>(n * hw),
               count_per_col = count / static_cast<double>(blocks.cols_per_channel);
  for (Index ch = 0; ch < c; ++ch) {
    Moments channel;
    for (Index col = ch * blocks.cols_per_channel; col < (ch + 1) * blocks.cols_per_channel; ++col)
      channel = merge(channel, {count_per_col, means[col], m2s[col]});
    mean[ch] = channel.mean;
    variance[ch] = channel.m2 / count;
  }
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
  const Index pitch = 2 * blocks.cols;
  const Scratch<double> scratch((blocks.count + 1) * pitch);
  const Scratch<T> spread(2 * blocks.cols);
  T *col_mean = spread.data(), *col_rstd = col_mean + blocks.cols;
  detail::spread(col_mean, c, blocks.cols_per_channel, [&](Index ch) { return mean[ch]; });
  detail::spread(col_rstd, c, blocks.cols_per_channel, [&](Index ch) { return rstd[ch]; });
  blocks.for_each_task([&](Index b, Index first, Index last) {
    const Index at = b * blocks.images * c * hw, images = blocks.images_in(b);
    double *out = scratch.data() + b * pitch + first, *out_xhat = out + blocks.cols;
    if (blocks.across)
      detail::column_gradient_sums(out, out_xhat, dy + at + first, x + at + first, col_mean + first,
                                   col_rstd + first, last - first, images, c * hw);
    else
      detail::block_gradient_sums(out, out_xhat, dy + at + first * hw, x + at + first * hw,
                                  mean + first, rstd + first, last - first, images, c, hw);
  });
  double* col_sums = scratch.data() + blocks.count * pitch;
  sum_columns(col_sums, scratch.data(), blocks.count, pitch, pitch);
  for (Index ch = 0; ch < c; ++ch) {
    dy_sum[ch] = dy_xhat_sum[ch] = 0;
    for (Index col = ch * blocks.cols_per_channel; col < (ch + 1) * blocks.cols_per_channel;
         ++col) {
      dy_sum[ch] += col_sums[col];
      dy_xhat_sum[ch] += col_sums[blocks.cols + col];
    }
  }
}

/// y = (x - center[c]) * scale[c] + shift[c] over a batch [n, c, hw]. y may be x.
template <class T>
void normalize_batch(T* y, const T* x, const detail::Affine<T>* affine, Index n, Index c,
                     Index hw) {
  using P = Pack<T>;
  if (hw >= P::width) {
    const bool past_caches = detail::goes_past_caches<T>(n * c * hw, P::width);
    parallel_chunks(n * c, hw, [&](Index begin, Index end) {
      detail::normalize_planes(y + begin * hw, x + begin * hw, end - begin, hw, past_caches,
                               [&](Index plane) { return affine[(begin + plane) % c]; });
    });
    return;
  }
  const Index cols = c * hw;
  const Scratch<T> scratch(3 * cols);
  T *center = scratch.data(), *scale = center + cols, *shift = scale + cols;
  detail::spread(center, c, hw, [&](Index ch) { return affine[ch].center; });
  detail::spread(scale, c, hw, [&](Index ch) { return affine[ch].scale; });
  detail::spread(shift, c, hw, [&](Index ch) { return affine[ch].shift; });
  parallel_chunks(n, cols, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      for (Index j = 0; j < cols; j += P::width) {
        const Index lanes = std::min(P::width, cols - j);
        const P d =
            detail::load_lanes(x + i * cols + j, lanes) - detail::load_lanes(center + j, lanes);
        detail::store_lanes(
            y + i * cols + j,
            fma(d, detail::load_lanes(scale + j, lanes), detail::load_lanes(shift + j, lanes)),
            lanes);
      }
  });
}

/// dx = of_dy[c] * dy + of_xhat[c] * xhat + of_one[c] over a batch [n, c, hw]. dx may be dy.
template <class T>
void gradient_batch(T* dx, const T* dy, const T* x, const detail::GradientWeights<T>* weights,
                    Index n, Index c, Index hw) {
  using P = Pack<T>;
  if (hw >= P::width) {
    const bool past_caches = detail::goes_past_caches<T>(n * c * hw, P::width);
    parallel_chunks(n * c, 2 * hw, [&](Index begin, Index end) {
      detail::gradient_planes(dx + begin * hw, dy + begin * hw, x + begin * hw, end - begin, hw,
                              past_caches,
                              [&](Index plane) { return weights[(begin + plane) % c]; });
    });
    return;
  }
  const Index cols = c * hw;
  const Scratch<T> scratch(5 * cols);
  T *m = scratch.data(), *r = m + cols, *of_dy = r + cols, *of_xhat = of_dy + cols,
    *of_one = of_xhat + cols;
  detail::spread(m, c, hw, [&](Index ch) { return weights[ch].mean; });
  detail::spread(r, c, hw, [&](Index ch) { return weights[ch].rstd; });
  detail::spread(of_dy, c, hw, [&](Index ch) { return weights[ch].of_dy; });
  detail::spread(of_xhat, c, hw, [&](Index ch) { return weights[ch].of_xhat; });
  detail::spread(of_one, c, hw, [&](Index ch) { return weights[ch].of_one; });
  parallel_chunks(n, 2 * cols, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      for (Index j = 0; j < cols; j += P::width) {
        const Index lanes = std::min(P::width, cols - j), at = i * cols + j;
        const P xhat = (detail::load_lanes(x + at, lanes) - detail::load_lanes(m + j, lanes)) *
                       detail::load_lanes(r + j, lanes);
        const P rest = fma(xhat, detail::load_lanes(of_xhat + j, lanes),
                           detail::load_lanes(of_one + j, lanes));
        detail::store_lanes(
            dx + at,
            fma(detail::load_lanes(dy + at, lanes), detail::load_lanes(of_dy + j, lanes), rest),
            lanes);
      }
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
