#pragma once
/// @file
/// Starting values of parameters: constant, uniform, normal, Kaiming and Xavier.

#include <cmath>
#include <concepts>

#include "minnow/autograd.hpp"
#include "minnow/core/random.hpp"
#include "minnow/tensor.hpp"

/// Every function overwrites the numbers of a tensor or a variable and returns the same handle, so
/// that both `init::zeros(bias)` and `register_parameter("bias", init::zeros(Tensor<T>({8})))` read
/// well. Nothing is recorded. Random numbers are drawn from a key, element i from its number i: the
/// same key gives the same numbers whatever the number of threads; without a key, from the default
/// generator.
namespace minnow::inline MINNOW_ABI::nn::init {

/// A tensor or variable of floating-point numbers.
template <class P>
concept Parameter = std::floating_point<typename P::value_type> &&
    (std::same_as<P, Tensor<typename P::value_type>> ||
     std::same_as<P, Variable<typename P::value_type>>);

/// How many inputs an output is computed from, and how many outputs an input enters.
struct Fan {
  Index in, out;
};

/// The fan of a weight [out, in] of a Linear or [out, in / groups, kh, kw] of a convolution.
/// Errors: ShapeError for a shape of fewer than two axes, which has no fan.
inline Fan calculate_fan(const Shape& weight) {
  check<ShapeError>(weight.rank() >= 2, "init: a tensor of shape ", weight,
                    " has no fan; a weight of shape [out, in, ...] is needed. For a bias use "
                    "uniform() or zeros()");
  const Index receptive_field = weight.product(2, weight.rank());
  return {weight[1] * receptive_field, weight[0] * receptive_field};
}

/// What a weight's values are meant to be followed by.
enum class Nonlinearity { linear, sigmoid, tanh, relu, leaky_relu, selu };

/// The factor by which weights are larger to make up for what the nonlinearity loses. `a` is the
/// negative slope of leaky_relu.
inline double calculate_gain(Nonlinearity nonlinearity, double a = 0.01) {
  switch (nonlinearity) {
    case Nonlinearity::tanh:
      return 5.0 / 3;
    case Nonlinearity::relu:
      return std::sqrt(2.0);
    case Nonlinearity::leaky_relu:
      return std::sqrt(2 / (1 + a * a));
    case Nonlinearity::selu:
      return 0.75;
    default:
      return 1;
  }
}

namespace detail {

template <class T>
Tensor<T>& values_of(Tensor<T>& tensor) {
  check<ShapeError>(tensor.defined(), "init: the tensor is undefined, give it a shape");
  return tensor;
}
template <class T>
Tensor<T>& values_of(Variable<T>& variable) {
  return variable.mutable_value();
}

}  // namespace detail

template <Parameter P>
P constant(P parameter, double value) {
  detail::values_of(parameter).fill(static_cast<typename P::value_type>(value));
  return parameter;
}
template <Parameter P>
P zeros(P parameter) {
  return constant(std::move(parameter), 0);
}
template <Parameter P>
P ones(P parameter) {
  return constant(std::move(parameter), 1);
}

/// Uniform in [low, high). Errors: Error where low > high.
template <Parameter P>
P uniform(P parameter, double low = 0, double high = 1,
          const RandomKey& key = default_generator().next()) {
  auto& tensor = detail::values_of(parameter);
  fill_uniform(tensor.data(), tensor.size(), low, high, key);
  return parameter;
}

/// Normal with the given mean and standard deviation. Errors: Error for a negative deviation.
template <Parameter P>
P normal(P parameter, double mean = 0, double deviation = 1,
         const RandomKey& key = default_generator().next()) {
  auto& tensor = detail::values_of(parameter);
  fill_normal(tensor.data(), tensor.size(), mean, deviation, key);
  return parameter;
}

/// Whether a Kaiming weight keeps the size of the activations (in) or of the gradients (out).
enum class FanMode { in, out };

struct KaimingOptions {
  double a = 0;  ///< negative slope of the leaky_relu that follows
  FanMode mode = FanMode::in;
  Nonlinearity nonlinearity = Nonlinearity::leaky_relu;
};

/// The standard deviation of Kaiming weights: gain / sqrt(fan).
///
/// Paper: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
inline double kaiming_deviation(const Shape& weight, const KaimingOptions& options = {}) {
  const Fan fan = calculate_fan(weight);
  return calculate_gain(options.nonlinearity, options.a) /
         std::sqrt(static_cast<double>(options.mode == FanMode::in ? fan.in : fan.out));
}

/// U(-bound, bound) with bound = sqrt(3) * gain / sqrt(fan).
template <Parameter P>
P kaiming_uniform(P weight, const KaimingOptions& options = {},
                  const RandomKey& key = default_generator().next()) {
  const double bound = std::sqrt(3.0) * kaiming_deviation(weight.shape(), options);
  return uniform(std::move(weight), -bound, bound, key);
}

/// N(0, deviation²) with deviation = gain / sqrt(fan).
template <Parameter P>
P kaiming_normal(P weight, const KaimingOptions& options = {},
                 const RandomKey& key = default_generator().next()) {
  const double deviation = kaiming_deviation(weight.shape(), options);
  return normal(std::move(weight), 0, deviation, key);
}

/// The standard deviation of Xavier weights: gain * sqrt(2 / (fan.in + fan.out)).
///
/// Paper: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural
/// networks", AISTATS 2010.
inline double xavier_deviation(const Shape& weight, double gain = 1) {
  const Fan fan = calculate_fan(weight);
  return gain * std::sqrt(2.0 / static_cast<double>(fan.in + fan.out));
}

/// U(-bound, bound) with bound = gain * sqrt(6 / (fan.in + fan.out)).
template <Parameter P>
P xavier_uniform(P weight, double gain = 1, const RandomKey& key = default_generator().next()) {
  const double bound = std::sqrt(3.0) * xavier_deviation(weight.shape(), gain);
  return uniform(std::move(weight), -bound, bound, key);
}

/// N(0, deviation²) with deviation = gain * sqrt(2 / (fan.in + fan.out)).
template <Parameter P>
P xavier_normal(P weight, double gain = 1, const RandomKey& key = default_generator().next()) {
  const double deviation = xavier_deviation(weight.shape(), gain);
  return normal(std::move(weight), 0, deviation, key);
}

/// What a Linear or a convolution starts from: U(-1 / sqrt(fan.in), 1 / sqrt(fan.in)). PyTorch
/// writes the same as Kaiming with a = sqrt(5).
template <Parameter P>
P default_weight(P weight, const RandomKey& key = default_generator().next()) {
  return kaiming_uniform(std::move(weight), {.a = std::sqrt(5.0)}, key);
}

/// The bias beside a weight of the given shape: uniform between the same bounds.
template <Parameter P>
P default_bias(P bias, const Shape& weight, const RandomKey& key = default_generator().next()) {
  const Index fan_in = calculate_fan(weight).in;
  const double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
  return uniform(std::move(bias), -bound, bound, key);
}

}  // namespace minnow::inline MINNOW_ABI::nn::init
