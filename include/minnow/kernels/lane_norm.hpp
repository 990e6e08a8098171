#pragma once
/// @file
/// Normalisation, dropout and relu of a packet of images, one image a lane.
///
/// Every normalisation of images is the same here: the planes [c][h * w] of an image are cut into
/// runs of `run` positions that share a mean and a deviation per lane. Batch norm has a run a
/// channel, group norm a run a group, layer norm a run of its normalised sizes. Only where the
/// moments come from differs: from the run itself, or, for batch norm, from all images.

#include <algorithm>
#include <cmath>

#include "minnow/kernels/dropout.hpp"
#include "minnow/kernels/lanes.hpp"
#include "minnow/kernels/moments.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// How the planes of an image are cut, and where gamma and beta come from: of the channel, or, as
/// layer norm has it, of the position within the run.
struct LaneNormSizes {
  Index channels, h, w, run;
  bool affine_by_position = false;

  Index plane() const { return h * w; }
  Index positions() const { return channels * h * w; }
  Index runs() const { return positions() / run; }
  Index affine_size() const { return affine_by_position ? run : channels; }
};

/// mean and squared deviations of `count` packs, lane by lane: in two passes over pieces that stay
/// in the first-level cache, merged one after the other.
///
/// Paper: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
/// variances", 1979.
template <class T>
void lane_moments(Pack<T>& mean, Pack<T>& m2, const T* x, Index count) {
  using V = Pack<T>;
  constexpr Index lanes = V::width, piece = 128;
  // Four sums, each of every fourth number, so that none waits for the one before.
  const auto sum_of = [](Index n, const auto& number) {
    V sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    Index i = 0;
    for (; i + 4 <= n; i += 4)
      for (Index u = 0; u < 4; ++u) sums[u] += number(i + u);
    for (; i < n; ++i) sums[0] += number(i);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  };
  for (Index begin = 0; begin < count; begin += piece) {
    const Index n = std::min(piece, count - begin);
    const T* from = x + begin * lanes;
    const V piece_mean =
        sum_of(n, [&](Index i) { return V::load(from + i * lanes); }) * V(T(1) / static_cast<T>(n));
    const V piece_m2 = sum_of(n, [&](Index i) {
      const V d = V::load(from + i * lanes) - piece_mean;
      return d * d;
    });
    if (begin == 0) {
      mean = piece_mean;
      m2 = piece_m2;
      continue;
    }
    const V change = piece_mean - mean;
    const T share = static_cast<T>(n) / static_cast<T>(begin + n);
    mean = fma(change, V(share), mean);
    m2 += fma(change * change, V(share * static_cast<T>(begin)), piece_m2);
  }
}

/// mean, rstd [runs][lane] of every run of a packet z [positions][lane], each lane by itself. rstd
/// is 0 in lanes without an image, from `images` on: with an eps of 0 their constants would make it
/// infinite, and sums over lanes NaN.
template <class T>
void lane_run_moments(T* mean, T* rstd, const T* z, const LaneNormSizes& s, double eps,
                      Index images) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  const V per_position(T(1) / static_cast<T>(s.run)), epsilon(static_cast<T>(eps));
  V overflow = V::zero();  // NaN where squares have overflown
  for (Index r = 0; r < s.runs(); ++r) {
    V m, m2;
    lane_moments(m, m2, z + r * s.run * lanes, s.run);
    overflow += m2 - m2;
    m.store(mean + r * lanes);
    V deviation = V(T(1)) / sqrt(fma(m2, per_position, epsilon));
    if (images < lanes) deviation = deviation.first(images);
    deviation.store(rstd + r * lanes);
  }
  if (sum(overflow) == T(0)) return;
  for (Index r = 0; r < s.runs(); ++r)
    for (Index j = 0; j < images; ++j) {
      const Moments exact = detail::wide_moments(z + r * s.run * lanes + j, 1, s.run, lanes);
      mean[r * lanes + j] = static_cast<T>(exact.mean);
      rstd[r * lanes + j] = static_cast<T>(1 / std::sqrt(exact.variance() + eps));
    }
}

/// moments [channels] over the first `images` lanes of a packet z [channels][plane][lane].
template <class T>
void lane_channel_moments(Moments* moments, const T* z, const LaneNormSizes& s, Index images) {
  constexpr Index lanes = Pack<T>::width;
  for (Index c = 0; c < s.channels; ++c) {
    const T* plane = z + c * s.plane() * lanes;
    Pack<T> mean, m2;
    lane_moments(mean, m2, plane, s.plane());
    T means[lanes], m2s[lanes];
    mean.store(means);
    m2.store(m2s);
    moments[c] = {};
    for (Index j = 0; j < images; ++j)
      moments[c] = merge(
          moments[c], std::isfinite(m2s[j])
                          ? Moments{static_cast<double>(s.plane()), static_cast<double>(means[j]),
                                    static_cast<double>(m2s[j])}
                          : detail::wide_moments(plane + j, 1, s.plane(), lanes));
  }
}

