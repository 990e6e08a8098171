#pragma once
/// @file
/// Group normalisation: each group of channels of each image.

#include <algorithm>
#include <cmath>
#include <optional>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/kernels/channel_norm.hpp"
#include "minnow/kernels/packed_rows.hpp"
#include "minnow/kernels/plane_norm.hpp"
#include "minnow/kernels/reduce.hpp"
#include "minnow/kernels/row_norm.hpp"
#include "minnow/kernels/short_rows.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// True where groups are rows whose columns have scales of their own, as in layer normalisation: a
/// channel's plane fills few packs, and the scales of all columns stay in the first-level cache.
template <class T>
bool groups_are_rows(Index c, Index hw) {
  return hw < Pack<T>::width || 2 * c * hw * Index{sizeof(T)} <= 16 * 1024;
}

/// The same for their gradients, where sums for each column cost more than sums for each plane,
/// unless planes are mostly tails: shorter than a pack, or than two or four in long rows whose
/// columns' sums stay in the first-level cache.
template <class T>
bool group_gradients_are_rows(Index c, Index hw, Index run) {
  constexpr Index W = Pack<T>::width;
  const Index bytes = 2 * c * hw * Index{sizeof(T)};
  return hw < W || (run >= 8 * W &&
                    ((hw < 2 * W && bytes <= 32 * 1024) || (hw < 4 * W && bytes <= 10 * 1024)));
}

/// gamma [c] for such rows: each repeated hw times. Returns null for null.
template <class T>
const T* repeat_channels(T* cols, const T* of_channel, Index c, Index hw) {
  if (!of_channel) return nullptr;
  spread(cols, c, hw, [&](Index ch) { return of_channel[ch]; });
  return cols;
}

/// group_norm_forward for groups of up to eight packs, which are rows in lanes or in packs; false,
/// with nothing done, for others. gamma and beta, other ones for each row, come after, while y is
/// in cache.
template <class T>
bool normalize_small_groups(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                            Index n, Index c, Index hw, Index groups, double eps) {
  const Index run = c / groups * hw, size = c * hw;
  const bool short_rows = ShortRows<T>::suits(n * groups, run);
  if (!short_rows && !fills_packs<T>(run)) return false;
  const Scratch<Affine<T>> affine(c);
  for (Index ch = 0; ch < c; ++ch)
    affine.data()[ch] = {T(0), gamma ? gamma[ch] : T(1), beta ? beta[ch] : T(0)};
  const Index images = std::max<Index>(1, 32768 / std::max<Index>(1, size));
  parallel_for((n + images - 1) / images, [&](Index block) {
    const Index first = block * images, count = std::min(images, n - first), row = first * groups;
    const T* from = x + first * size;
    T *to = y + first * size, *means = mean + row, *rstds = rstd + row;
    const T* none = nullptr;
    if (short_rows)
      normalize_short_rows<true>(to, means, rstds, from, none, none, count * groups, run, eps);
    else
      normalize_rows_in_packs<true>(to, means, rstds, from, none, none, count * groups, run, eps);
    if (gamma || beta) normalize_batch(to, to, affine.data(), count, c, hw);
  });
  return true;
}

/// group_norm_backward for groups below a pack, which are rows in lanes: gamma, and the sums for
/// its gradient, lie as the rows of a block do, which are whole images. Returns false where they do
/// not fit.
template <class T>
bool gradient_small_groups(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                           const T* rstd, const T* gamma, Index n, Index c, Index hw,
                           Index groups) {
  constexpr Index W = Pack<T>::width;
  const Index channels = c / groups, run = channels * hw, rows = n * groups;
  if (!ShortRows<T>::suits(rows, run, groups)) return false;
  const ShortRows<T> shape(run, groups);
  const Chunks chunks = make_chunks((rows + shape.rows - 1) / shape.rows, 2 * shape.size);
  // Of each chunk: the channels' sums of dy * xhat, then those of dy.
  const Scratch<double> partial(chunks.count * 2 * c);
  const bool through_block = goes_through_block(dx, rows * run, run);
  // The channel of each plane of each lane.
  const Index planes = shape.k * channels;
  Index channel_of[ShortRows<T>::most_pitch * W];
  for (Index plane = 0; plane < planes; ++plane)
    for (Index lane = 0; lane < W; ++lane)
      channel_of[plane * W + lane] =
          (lane * shape.k + plane / channels) % groups * channels + plane % channels;
  parallel_ranges(chunks.count, worker_count(chunks), [&](Index first, Index last) {
    using Block = typename ShortRows<T>::Block;
    alignas(memory_alignment) Block gammas, of_dy_xhat, of_dy;
    for (Index plane = 0; plane < planes; ++plane)
      for (Index lane = 0; lane < W; ++lane) {
        const T scale = gamma ? gamma[channel_of[plane * W + lane]] : T(1);
        for (Index i = 0; i < hw; ++i) gammas[(plane * hw + i) * W + lane] = scale;
      }
    for (Index chunk = first; chunk < last; ++chunk) {
      std::fill_n(of_dy_xhat, shape.pitch * W, T(0));
      std::fill_n(of_dy, shape.pitch * W, T(0));
      gradient_blocks<true, true>(dx, of_dy_xhat, of_dy, dy, x, mean, rstd, gammas, shape,
                                  chunks.begin(chunk) * shape.rows,
                                  std::min(rows, chunks.end(chunk) * shape.rows), through_block);
      double* to = partial.data() + chunk * 2 * c;
      std::fill_n(to, 2 * c, 0.0);
      for (Index plane = 0; plane < planes; ++plane) {
        Pack<T> dy_xhat = Pack<T>::zero(), dy_sum = dy_xhat;
        for (Index at = plane * hw * W; at < (plane + 1) * hw * W; at += W) {
          dy_xhat += Pack<T>::load(of_dy_xhat + at);
          dy_sum += Pack<T>::load(of_dy + at);
        }
        T dy_xhats[W], dys[W];
        dy_xhat.store(dy_xhats);
        dy_sum.store(dys);
        for (Index lane = 0; lane < W; ++lane) {
          const Index ch = channel_of[plane * W + lane];
          to[ch] += static_cast<double>(dy_xhats[lane]);
          to[c + ch] += static_cast<double>(dys[lane]);
        }
      }
    }
  });
  if (dgamma) sum_columns(dgamma, partial.data(), chunks.count, c, 2 * c);
  if (dbeta) sum_columns(dbeta, partial.data() + c, chunks.count, c, 2 * c);
  return true;
}

