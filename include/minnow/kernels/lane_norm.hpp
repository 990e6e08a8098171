#pragma once
/// @file
/// Normalisation, dropout and relu of a packet of images, one image a lane.
///
/// Every normalisation of images is the same here: the planes [c][h * w] of an image are cut into
/// runs of `run` positions that share a mean and a deviation per lane. Batch and instance norm have
/// a run a channel, group norm a run a group, layer norm a run of its normalised sizes. Only where
/// the moments come from differs: from the run itself, or, for batch norm, from all images.

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

/// mean and squared deviations of `count` packs, lane by lane, in two passes.
template <class T>
void lane_moments(Pack<T>& mean, Pack<T>& m2, const T* x, Index count) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  V sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  Index i = 0;
  for (; i + 4 <= count; i += 4)
    for (Index u = 0; u < 4; ++u) sums[u] += V::load(x + (i + u) * lanes);
  for (; i < count; ++i) sums[0] += V::load(x + i * lanes);
  mean = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * V(T(1) / static_cast<T>(count));
  for (V& s : sums) s = V::zero();
  for (i = 0; i + 4 <= count; i += 4)
    for (Index u = 0; u < 4; ++u) {
      const V d = V::load(x + (i + u) * lanes) - mean;
      sums[u] = fma(d, d, sums[u]);
    }
  for (; i < count; ++i) {
    const V d = V::load(x + i * lanes) - mean;
    sums[0] = fma(d, d, sums[0]);
  }
  m2 = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// mean, rstd [runs][lane] of every run of a packet z [positions][lane], each lane by itself.
template <class T>
void lane_run_moments(T* mean, T* rstd, const T* z, const LaneNormSizes& s, double eps) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  const V count(T(1) / static_cast<T>(s.run)), epsilon(static_cast<T>(eps));
  V overflow = V::zero();  // NaN where squares have overflown
  for (Index r = 0; r < s.runs(); ++r) {
    V m, m2;
    lane_moments(m, m2, z + r * s.run * lanes, s.run);
    overflow += m2 - m2;
    m.store(mean + r * lanes);
    (V(T(1)) / sqrt(fma(m2, count, epsilon))).store(rstd + r * lanes);
  }
  if (sum(overflow) == T(0)) return;
  for (Index r = 0; r < s.runs(); ++r)
    for (Index j = 0; j < lanes; ++j) {
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

/// Calls f(first, count, gamma, beta) for stretches of positions of run r that share gamma and
/// beta.
template <class T, class F>
void for_affine_stretches(Index r, const T* gamma, const T* beta, const LaneNormSizes& s,
                          const F& f) {
  const auto at = [](const T* parameter, Index i, T otherwise) {
    return parameter ? parameter[i] : otherwise;
  };
  const Index first = r * s.run, last = first + s.run;
  if (s.affine_by_position) {
    for (Index p = first; p < last; ++p)
      f(p, Index{1}, Pack<T>(at(gamma, p - first, T(1))), Pack<T>(at(beta, p - first, T(0))));
    return;
  }
  for (Index p = first; p < last;) {
    const Index c = p / s.plane(), count = std::min((c + 1) * s.plane(), last) - p;
    f(p, count, Pack<T>(at(gamma, c, T(1))), Pack<T>(at(beta, c, T(0))));
    p += count;
  }
}

}  // namespace detail

/// y = (z - mean) * rstd * gamma + beta, then relu if asked for, of a packet.
///
/// z, y [positions][lane]; mean, rstd [runs][lane]; gamma, beta [affine_size] or null. y may be z.
template <bool relu, class T>
void lane_normalize(T* y, const T* z, const T* mean, const T* rstd, const T* gamma, const T* beta,
                    const LaneNormSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  for (Index r = 0; r < s.runs(); ++r) {
    const V m = V::load(mean + r * lanes), deviation = V::load(rstd + r * lanes);
    detail::for_affine_stretches(r, gamma, beta, s,
                                 [&](Index first, Index count, V scale, V shift) {
                                   scale *= deviation;
                                   for (Index i = first; i < first + count; ++i) {
                                     V value = fma(V::load(z + i * lanes) - m, scale, shift);
                                     if constexpr (relu) value = max(value, V::zero());
                                     value.store(y + i * lanes);
                                   }
                                 });
  }
}

/// y = y + bias of the channel (none if null), then relu if asked for, in place on a packet
/// y [channels][plane][lane].
template <bool relu, class T>
void lane_add_bias(T* y, const T* bias, const LaneNormSizes& s) {
  using V = Pack<T>;
  for (Index c = 0; c < s.channels; ++c) {
    const V shift(bias ? bias[c] : T(0));
    for (T *to = y + c * s.plane() * V::width, *end = to + s.plane() * V::width; to < end;
         to += V::width) {
      V value = V::load(to) + shift;
      if constexpr (relu) value = max(value, V::zero());
      value.store(to);
    }
  }
}