namespace detail {

/// Calls f(first, last, run, gamma, beta) for the stretches of positions [begin, end) that share a
/// run, gamma and beta.
template <class T, class F>
void for_affine_stretches(Index begin, Index end, const T* gamma, const T* beta,
                          const LaneNormSizes& s, const F& f) {
  const auto at = [](const T* parameter, Index i, T otherwise) {
    return Pack<T>(parameter ? parameter[i] : otherwise);
  };
  while (begin < end) {
    const Index r = begin / s.run, last = std::min(end, (r + 1) * s.run);
    while (begin < last) {
      const Index i = s.affine_by_position ? begin - r * s.run : begin / s.plane();
      const Index next = s.affine_by_position ? begin + 1 : std::min(last, (i + 1) * s.plane());
      f(begin, next, r, at(gamma, i, T(1)), at(beta, i, T(0)));
      begin = next;
    }
  }
}

}  // namespace detail

/// y = (z - mean) * rstd * gamma + beta, then relu if asked for, at positions [begin, end) of a
/// packet.
///
/// z, y [positions][lane]; mean, rstd [runs][lane]; gamma, beta [affine_size] or null. y may be z.
template <bool relu, class T>
void lane_normalize(T* y, const T* z, Index begin, Index end, const T* mean, const T* rstd,
                    const T* gamma, const T* beta, const LaneNormSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  detail::for_affine_stretches(begin, end, gamma, beta, s,
                               [&](Index first, Index last, Index r, V scale, V shift) {
                                 const V m = V::load(mean + r * lanes);
                                 scale *= V::load(rstd + r * lanes);
                                 for (Index i = first; i < last; ++i) {
                                   V value = fma(V::load(z + i * lanes) - m, scale, shift);
                                   if constexpr (relu) value = max(value, V::zero());
                                   value.store(y + i * lanes);
                                 }
                               });
}

/// Dropout of positions [begin, end) of a packet, then relu if asked for, by `DropoutRule`; lane j
/// is sample first_sample + j. y may be x.
template <bool relu, class T>
void lane_dropout(T* y, const T* x, Index begin, Index end, Index first_sample,
                  const DropoutRule& rule) {
  using V = Pack<T>;
  constexpr int lanes = static_cast<int>(V::width), block = int{DropoutRule::block_size};
  const V scale(static_cast<T>(rule.scale));
  // Two blocks of positions at a time: numbers are drawn faster side by side.
  constexpr int positions = 2 * block;
  std::uint32_t low[2 * lanes], high[2 * lanes], words[4][2 * lanes];
  const auto drop = [&](Index first, int i) {
    const Index at = (first + i) * lanes;
    const int half = i % block;
    V value = keep_at_least(V::load(x + at) * scale, words[half / 2] + i / block * lanes,
                            half % 2 == 1, rule.threshold);
    if constexpr (relu) value = max(value, V::zero());
    value.store(y + at);
  };
  for (int j = 0; j < 2 * lanes; ++j)
    high[j] = static_cast<std::uint32_t>(first_sample + j % lanes);
  for (Index b = begin / block; b * block < end; b += 2) {
    for (int j = 0; j < 2 * lanes; ++j) low[j] = static_cast<std::uint32_t>(b + j / lanes);
    philox<2 * lanes>(words, rule.key, low, high);
    const Index first = b * block;
    if (begin <= first && first + positions <= end) {
      MINNOW_UNROLL
      for (int i = 0; i < positions; ++i) drop(first, i);
    } else {
      for (int i = 0; i < positions; ++i)
        if (begin <= first + i && first + i < end) drop(first, i);
    }
  }
}

/// Backward of relu, and of a dropout before or after it: dy = where y > 0, dy * scale, else 0.
///
/// y is what the forward made: what was dropped, or negative, is 0 there and needs no second look
/// at the mask. In place on dy; both are [positions][lane].
template <class T>
struct LaneReluBackward {
  T* dy;
  const T* y;
  Pack<T> scale;

  LaneReluBackward(T* gradient, const T* activated, double dropout_scale)
      : dy(gradient), y(activated), scale(static_cast<T>(dropout_scale)) {}

  /// The gradient at numbers [at, at + width), written back to dy; as it is if there is no relu.
  template <bool relu>
  MINNOW_INLINE Pack<T> take(Index at) const {
    Pack<T> g = Pack<T>::load(dy + at);
    if constexpr (relu) {
      g = select_less_equal(Pack<T>::load(y + at), Pack<T>::zero(), Pack<T>::zero(), g * scale);
      g.store(dy + at);
    }
    return g;
  }
};

/// The same for all of dy [positions][lane].
template <class T>
void lane_relu_backward(const LaneReluBackward<T>& gradient, Index positions) {
  for (Index i = 0; i < positions; ++i) gradient.template take<true>(i * Pack<T>::width);
}

