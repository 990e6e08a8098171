#pragma once
/// @file
/// Dropout of elements and of whole channels.

#include "minnow/kernels/dropout.hpp"
#include "minnow/nn/module.hpp"

namespace minnow::inline MINNOW_ABI::nn {

namespace detail {

inline void check_probability(std::string_view place, double p) {
  check(p >= 0 && p <= 1, place, ": p = ", p, " is no probability; it must lie in [0, 1]");
}

}  // namespace detail

/// Sets each element to 0 with probability p and divides the others by 1 - p, so that the expected
/// value stays. Which elements are dropped follows from `key` and each element's place alone, by
/// the rule of `kernels::DropoutRule`; a byte an element is kept for the backward. p = 1 gives
/// zeros.
///
/// x has any shape; of rank 2 or more, its first axis counts the samples. Returns x itself unless
/// `training` and p > 0. Errors: Error unless 0 <= p <= 1.
///
/// Paper: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: a simple way to
/// prevent neural networks from overfitting", JMLR 15, 2014.
template <class T>
Variable<T> dropout(const Variable<T>& x, double p, const RandomKey& key, bool training = true) {
  detail::check_probability("dropout", p);
  if (!training || p == 0) return x;
  const Index samples = x.rank() >= 2 ? x.size(0) : 1;
  const Index size = x.rank() >= 2 ? x.shape().product(1, x.rank()) : x.size();
  const kernels::DropoutRule rule(key, p);
  Tensor<T> y(x.shape());
  Tensor<std::uint8_t> kept(x.shape());
  kernels::dropout_forward(y.data(), kept.data(), x.value().data(), samples, size, rule);
  return record<T>("dropout", std::move(y), {x}, [kept, scale = rule.scale](const Tensor<T>& dy) {
    Tensor<T> dx(dy.shape());
    kernels::dropout_backward(dx.data(), dy.data(), kept.data(), dx.size(), scale);
    return std::vector{dx};
  });
}

/// The same for whole channels: x is [N, C, ...], and x[n, c] is dropped or kept as one.
/// Errors: ShapeError for a rank below 3; Error unless 0 <= p <= 1.
///
/// Paper: Tompson, Goroshin, Jain, LeCun, Bregler, "Efficient object localization using
/// convolutional networks", CVPR 2015.
template <class T>
Variable<T> dropout2d(const Variable<T>& x, double p, const RandomKey& key, bool training = true) {
  detail::check_probability("dropout2d", p);
  check<ShapeError>(x.rank() >= 3, "dropout2d: x has shape ", x.shape(),
                    "; it drops channels of [N, C, H, W]. Use dropout for features");
  if (!training || p == 0) return x;
  const Index samples = x.size(0), channels = x.size(1), size = x.shape().product(2, x.rank());
  const kernels::DropoutRule rule(key, p);
  const auto apply = [=](const Tensor<T>& from) {
    Tensor<T> to(from.shape());
    kernels::dropout_channels(to.data(), from.data(), samples, channels, size, rule);
    return to;
  };
  return record<T>("dropout2d", apply(x.value()), {x},
                   [apply](const Tensor<T>& dy) { return std::vector{apply(dy)}; });
}

/// Dropout of single elements in training; the identity in evaluation.
///
/// Any shape to the same shape. p: the probability that an element is dropped, default 0.5. Each
/// call in training takes the next key of the `default_generator`, unless p is 0. Errors: Error
/// unless 0 <= p <= 1.
///
///     nn::Sequential model{nn::Linear(784, 100), nn::ReLU(), nn::Dropout(0.2),
///                          nn::Linear(100, 10)};
template <class T = float>
class Dropout : public Module<T> {
 public:
  explicit Dropout(double p = 0.5) : p_(p) { detail::check_probability("Dropout", p); }

  double p() const { return p_; }
  Variable<T> forward(const Variable<T>& x) override {
    if (!this->is_training() || p_ == 0) return x;
    return dropout(x, p_, default_generator().next());
  }
  std::string name() const override { return "Dropout"; }

 private:
  double p_;
};

/// Dropout of whole channels in training; the identity in evaluation.
///
/// [N, C, ...] of rank 3 or more to the same shape. p: the probability that a channel is dropped,
/// default 0.5. Each call in training takes the next key of the `default_generator`, unless p is 0.
/// Errors: Error unless 0 <= p <= 1, ShapeError for a rank below 3.
///
///     nn::Sequential model{nn::Conv2d(1, 8, 3), nn::Dropout2d(0.1), nn::ReLU()};
template <class T = float>
class Dropout2d : public Module<T> {
 public:
  explicit Dropout2d(double p = 0.5) : p_(p) { detail::check_probability("Dropout2d", p); }

  double p() const { return p_; }
  Variable<T> forward(const Variable<T>& x) override {
    if (!this->is_training() || p_ == 0) return x;
    return dropout2d(x, p_, default_generator().next());
  }
  std::string name() const override { return "Dropout2d"; }

 private:
  double p_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
