#pragma once
/// @file
/// RMS normalisation: layer normalisation that leaves the mean where it is.

#include "minnow/kernels/layer_norm.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// Divides each row by its root mean square.
///
///   y = x * rstd * gamma    rstd = 1 / sqrt(mean(x^2) + eps)
///
/// x, y [rows, cols] (y may be x); gamma [cols] or null (1). Writes y and rstd [rows], which the
/// backward needs. Numerics: constant rows give gamma, inputs around 1e30 are as accurate as
/// others. Parallel over rows; short rows lie in lanes (see short_rows.hpp). Paper: Zhang,
/// Sennrich, "Root mean square layer normalization", 2019.
template <class T>
void rms_norm_forward(T* y, T* rstd, const T* x, const T* gamma, Index rows, Index cols,
                      double eps) {
  detail::normalize_rows<false, T>(y, nullptr, rstd, x, gamma, nullptr, rows, cols, eps);
}

/// The gradients of RMS normalisation.
///
///   dgamma = sum(dy * xhat)    xhat = x * rstd
///   dx = rstd * (dxhat - xhat * mean(dxhat * xhat))    dxhat = gamma * dy
///
/// The sum runs over rows, the mean along a row. Derivation: x[k] acts on its own xhat directly,
/// and on all of the row through rstd (d rstd / dx[k] = -rstd^2 * xhat[k] / cols).
///
/// x, dy, dx [rows, cols] (dx may be dy); rstd [rows] from the forward; gamma [cols] or null.
/// Writes dx and dgamma [cols]; either may be null. Parallel over rows; each chunk of rows has sums
/// of its own, which are added in order.
template <class T>
void rms_norm_backward(T* dx, T* dgamma, const T* dy, const T* x, const T* rstd, const T* gamma,
                       Index rows, Index cols) {
  detail::gradient_rows<false, T>(dx, dgamma, nullptr, dy, x, nullptr, rstd, gamma, rows, cols);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