/// Dropout of positions [begin, end) of a packet, then relu if asked for, by `DropoutRule`; lane j
/// is sample first_sample + j. y may be x.
template <bool relu, class T>
void lane_dropout(T* y, const T* x, Index begin, Index end, Index first_sample,
                  const DropoutRule& rule) {
  using V = Pack<T>;
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr int lanes = static_cast<int>(V::width);
  constexpr Index block = DropoutRule::block_size;
  const V scale(static_cast<T>(rule.scale));
  std::uint32_t low[lanes], high[lanes], words[4][lanes];
  for (int j = 0; j < lanes; ++j) high[j] = static_cast<std::uint32_t>(first_sample + j);
  const std::uint32_t threshold = rule.threshold;
  for (Index b = begin / block; b * block < end; ++b) {
    std::fill_n(low, lanes, static_cast<std::uint32_t>(b));
    philox<lanes>(words, rule.key, low, high);
    const Index first = std::max(begin, b * block), last = std::min(end, (b + 1) * block);
    alignas(64) Bits keep[block][lanes];
    for (Index h = 0; h < block; h += 2) {
      MINNOW_SIMD
      for (int j = 0; j < lanes; ++j) {
        keep[h][j] = (words[h / 2][j] & 0xFFFFu) >= threshold ? ~Bits{0} : Bits{0};
        keep[h + 1][j] = (words[h / 2][j] >> 16) >= threshold ? ~Bits{0} : Bits{0};
      }
    }
    for (Index i = first; i < last; ++i) {
      V value = mask_with(V::load(x + i * lanes) * scale, keep[i - b * block]);
      if constexpr (relu) value = max(value, V::zero());
      value.store(y + i * lanes);
    }
  }
}

/// Backward of relu, and of a dropout before or after it: dy = where y > 0, dy * scale, else 0.
///
/// y is what the forward made: what was dropped, or negative, is 0 there and needs no second look
/// at the mask. In place on dy [positions][lane].
template <class T>
void lane_relu_backward(T* dy, const T* y, Index positions, double dropout_scale) {
  using V = Pack<T>;
  const V scale(static_cast<T>(dropout_scale));
  for (Index i = 0; i < positions * V::width; i += V::width)
    select_less(V::zero(), V::load(y + i), V::load(dy + i) * scale, V::zero()).store(dy + i);
}

/// The sums that the backward of a normalisation needs, of a packet:
/// dbeta = sum dy and dgamma = sum dy * xhat, xhat = (z - mean) * rstd, in every lane.
///
/// dgamma, dbeta [affine_size][lane] are assigned; dy, z [positions][lane], mean, rstd
/// [runs][lane].
template <class T>
void lane_norm_sums(T* dgamma, T* dbeta, const T* dy, const T* z, const T* mean, const T* rstd,
                    const LaneNormSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  std::fill_n(dgamma, s.affine_size() * lanes, T(0));
  std::fill_n(dbeta, s.affine_size() * lanes, T(0));
  for (Index r = 0; r < s.runs(); ++r) {
    const V m = V::load(mean + r * lanes), deviation = V::load(rstd + r * lanes);
    if (s.affine_by_position) {
      for (Index i = 0; i < s.run; ++i) {
        const Index at = (r * s.run + i) * lanes;
        const V g = V::load(dy + at), xhat = (V::load(z + at) - m) * deviation;
        fma(g, xhat, V::load(dgamma + i * lanes)).store(dgamma + i * lanes);
        (g + V::load(dbeta + i * lanes)).store(dbeta + i * lanes);
      }
      continue;
    }
    for (Index p = r * s.run; p < (r + 1) * s.run;) {
      const Index c = p / s.plane(), last = std::min((c + 1) * s.plane(), (r + 1) * s.run);
      V products[2] = {V::zero(), V::zero()}, sums[2] = {V::zero(), V::zero()};
      for (; p + 2 <= last; p += 2)
        for (Index u = 0; u < 2; ++u) {
          const V g = V::load(dy + (p + u) * lanes);
          products[u] = fma(g, V::load(z + (p + u) * lanes) - m, products[u]);
          sums[u] += g;
        }
      for (; p < last; ++p) {
        const V g = V::load(dy + p * lanes);
        products[0] = fma(g, V::load(z + p * lanes) - m, products[0]);
        sums[0] += g;
      }
      fma(products[0] + products[1], deviation, V::load(dgamma + c * lanes))
          .store(dgamma + c * lanes);
      (sums[0] + sums[1] + V::load(dbeta + c * lanes)).store(dbeta + c * lanes);
    }
  }
}

/// mean_g, mean_gx [runs][lane]: the means over each run of dy * gamma and of dy * gamma * xhat.
///
/// With gamma by channel they follow from the channels' sums dgamma, dbeta [channels][lane] of
/// `lane_norm_sums`; with gamma by position from dy and z.
template <class T>
void lane_run_gradient_means(T* mean_g, T* mean_gx, const T* dy, const T* z, const T* mean,
                             const T* rstd, const T* gamma, const T* dgamma, const T* dbeta,
                             const LaneNormSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  const V count(T(1) / static_cast<T>(s.run));
  for (Index r = 0; r < s.runs(); ++r) {
    V g = V::zero(), gx = V::zero();
    if (s.affine_by_position) {
      const V m = V::load(mean + r * lanes);
      for (Index i = 0; i < s.run; ++i) {
        const Index at = (r * s.run + i) * lanes;
        const V value = gamma ? V::load(dy + at) * V(gamma[i]) : V::load(dy + at);
        g += value;
        gx = fma(value, V::load(z + at) - m, gx);
      }
      gx *= V::load(rstd + r * lanes);
    } else {
      const Index per_run = s.run / s.plane();
      for (Index c = r * per_run; c < (r + 1) * per_run; ++c) {
        const V scale(gamma ? gamma[c] : T(1));
        g = fma(scale, V::load(dbeta + c * lanes), g);
        gx = fma(scale, V::load(dgamma + c * lanes), gx);
      }
    }
    (g * count).store(mean_g + r * lanes);
    (gx * count).store(mean_gx + r * lanes);
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