/// How images consist of groups of so many channels, each a plane of hw numbers.
struct GroupSizes {
  Index channels, hw, groups;

  Index run() const { return channels * hw; }
};

/// group_norm_forward for the groups [begin, end) of all images, whose planes fill a pack.
///
/// While a group is written, the next one is added up, as in normalize_row_by_row, if both stay in
/// the first-level cache.
template <class T>
void normalize_groups(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                      Index begin, Index end, const GroupSizes& sizes, double eps,
                      bool past_caches) {
  const Index run = sizes.run();
  const bool in_turns = run <= most_ahead;
  // From memory, unlike from the caches, a group comes faster for being asked for ahead.
  const auto moments_of = [&](Index group) {
    const T* from = x + group * run;
    return in_turns ? MomentsInTurns<T>(from, run).finish()
                    : PieceMoments<T>(moments(from, run, 1, 0, past_caches ? run : 0));
  };
  std::optional<MomentsInTurns<T>> next;
  for (Index i = begin; i < end; ++i) {
    const PieceMoments<T> of_group = next ? next->finish() : moments_of(i);
    const double average = of_group.mean(),
                 deviation = 1 / std::sqrt(of_group.m2 / static_cast<double>(run) + eps);
    mean[i] = static_cast<T>(average);
    rstd[i] = static_cast<T>(deviation);
    next.reset();
    if (in_turns && i + 1 < end) next.emplace(x + (i + 1) * run, run);
    const auto of_plane = [&](Index plane) {
      if (next) next->add_until((plane + 1) * sizes.hw);
      const Index ch = i % sizes.groups * sizes.channels + plane;
      return make_affine<T>(average, deviation, gamma ? static_cast<double>(gamma[ch]) : 1,
                            beta ? static_cast<double>(beta[ch]) : 0);
    };
    map_planes(y + i * run, sizes.channels, sizes.hw, past_caches, of_plane,
               typename Affine<T>::Map{x + i * run});
  }
}

}  // namespace detail

/// Normalises each group of c / groups channels of each image.
///
///   y = (x - mean) * rstd * gamma + beta    rstd = 1 / sqrt(variance + eps), variance biased
///
/// x, y [n, c, hw] (y may be x); gamma, beta [c] or null (1 and 0); `groups` divides c. Writes y,
/// mean and rstd [n, groups], which the backward needs. groups = c is instance normalisation.
///
/// Each group is one contiguous run of memory: its statistics (see moments.hpp) and its y are
/// computed while it is in cache; short ones are rows of layer normalisation. Numerics: inputs of
/// 1e4 + N(0, 1) give y within 1e-5, constant groups give beta, inputs around 1e30 are as accurate
/// as others. Parallel over images and groups. Paper: Wu, He, "Group normalization", 2018.
template <class T>
void group_norm_forward(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta, Index n,
                        Index c, Index hw, Index groups, double eps) {
  const Index channels = c / groups, run = channels * hw;
  if (detail::normalize_small_groups(y, mean, rstd, x, gamma, beta, n, c, hw, groups, eps)) return;
  const bool in_rows = detail::groups_are_rows<T>(c, hw),
             past_caches = in_rows ? detail::goes_past_caches<T>(n * c * hw, run)
                                   : detail::run_goes_past_caches<T>(n * c * hw, run);
  const Index workers = worker_count(make_chunks(n * groups, run));
  parallel_ranges(n * groups, workers, [&](Index begin, Index end) {
    if (!in_rows)
      return detail::normalize_groups(y, mean, rstd, x, gamma, beta, begin, end,
                                      {channels, hw, groups}, eps, past_caches);
    const Scratch<T> repeated(2 * c * hw);
    const T *gammas = detail::repeat_channels(repeated.data(), gamma, c, hw),
            *betas = detail::repeat_channels(repeated.data() + c * hw, beta, c, hw);
    detail::normalize_row_by_row<true>(y + begin * run, mean + begin, rstd + begin, x + begin * run,
                                       gammas, betas, end - begin, run, eps,
                                       {groups, begin, past_caches});
  });
}

