#pragma once
/// @file
/// The fully connected layer: the differentiable function and the module.

#include <string>

#include "minnow/kernels/linear.hpp"
#include "minnow/nn/init.hpp"
#include "minnow/nn/module.hpp"

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
  check<ShapeError>(!bias.defined() || bias.shape() == Shape{out}, "linear: bias has shape ",
                    bias.defined() ? bias.shape() : Shape{}, ", expected ", Shape{out});
  const Index rows = x.shape().product(0, x.rank() - 1);
  Shape shape = x.shape();
  shape.set(-1, out);
  Tensor<T> y(shape);
  kernels::linear_forward(y.data(), x.value().data(), weight.value().data(),
                          bias.defined() ? bias.value().data() : nullptr, rows, in, out);
  std::vector<Variable<T>> inputs{x, weight};
  if (bias.defined()) inputs.push_back(bias);
  return record<T>(
      "linear", y, inputs,
      [rows, in, out, x = x.value(), weight = weight.value(), dx_needed = x.requires_grad(),
       dweight_needed = weight.requires_grad(), has_bias = bias.defined(),
       dbias_needed = bias.requires_grad()](const Tensor<T>& dy) {
        std::vector<Tensor<T>> gradients(has_bias ? 3 : 2);
        if (dx_needed) {
          gradients[0] = Tensor<T>(x.shape());
          kernels::linear_backward_data(gradients[0].data(), dy.data(), weight.data(), rows, in,
                                        out);
        }
        if (dweight_needed) {
          gradients[1] = Tensor<T>(weight.shape());
          kernels::linear_backward_weight(gradients[1].data(), dy.data(), x.data(), rows, in, out);
        }
        if (dbias_needed) {
          gradients[2] = Tensor<T>(Shape{out});
          kernels::linear_backward_bias(gradients[2].data(), dy.data(), rows, out);
        }
        return gradients;
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
