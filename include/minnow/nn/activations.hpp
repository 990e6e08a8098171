#pragma once
/// @file
/// Activation functions as modules, for `Sequential`. None has parameters or behaves differently in
/// training; input and output have the same shape, which is any.
///
///     nn::Sequential model{nn::Linear(8, 16), nn::GELU(), nn::Linear(16, 4), nn::Softmax(1)};

#include "minnow/nn/module.hpp"
#include "minnow/ops/activations.hpp"
#include "minnow/ops/softmax.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// max(x, 0).
template <class T = float>
class ReLU : public Module<T> {
 public:
  Variable<T> forward(const Variable<T>& x) override { return relu(x); }
  std::string name() const override { return "ReLU"; }
};

/// x where x > 0, else negative_slope * x.
template <class T = float>
class LeakyReLU : public Module<T> {
 public:
  explicit LeakyReLU(double negative_slope = 0.01) : negative_slope_(negative_slope) {}

  double negative_slope() const { return negative_slope_; }
  Variable<T> forward(const Variable<T>& x) override { return leaky_relu(x, negative_slope_); }
  std::string name() const override { return "LeakyReLU"; }

 private:
  double negative_slope_;
};

/// x where x > 0, else alpha * (exp(x) - 1).
template <class T = float>
class ELU : public Module<T> {
 public:
  explicit ELU(double alpha = 1) : alpha_(alpha) {}

  double alpha() const { return alpha_; }
  Variable<T> forward(const Variable<T>& x) override { return elu(x, alpha_); }
  std::string name() const override { return "ELU"; }

 private:
  double alpha_;
};

/// x times the probability that a standard normal number is below x; exact, or by tanh.
template <class T = float>
class GELU : public Module<T> {
 public:
  explicit GELU(GeluApproximation approximate = GeluApproximation::none)
      : approximate_(approximate) {}

  GeluApproximation approximate() const { return approximate_; }
  Variable<T> forward(const Variable<T>& x) override { return gelu(x, approximate_); }
  std::string name() const override { return "GELU"; }

 private:
  GeluApproximation approximate_;
};

/// x * sigmoid(x).
template <class T = float>
class SiLU : public Module<T> {
 public:
  Variable<T> forward(const Variable<T>& x) override { return silu(x); }
  std::string name() const override { return "SiLU"; }
};

/// 1 / (1 + exp(-x)).
template <class T = float>
class Sigmoid : public Module<T> {
 public:
  Variable<T> forward(const Variable<T>& x) override { return sigmoid(x); }
  std::string name() const override { return "Sigmoid"; }
};

/// The hyperbolic tangent.
template <class T = float>
class Tanh : public Module<T> {
 public:
  Variable<T> forward(const Variable<T>& x) override { return minnow::tanh(x); }
  std::string name() const override { return "Tanh"; }
};

/// Positive numbers that sum to 1 along an axis. Errors: ShapeError if x has no such axis.
template <class T = float>
class Softmax : public Module<T> {
 public:
  explicit Softmax(Index axis = -1) : axis_(axis) {}

  Index axis() const { return axis_; }
  Variable<T> forward(const Variable<T>& x) override { return softmax(x, axis_); }
  std::string name() const override { return "Softmax"; }

 private:
  Index axis_;
};

/// The logarithm of softmax along an axis. Errors: ShapeError if x has no such axis.
template <class T = float>
class LogSoftmax : public Module<T> {
 public:
  explicit LogSoftmax(Index axis = -1) : axis_(axis) {}

  Index axis() const { return axis_; }
  Variable<T> forward(const Variable<T>& x) override { return log_softmax(x, axis_); }
  std::string name() const override { return "LogSoftmax"; }

 private:
  Index axis_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
