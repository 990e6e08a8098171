#pragma once
/// @file
/// Batch normalisation: each channel over all images and positions.

#include <algorithm>
#include <cmath>

#include "minnow/core/memory.hpp"
#include "minnow/kernels/channel_norm.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// True where a thread takes a channel through both passes: its numbers, in the `arrays` that are
/// read, are still in the second-level cache for the second pass, its planes are long runs of
/// memory, and there are enough channels to share out.
///
/// From memory, unlike from the caches, distant runs are slow even if they are long, unless results
/// go past the caches.
template <class T>
bool channels_at_a_time(Index n, Index c, Index hw, Index arrays) {
  const Index plane = hw * Index{sizeof(T)}, size = n * c * hw;
  if (c < 8 || plane < 8 * 1024 || arrays * n * plane > 832 * 1024) return false;
  return fills_caches<T>(size) || !fills_caches<T>((arrays + 1) * size);
}

}  // namespace detail

/// Normalises each channel of a batch by its own mean and biased variance.
///
///   y = (x - mean) * rstd * gamma + beta    rstd = 1 / sqrt(variance + eps)
///
/// x, y [n, c, hw] (y may be x); gamma, beta [c] or null (1 and 0). Writes y, mean [c] and rstd
/// [c], which the backward needs. running_mean and running_var [c], or null, move towards the batch
/// by `momentum`, the weight of the new value; the variance that goes there is the unbiased one, so
/// n * hw must be at least 2 then.
///
/// Numerics: inputs of 1e4 + N(0, 1) give y within 1e-5, constant channels give beta, inputs around
/// 1e30 are as accurate as others. Parallel over images and channels, the same bits for any number
/// of threads. Paper: Ioffe, Szegedy, "Batch normalization", 2015.
template <class T>
void batch_norm_forward(T* y, T* mean, T* rstd, T* running_mean, T* running_var, const T* x,
                        const T* gamma, const T* beta, Index n, Index c, Index hw, double eps,
                        double momentum) {
  const double count = static_cast<double>(n * hw);
  const auto finish = [&](Index ch, double center, double variance) {
    const double r = 1 / std::sqrt(variance + eps);
    mean[ch] = static_cast<T>(center);
    rstd[ch] = static_cast<T>(r);
    if (running_mean) move_running(running_mean[ch], center, momentum);
    if (running_var) move_running(running_var[ch], variance * count / (count - 1), momentum);
    return detail::make_affine<T>(center, r, gamma ? static_cast<double>(gamma[ch]) : 1,
                                  beta ? static_cast<double>(beta[ch]) : 0);
  };
  if (detail::channels_at_a_time<T>(n, c, hw, 1)) {
    const bool past_caches = detail::run_goes_past_caches<T>(n * c * hw, hw);
    parallel_for(c, [&](Index ch) {
      Moments all;
      for (Index i = ch; i < n * c; i += c) {
        const bool fetch = past_caches && i + c < n * c;
        all = merge(all, moments(x + i * hw, hw, 1, 0, fetch ? c * hw : 0));
      }
      const auto affine = finish(ch, all.mean, all.variance());
      for (Index i = (n - 1) * c + ch; i >= 0; i -= c)
        detail::map_planes(
            y + i * hw, 1, hw, past_caches, [&](Index) { return affine; },
            typename detail::Affine<T>::Map{x + i * hw});
    });
    return;
  }
  const Scratch<double> statistics(2 * c);
  const Scratch<detail::Affine<T>> affine(c);
  double *means = statistics.data(), *variances = means + c;
  batch_moments(means, variances, x, n, c, hw);
  for (Index ch = 0; ch < c; ++ch) affine.data()[ch] = finish(ch, means[ch], variances[ch]);
  normalize_batch(y, x, affine.data(), n, c, hw);
}