/// The gradients of group normalisation.
///
///   dbeta = sum(dy)    dgamma = sum(dy * xhat)    xhat = (x - mean) * rstd
///   dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))    dxhat = gamma * dy
///
/// Sums run over images and positions, means over a group. Derivation: as for batch normalisation,
/// but gamma differs within a group, so the means are of gamma * dy.
///
/// x, dy, dx [n, c, hw] (dx may be dy); mean, rstd [n, groups] from the forward; gamma [c] or null.
/// Writes dx, dgamma [c] and dbeta [c]; any of them may be null. Both means follow from the planes'
/// sums of dy and dy * xhat, which are dgamma's and dbeta's terms, so x and dy are read once from
/// memory. Parallel over images and groups; each chunk has sums of its own, which are added in
/// order.
template <class T>
void group_norm_backward(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                         const T* rstd, const T* gamma, Index n, Index c, Index hw, Index groups) {
  if (detail::gradient_small_groups(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, n, c, hw, groups))
    return;
  const Index channels = c / groups, run = channels * hw;
  const bool in_rows = detail::group_gradients_are_rows<T>(c, hw, run), affine = dgamma || dbeta,
             past_caches = in_rows ? detail::goes_past_caches<T>(n * c * hw, run)
                                   : detail::run_goes_past_caches<T>(n * c * hw, run);
  // Sums for each column of a row are as long as an image, so they are to be taken few times.
  const Chunks chunks =
      make_chunks(n * groups, 2 * run, in_rows ? std::clamp<Index>(n / 8, 8, 64) : 64);
  const double share = 1 / static_cast<double>(run);
  const Index columns = in_rows ? c * hw : 0;
  // Of each chunk: the channels' sums of dy * xhat, then those of dy.
  const Scratch<double> sums(affine ? chunks.count * 2 * c : 0);

  // By rows: `column_sums` has room for 2 * columns numbers.
  const auto sum_rows = [&](Index chunk, double* to, const T* gammas, T* column_sums) {
    const Index begin = chunks.begin(chunk), end = chunks.end(chunk);
    if (affine) std::fill_n(column_sums, 2 * columns, T(0));
    detail::gradient_block_by_block<true>(
        dx ? dx + begin * run : nullptr, column_sums, affine ? column_sums + columns : nullptr,
        dy + begin * run, x + begin * run, mean + begin, rstd + begin, gammas, end - begin, run,
        {groups, begin, past_caches, detail::fills_caches<T>(3 * n * c * hw)});
    if (affine) detail::sum_runs(to, column_sums, 2 * c, hw);
  };
  const auto sum_planes = [&](Index chunk, double* to) {
    if (affine) std::fill_n(to, 2 * c, 0.0);
    for (Index i = chunks.begin(chunk); i < chunks.end(chunk); ++i) {
      const Index group = i % groups, first = i * run;
      double mean_dxhat = 0, mean_dxhat_xhat = 0;
      const auto scale = [&](Index k) {
        return gamma ? static_cast<double>(gamma[group * channels + k]) : 1.0;
      };
      for (Index k = 0; k < channels; ++k) {
        const Index at = first + k * hw, ch = group * channels + k;
        const auto plane = detail::gradient_sums(dy + at, x + at, hw, mean[i], rstd[i]);
        if (affine) {
          to[ch] += plane.dy_xhat;
          to[c + ch] += plane.dy;
        }
        mean_dxhat += scale(k) * plane.dy * share;
        mean_dxhat_xhat += scale(k) * plane.dy_xhat * share;
      }
      if (!dx) continue;
      const auto of_plane = [&](Index plane) {
        return detail::make_gradient_weights(mean[i], rstd[i], scale(plane), mean_dxhat,
                                             mean_dxhat_xhat);
      };
      detail::map_planes(dx + first, channels, hw, past_caches, of_plane,
                         typename detail::GradientWeights<T>::Map{dy + first, x + first});
    }
  };
  parallel_ranges(chunks.count, worker_count(chunks), [&](Index first, Index last) {
    const Scratch<T> repeated(columns), column_sums(affine ? 2 * columns : 0);
    const T* gammas = in_rows ? detail::repeat_channels(repeated.data(), gamma, c, hw) : nullptr;
    for (Index chunk = first; chunk < last; ++chunk) {
      double* to = affine ? sums.data() + chunk * 2 * c : nullptr;
      in_rows ? sum_rows(chunk, to, gammas, column_sums.data()) : sum_planes(chunk, to);
    }
  });
  if (dgamma) sum_columns(dgamma, sums.data(), chunks.count, c, 2 * c);
  if (dbeta) sum_columns(dbeta, sums.data() + c, chunks.count, c, 2 * c);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
