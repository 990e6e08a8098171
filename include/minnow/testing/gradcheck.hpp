#pragma once
/// @file
/// Checks a differentiable function's backward against finite differences.

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "minnow/autograd.hpp"

namespace minnow::inline MINNOW_ABI::testing {

struct GradcheckOptions {
  double step = 1e-5;
  double relative = 1e-6;
  double absolute = 1e-8;
  std::uint64_t seed = 1;
  /// A gradient that is zero everywhere proves nothing and fails, unless it is zero by nature.
  bool allow_zero = false;
};

/// The outcome. Converts to bool.
struct GradcheckResult {
  bool passed = true;
  std::string message;  ///< which input, where, found and expected

  explicit operator bool() const { return passed; }
  const std::string& str() const { return message; }
};

/// Compares the gradients of L = sum(dy * f(inputs)), for a random dy, with central differences in
/// every element of every input that requires a gradient. In double only: in float the differences
/// are noise. `f` must give the same value for the same inputs (a dropout: the same key).
inline GradcheckResult gradcheck(
    const std::function<Variable<double>(const std::vector<Variable<double>>&)>& f,
    const std::vector<Variable<double>>& inputs, const GradcheckOptions& options = {}) {
  for (auto input : inputs) input.zero_grad();
  const Variable<double> y = f(inputs);
  const auto dy = Tensor<double>::normal(y.shape(), 0, 1, {options.seed, 0x67726164, 0});
  y.backward(dy);

  const auto loss = [&] {
    const NoGrad no_grad;
    const Tensor<double> value = f(inputs).value();
    double sum = 0;
    for (Index i = 0; i < value.size(); ++i) sum += dy[i] * value[i];
    return sum;
  };

  for (std::size_t k = 0; k < inputs.size(); ++k) {
    Variable<double> x = inputs[k];
    if (!x.requires_grad()) continue;
    const Tensor<double> dx = x.grad();
    if (!dx.defined()) return {false, text("input ", k, " received no gradient")};
    if (dx.shape() != x.shape())
      return {false,
              text("input ", k, ": gradient of shape ", dx.shape(), ", expected ", x.shape())};
    double largest = 0;
    for (Index i = 0; i < x.size(); ++i) {
      double& element = x.mutable_value()[i];
      const double before = element;
      element = before + options.step;
      const double above = loss();
      element = before - options.step;
      const double below = loss();
      element = before;
      const double expected = (above - below) / (2 * options.step);
      const double bound =
          options.absolute + options.relative * std::max(std::abs(expected), std::abs(dx[i]));
      if (!(std::abs(dx[i] - expected) <= bound))
        return {false,
                text("input ", k, " of shape ", x.shape(), ", element ", i, ": gradient ", dx[i],
                     ", finite difference ", expected, " (difference ", dx[i] - expected, ")")};
      largest = std::max(largest, std::abs(dx[i]));
    }
    if (largest == 0 && x.size() > 0 && !options.allow_zero)
      return {false,
              text("input ", k, ": the gradient is zero everywhere, so nothing was checked")};
  }
  return {};
}

}  // namespace minnow::inline MINNOW_ABI::testing