/// Normalises each channel by a given mean and variance: what a trained network does.
///
///   y = (x - mean) * rstd * gamma + beta    rstd = 1 / sqrt(variance + eps)
///
/// x, y [n, c, hw] (y may be x); mean, variance [c]; gamma, beta [c] or null (1 and 0). Writes y
/// and rstd [c]. Parallel over images and channels.
template <class T>
void batch_norm_inference(T* y, T* rstd, const T* x, const T* mean, const T* variance,
                          const T* gamma, const T* beta, Index n, Index c, Index hw, double eps) {
  const Scratch<detail::Affine<T>> affine(c);
  for (Index ch = 0; ch < c; ++ch) {
    const double r = 1 / std::sqrt(static_cast<double>(variance[ch]) + eps);
    rstd[ch] = static_cast<T>(r);
    affine.data()[ch] = detail::make_affine<T>(static_cast<double>(mean[ch]), r,
                                               gamma ? static_cast<double>(gamma[ch]) : 1,
                                               beta ? static_cast<double>(beta[ch]) : 0);
  }
  normalize_batch(y, x, affine.data(), n, c, hw);
}

/// The gradients of batch normalisation.
///
///   dbeta = sum(dy)    dgamma = sum(dy * xhat)    xhat = (x - mean) * rstd    m = n * hw
///   dx = gamma * rstd * (dy - dbeta / m - xhat * dgamma / m)
///   dx = gamma * rstd * dy    if `constant`: mean and rstd did not come from x
///
/// Derivation: x[k] acts on y[k] directly, and on every y through the mean (d mean / dx[k] = 1 / m)
/// and through rstd (d rstd / dx[k] = -rstd^2 * xhat[k] / m). Summed over dy * gamma, these three
/// paths are the three terms.
///
/// x, dy, dx [n, c, hw] (dx may be dy); mean, rstd [c] from the forward; gamma [c] or null. Writes
/// dx, dgamma [c] and dbeta [c]; any of them may be null. Two passes over memory: sums, then dx.
/// Parallel over images and channels, the same bits for any number of threads.
template <class T>
void batch_norm_backward(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                         const T* rstd, const T* gamma, Index n, Index c, Index hw,
                         bool constant = false) {
  const double m = static_cast<double>(n * hw);
  const auto finish = [&](Index ch, double dy_sum, double dy_xhat_sum) {
    if (dbeta) dbeta[ch] = static_cast<T>(dy_sum);
    if (dgamma) dgamma[ch] = static_cast<T>(dy_xhat_sum);
    const double g = gamma ? static_cast<double>(gamma[ch]) : 1;
    return detail::make_gradient_weights(mean[ch], rstd[ch], g, g * dy_sum / m,
                                         g * dy_xhat_sum / m);
  };
  if (!constant && detail::channels_at_a_time<T>(n, c, hw, 2)) {
    const bool past_caches = detail::run_goes_past_caches<T>(n * c * hw, hw);
    parallel_for(c, [&](Index ch) {
      detail::GradientSums sums;
      for (Index i = ch; i < n * c; i += c)
        sums.add(detail::gradient_sums(dy + i * hw, x + i * hw, hw, mean[ch], rstd[ch]));
      const auto weights = finish(ch, sums.dy, sums.dy_xhat);
      for (Index i = (n - 1) * c + ch; dx && i >= 0; i -= c)
        detail::map_planes(
            dx + i * hw, 1, hw, past_caches, [&](Index) { return weights; },
            typename detail::GradientWeights<T>::Map{dy + i * hw, x + i * hw});
    });
    return;
  }
  const Scratch<double> sums(2 * c);
  double *dy_sum = sums.data(), *dy_xhat_sum = dy_sum + c;
  if (dgamma || dbeta || !constant)
    batch_gradient_sums(dy_sum, dy_xhat_sum, dy, x, mean, rstd, n, c, hw);
  else
    std::fill_n(sums.data(), 2 * c, 0.0);
  const Scratch<detail::GradientWeights<T>> weights(c);
  const Scratch<detail::Affine<T>> affine(c);
  for (Index ch = 0; ch < c; ++ch) {
    weights.data()[ch] = finish(ch, dy_sum[ch], dy_xhat_sum[ch]);
    affine.data()[ch] = {T(0), weights.data()[ch].of_dy, T(0)};
  }
  if (dx && constant) normalize_batch(dx, dy, affine.data(), n, c, hw);
  if (dx && !constant) gradient_batch(dx, dy, x, weights.data(), n, c, hw);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
