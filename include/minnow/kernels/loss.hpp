#pragma once
/// @file
/// Losses of classification: what the log-probabilities of the right classes are worth.

#include <algorithm>
#include <cmath>

#include "minnow/core/simd_math.hpp"
#include "minnow/kernels/softmax.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// What a label says about its position's classes: the wanted share of class c is
///
///     w_t (1 - smoothing) [c = t] + w_c smoothing / classes    t = label; all 0 for `ignore_index`
///
/// Labels are valid: in [0, classes) or `ignore_index`. A null weight stands for ones.
template <class T>
struct LabelTargets {
  const std::int64_t* labels;  ///< [outer, inner]
  const T* weight;             ///< [classes] or null
  Index outer, classes, inner;
  std::int64_t ignore_index;
  double smoothing = 0;

  Index positions() const { return outer * inner; }
  bool ignores(Index position) const { return labels[position] == ignore_index; }
  double weight_of(Index c) const { return weight ? static_cast<double>(weight[c]) : 1.0; }
  /// The share of the label's own class.
  double own(Index position) const {
    return ignores(position) ? 0 : (1 - smoothing) * weight_of(labels[position]);
  }
  /// The factor of w_c for every class.
  double spread() const { return smoothing / static_cast<double>(classes); }
  /// The weights of all labels that count, which a mean divides by.
  double total() const {
    double sum = 0;
    for (Index p = 0; p < positions(); ++p)
      if (!ignores(p)) sum += weight_of(labels[p]);
    return sum;
  }
};

/// The loss at each position.
///
///     loss[o, i] = -(sum over c of share_c * log_p[o, c, i])    share as in LabelTargets
///
/// log_p is [outer, classes, inner], loss [outer, inner]; writes loss. Sums in double. Parallel
/// over outer.
template <class T>
void nll_forward(T* loss, const T* log_p, const LabelTargets<T>& targets) {
  const Index classes = targets.classes, inner = targets.inner;
  const bool smooth = targets.smoothing > 0;
  parallel_chunks(targets.outer, inner * (smooth ? classes : 4), [&](Index begin, Index end) {
    for (Index p = begin * inner; p < end * inner; ++p) {
      if (targets.ignores(p)) {
        loss[p] = T(0);
        continue;
      }
      const T* from = log_p + p / inner * classes * inner + p % inner;
      double sum = targets.own(p) * static_cast<double>(from[targets.labels[p] * inner]);
      if (smooth) {
        double all = 0;
        for (Index c = 0; c < classes; ++c)
          all += targets.weight_of(c) * static_cast<double>(from[c * inner]);
        sum += targets.spread() * all;
      }
      loss[p] = static_cast<T>(-sum);
    }
  });
}

/// dlog_p = -share * dloss * scale, from the definition. `dloss` has one number per position, or
/// with `step` 0 one for all. For no label smoothing. Writes dlog_p. Parallel over outer.
template <class T>
void nll_backward(T* dlog_p, const T* dloss, Index step, const LabelTargets<T>& targets,
                  double scale) {
  const Index row = targets.classes * targets.inner;
  parallel_chunks(targets.outer, row, [&](Index begin, Index end) {
    std::fill(dlog_p + begin * row, dlog_p + end * row, T(0));
    for (Index p = begin * targets.inner; p < end * targets.inner; ++p) {
      if (targets.ignores(p)) continue;
      T* to = dlog_p + p / targets.inner * row + p % targets.inner;
      to[targets.labels[p] * targets.inner] =
          static_cast<T>(-targets.own(p) * scale * static_cast<double>(dloss[p * step]));
    }
  });
}

/// The gradient of nll_forward after log_softmax, with respect to the logits.
///
///     dx[o, c, i] = (exp(log_p[o, c, i]) * S - share_c) * dloss[o, i] * scale    S = sum over c of
///     share_c
///
/// d(-share_c log_p_c) / dx_b = share_c (p_b - [b = c]), summed over c. `dloss` has one number per
/// position, or with `step` 0 one for all. Writes dx; zeros where the label is ignored. Parallel
/// over outer.
template <class T>
void cross_entropy_backward(T* dx, const T* dloss, Index step, const T* log_p,
                            const LabelTargets<T>& targets, double scale) {
  using V = Pack<T>;
  constexpr Index width = V::width;
  const Index classes = targets.classes, inner = targets.inner;
  const double spread = targets.spread();
  double weights = 0;
  for (Index c = 0; c < classes; ++c) weights += targets.weight_of(c);
  const auto upstream = [&](Index p) {
    return targets.ignores(p) ? 0 : scale * static_cast<double>(dloss[p * step]);
  };
  const auto take_own = [&](T* at, Index p) {
    if (!targets.ignores(p))
      at[targets.labels[p] * inner] -= static_cast<T>(targets.own(p) * upstream(p));
  };

  parallel_chunks(targets.outer, 8 * classes * inner, [&](Index begin, Index end) {
    for (Index o = begin; o < end; ++o) {
      T* const to = dx + o * classes * inner;
      const T* const from = log_p + o * classes * inner;
      if (inner == 1) {
        const double g = upstream(o);
        const V sum(static_cast<T>(g * (targets.own(o) + spread * weights)));
        const V each(static_cast<T>(g * spread));
        detail::fill_packs<V>(to, classes, [&](Index c, Index count) {
          const V p = exp(load_lanes(from + c, count)) * sum;
          if (spread == 0) return p;
          return p - (targets.weight ? load_lanes(targets.weight + c, count) * each : each);
        });
        take_own(to, o);
        continue;
      }
      for (Index i = 0; i < inner; i += width) {
        const Index count = std::min(width, inner - i);
        T g[width] = {}, sum[width] = {};
        for (Index j = 0; j < count; ++j) {
          const Index p = o * inner + i + j;
          g[j] = static_cast<T>(upstream(p) * spread);
          sum[j] = static_cast<T>(upstream(p) * (targets.own(p) + spread * weights));
        }
        const V each = V::load(g), sums = V::load(sum);
        for (Index c = 0; c < classes; ++c) {
          const Index at = c * inner + i;
          const V share = each * V(static_cast<T>(targets.weight_of(c)));
          const V out = exp(load_lanes(from + at, count)) * sums - share;
          count == width ? out.store(to + at) : out.store(to + at, count);
        }
        for (Index j = 0; j < count; ++j) take_own(to + i + j, o * inner + i + j);
      }
    }
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