/// What the backward of a normalisation needs to know of a packet before it can begin: the sums
/// dbeta = sum dy and dgamma = sum dy * xhat, xhat = (z - mean) * rstd, and the means over each run
/// mean_g = mean dy * gamma and mean_gx = mean dy * gamma * xhat, all in every lane. dy is the
/// gradient after the backward of relu, which is done on the way where there is one.
///
/// dgamma, dbeta [affine_size][lane] and mean_g, mean_gx [runs][lane] are assigned; the means are
/// left out if null. dy, z [positions][lane], mean, rstd [runs][lane], gamma [affine_size] or null.
template <bool relu, class T>
void lane_norm_sums(T* dgamma, T* dbeta, T* mean_g, T* mean_gx, LaneReluBackward<T> gradient,
                    const T* z, const T* mean, const T* rstd, const T* gamma,
                    const LaneNormSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width, ahead = 32 * lanes;
  const V per_position(T(1) / static_cast<T>(s.run));
  std::fill_n(dgamma, s.affine_size() * lanes, T(0));
  std::fill_n(dbeta, s.affine_size() * lanes, T(0));
  for (Index r = 0; r < s.runs(); ++r) {
    const V m = V::load(mean + r * lanes), deviation = V::load(rstd + r * lanes);
    V run_g = V::zero(), run_gx = V::zero();
    // What position p adds to the sums; to those with xhat but for rstd.
    const auto terms = [&](Index p, V& g, V& product) {
      g = gradient.template take<relu>(p * lanes);
      product = g * (V::load(z + p * lanes) - m);
      __builtin_prefetch(z + p * lanes + ahead);
    };
    if (s.affine_by_position) {
      for (Index i = 0; i < s.run; ++i) {
        V g, product;
        terms(r * s.run + i, g, product);
        product *= deviation;
        (product + V::load(dgamma + i * lanes)).store(dgamma + i * lanes);
        (g + V::load(dbeta + i * lanes)).store(dbeta + i * lanes);
        const V scale(gamma ? gamma[i] : T(1));
        run_g = fma(g, scale, run_g);
        run_gx = fma(product, scale, run_gx);
      }
    } else {
      for (Index p = r * s.run; p < (r + 1) * s.run;) {
        const Index c = p / s.plane(), last = std::min((c + 1) * s.plane(), (r + 1) * s.run);
        V products[2] = {V::zero(), V::zero()}, sums[2] = {V::zero(), V::zero()}, g, product;
        const auto add = [&](int u) {
          terms(p++, g, product);
          products[u] += product;
          sums[u] += g;
        };
        while (p + 2 <= last) {
          add(0);
          add(1);
        }
        if (p < last) add(0);
        const V scale(gamma ? gamma[c] : T(1)), sum = sums[0] + sums[1];
        product = (products[0] + products[1]) * deviation;
        (product + V::load(dgamma + c * lanes)).store(dgamma + c * lanes);
        (sum + V::load(dbeta + c * lanes)).store(dbeta + c * lanes);
        run_g = fma(sum, scale, run_g);
        run_gx = fma(product, scale, run_gx);
      }
    }
    if (!mean_g) continue;
    (run_g * per_position).store(mean_g + r * lanes);
    (run_gx * per_position).store(mean_gx + r * lanes);
  }
}

/// dz = rstd * (dy * gamma - mean_g - xhat * mean_gx), written with `border` columns of space on
/// each side of a row, as the backward of a convolution reads it.
///
/// mean_g, mean_gx null: the moments were constants, both are zero. rstd null: no normalisation at
/// all, dz = dy. dz [channels][h][w + 2 border][lane] is assigned entirely.
template <class T>
void lane_norm_backward(T* dz, Index border, const T* dy, const T* z, const T* mean, const T* rstd,
                        const T* mean_g, const T* mean_gx, const T* gamma, const LaneNormSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  const Index rows = s.channels * s.h, pitch = s.w + 2 * border;
  const auto target = [&](Index row) {
    T* line = dz + row * pitch * lanes;
    std::fill_n(line, border * lanes, T(0));
    std::fill_n(line + (pitch - border) * lanes, border * lanes, T(0));
    return line + border * lanes;
  };
  if (!rstd) {
    for (Index row = 0; row < rows; ++row)
      std::copy_n(dy + row * s.w * lanes, s.w * lanes, target(row));
    return;
  }
  for (Index row = 0; row < rows; ++row) {
    const Index first =
        row * s.w;  // a row of a plane lies within one run, or is made of whole ones
    T* to = target(row);
    for (Index p = first; p < first + s.w;) {
      const Index r = p / s.run, last = std::min(first + s.w, (r + 1) * s.run);
      const V deviation = V::load(rstd + r * lanes), m = V::load(mean + r * lanes);
      const V shift = mean_g ? -(deviation * V::load(mean_g + r * lanes)) : V::zero();
      const V slope = mean_gx ? -(deviation * V::load(mean_gx + r * lanes)) : V::zero();
      const V channel_scale =
          deviation * V(gamma && !s.affine_by_position ? gamma[p / s.plane()] : T(1));
      for (; p < last; ++p) {
        const V scale =
            gamma && s.affine_by_position ? deviation * V(gamma[p - r * s.run]) : channel_scale;
        // Not by deviation squared, which underflows for rows of 1e30.
        const V rest = fma((V::load(z + p * lanes) - m) * deviation, slope, shift);
        fma(V::load(dy + p * lanes), scale, rest).store(to + (p - first) * lanes);
      }
    }
  }
}

}  // namespace minnow::inline MINNOW_ABI::kernels
