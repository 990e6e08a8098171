#pragma once
/// @file
/// The fully connected layer: the differentiable function and the module.

#include <string>

#include "minnow/kernels/linear.hpp"
#include "minnow/nn/init.hpp"
#include "minnow/nn/module.hpp"
#include "minnow/nn/parameters.hpp"

namespace minnow::inline MINNOW_ABI::nn {

struct LinearOptions {
  bool bias = true;
};

/// y = x weight^T + bias over the last axis: x [..., in], weight [out, in], bias [out] (undefined
/// for none), y [..., out].
///
/// Errors: ShapeError where the sizes do not fit.
template <class T>
Variable<T> linear(const Variable<T>& x, const Variable<T>& weight, const Variable<T>& bias = {}) {
  check<ShapeError>(weight.rank() == 2, "linear: weight has shape ", weight.shape(),
                    ", expected [out features, in features]");
  const Index in = weight.size(1), out = weight.size(0);
  check<ShapeError>(x.rank() >= 1 && x.size(-1) == in, "linear: x has shape ", x.shape(),
                    ", its last axis must have the ", in, " features of weight ", weight.shape(),
                    "; Flatten joins the axes of an image");
  detail::check_bias("linear", bias, out);
  const Index rows = x.shape().product(0, x.rank() - 1);
  Shape shape = x.shape();
  shape.set(-1, out);
  Tensor<T> y(shape);
  kernels::linear_forward(y.data(), x.value().data(), weight.value().data(),
                          detail::data_or_null(bias), rows, in, out);
  return record(
      "linear", std::move(y), {x, weight, bias},
      [rows, in, out, x = x.value(), weight = weight.value(), wants_dx = x.requires_grad(),
       wants_dweight = weight.requires_grad(),
       wants_dbias = bias.requires_grad()](const Tensor<T>& dy) -> std::vector<Tensor<T>> {
        auto dx = detail::gradient_if<T>(wants_dx, x.shape());
        auto dweight = detail::gradient_if<T>(wants_dweight, weight.shape());
        auto dbias = detail::gradient_if<T>(wants_dbias, {out});
        if (wants_dx)
          kernels::linear_backward_data(dx.data(), dy.data(), weight.data(), rows, in, out);
        if (wants_dweight)
          kernels::linear_backward_weight(dweight.data(), dy.data(), x.data(), rows, in, out);
        if (wants_dbias) kernels::linear_backward_bias(dbias.data(), dy.data(), rows, out);
        return {dx, dweight, dbias};
      });
}

/// Fully connected layer: x [..., in_features] -> y [..., out_features]; see `linear`.
///
/// Parameters `weight` [out_features, in_features] and, unless `.bias = false`, `bias`
/// [out_features]; both start uniform in +-1 / sqrt(in_features), as PyTorch's.
///
///     nn::Linear head(50, 10);
template <class T = float>
class Linear : public Module<T> {
 public:
  Linear(Index in_features, Index out_features, const LinearOptions& options = {}) {
    check<ShapeError>(in_features > 0 && out_features > 0, "Linear(", in_features, ", ",
                      out_features, "): the numbers of features must be positive");
    const Shape shape{out_features, in_features};
    weight_ = this->register_parameter("weight", init::default_weight(Tensor<T>(shape)));
    if (options.bias)
      bias_ = this->register_parameter("bias",
                                       init::default_bias(Tensor<T>(Shape{out_features}), shape));
  }

  Variable<T> forward(const Variable<T>& x) override { return linear(x, weight_, bias_); }
  std::string name() const override { return "Linear"; }

  const Variable<T>& weight() const { return weight_; }
  /// Undefined without a bias.
  const Variable<T>& bias() const { return bias_; }

 private:
  Variable<T> weight_, bias_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
