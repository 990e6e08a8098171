#pragma once
/// @file
/// Activation functions, element by element. The output has the input's shape; nothing can go
/// wrong.

#include "minnow/autograd.hpp"
#include "minnow/kernels/activations.hpp"
#include "minnow/ops/broadcast.hpp"

namespace minnow::inline MINNOW_ABI {

/// Which formula stands for the normal distribution in `gelu`.
enum class GeluApproximation {
  none,  ///< the error function
  tanh,  ///< x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
};

namespace detail {

/// `cost` is what an element is worth in elementary operations.
template <class T, class F>
Variable<T> activation(std::string_view name, const Variable<T>& x, const F& f, Index cost) {
  using V = Pack<T>;
  const Tensor<T> y = map(
      cost, [f](V v) { return f.forward(v); }, x.value());
  const Tensor<T> saved = f.keeps_output() ? y : x.value();
  return record<T>(name, y, {x}, [saved, f, cost](const Tensor<T>& dy) {
    return std::vector{map(
        cost, [f](V v, V dv) { return f.backward(v, dv); }, saved, dy)};
  });
}

}  // namespace detail

/// max(x, 0).
template <class T>
Variable<T> relu(const Variable<T>& x) {
  return detail::activation("relu", x, kernels::Relu{}, 1);
}

/// x where x > 0, else negative_slope * x.
template <class T>
Variable<T> leaky_relu(const Variable<T>& x, double negative_slope = 0.01) {
  return detail::activation("leaky_relu", x, kernels::LeakyRelu<T>{static_cast<T>(negative_slope)},
                            1);
}

/// x where x > 0, else alpha * (exp(x) - 1).
template <class T>
Variable<T> elu(const Variable<T>& x, double alpha = 1) {
  return detail::activation("elu", x, kernels::Elu<T>{static_cast<T>(alpha)},
                            detail::function_cost);
}

/// x times the probability that a standard normal number is below x.
template <class T>
Variable<T> gelu(const Variable<T>& x, GeluApproximation approximate = GeluApproximation::none) {
  if (approximate == GeluApproximation::tanh)
    return detail::activation("gelu", x, kernels::GeluTanh{}, detail::function_cost);
  return detail::activation("gelu", x, kernels::Gelu{}, 4 * detail::function_cost);
}

/// x * sigmoid(x), also known as swish.
template <class T>
Variable<T> silu(const Variable<T>& x) {
  return detail::activation("silu", x, kernels::Silu{}, detail::function_cost);
}

/// 1 / (1 + exp(-x)).
template <class T>
Variable<T> sigmoid(const Variable<T>& x) {
  return detail::activation("sigmoid", x, kernels::Sigmoid{}, detail::function_cost);
}

/// The hyperbolic tangent.
template <class T>
Variable<T> tanh(const Variable<T>& x) {
  return detail::activation("tanh", x, kernels::Tanh{}, detail::function_cost);
}

}  // namespace minnow::inline MINNOW_ABI
