#pragma once
/// @file
/// Limits on gradients, between `backward` and `step`.

#include <cmath>
#include <vector>

#include "minnow/autograd.hpp"
#include "minnow/kernels/optimizer.hpp"

namespace minnow::inline MINNOW_ABI::optim {

/// The norm of all gradients taken as one vector: (Σ |dp|^norm_type)^(1 / norm_type), or the
/// largest |dp| for an infinite norm_type. Parameters without a gradient count as zeros.
///
/// Errors: Error unless norm_type is positive.
template <class T>
double grad_norm(const std::vector<Variable<T>>& parameters, double norm_type = 2) {
  check(norm_type > 0, "grad_norm: norm_type = ", norm_type, " must be positive");
  const bool largest = std::isinf(norm_type);
  double total = 0;
  for (const Variable<T>& parameter : parameters) {
    const Tensor<T>& dp = parameter.grad();
    if (!dp.defined()) continue;
    const double part = kernels::sum_abs_power(dp.data(), dp.size(), norm_type);
    if (!largest)
      total += part;
    else if (!(part <= total) && !std::isnan(total))
      total = part;
  }
  if (largest) return total;
  return norm_type == 2 ? std::sqrt(total) : std::pow(total, 1 / norm_type);
}

/// Scales all gradients by one factor so that their norm is at most `max_norm`; smaller ones stay
/// as they are. Returns the norm before.
///
///     optim::clip_grad_norm(model.parameters(), 1.0);
///
/// As in PyTorch the factor is max_norm / (norm + 1e-6): a norm of NaN makes all gradients NaN, an
/// infinite one makes them 0, and NaN what was infinite. Test the returned value, or ask for an
/// error.
///
/// Errors: Error unless max_norm and norm_type are positive; with `error_if_nonfinite`, Error for a
/// norm that is infinite or NaN, before any gradient is changed.
template <class T>
double clip_grad_norm(const std::vector<Variable<T>>& parameters, double max_norm,
                      double norm_type = 2, bool error_if_nonfinite = false) {
  check(max_norm > 0, "clip_grad_norm: max_norm = ", max_norm, " must be positive");
  const double norm = grad_norm(parameters, norm_type);
  check(!error_if_nonfinite || std::isfinite(norm), "clip_grad_norm: the norm of the gradients is ",
        norm, "; the loss or one of its gradients has overflowed");
  const double factor = max_norm / (norm + 1e-6);
  if (factor >= 1) return norm;
  for (Variable<T> parameter : parameters)
    if (Tensor<T>& dp = parameter.mutable_grad(); dp.defined())
      kernels::scale(dp.data(), dp.size(), static_cast<T>(factor));
  return norm;
}

/// Moves every element of every gradient into [-limit, limit]. NaN stays NaN.
///
/// Errors: Error unless the limit is positive.
template <class T>
void clip_grad_value(const std::vector<Variable<T>>& parameters, double limit) {
  check(limit > 0, "clip_grad_value: limit = ", limit, " must be positive");
  for (Variable<T> parameter : parameters)
    if (Tensor<T>& dp = parameter.mutable_grad(); dp.defined())
      kernels::clamp(dp.data(), dp.size(), static_cast<T>(limit));
}

}  // namespace minnow::inline MINNOW_ABI::optim
