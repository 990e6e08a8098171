#pragma once
/// @file
/// Layer normalisation: `layer_norm`, `LayerNorm`.

#include "minnow/kernels/layer_norm.hpp"
#include "minnow/nn/module.hpp"
#include "minnow/nn/norm_checks.hpp"
#include "minnow/nn/parameters.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Normalises x [*, normalized...] over its trailing axes, which have the shape `normalized`, by
/// their mean and biased variance, then scales by gamma and shifts by beta, of shape `normalized`,
/// where defined.
///
/// Errors: ShapeError unless x ends in `normalized`, and for parameters of another shape.
template <class T>
Variable<T> layer_norm(const Variable<T>& x, const Shape& normalized, const Variable<T>& gamma = {},
                       const Variable<T>& beta = {}, double eps = 1e-5) {
  const Shape& shape = x.shape();
  const Index rows = detail::count_rows("layer_norm", shape, normalized), cols = normalized.size();
  detail::check_affine("layer_norm", x, gamma, beta, normalized);

  Tensor<T> y(shape), mean({rows}), rstd({rows});
  kernels::layer_norm_forward(y.data(), mean.data(), rstd.data(), x.value().data(),
                              detail::data_or_null(gamma), detail::data_or_null(beta), rows, cols,
                              eps);
  return record(
      "layer_norm", std::move(y), {x, gamma, beta},
      [value = x.value(), mean, rstd, gamma, normalized, rows, cols, wants_dx = x.requires_grad(),
       wants_dgamma = gamma.requires_grad(),
       wants_dbeta = beta.requires_grad()](const Tensor<T>& dy) -> std::vector<Tensor<T>> {
        auto dx = detail::gradient_if<T>(wants_dx, value.shape());
        auto dgamma = detail::gradient_if<T>(wants_dgamma, normalized);
        auto dbeta = detail::gradient_if<T>(wants_dbeta, normalized);
        kernels::layer_norm_backward(dx.data(), dgamma.data(), dbeta.data(), dy.data(),
                                     value.data(), mean.data(), rstd.data(),
                                     detail::data_or_null(gamma), rows, cols);
        return {dx, dgamma, dbeta};
      });
}

struct LayerNormOptions {
  double eps = 1e-5;
  bool elementwise_affine = true;
  /// Whether there is a bias beside the weight.
  bool bias = true;
};

/// Layer normalisation over the trailing axes of x [*, normalized...]; the same in training and
/// evaluation.
///
///     nn::LayerNorm over_width(26);          // x [N, C, H, 26]: each row of an image by itself
///     nn::LayerNorm over_image({8, 26, 26}); // x [N, 8, 26, 26]: each image
///
/// Parameters, both of the normalized shape: weight, ones, with `elementwise_affine`, and bias,
/// zeros, with `elementwise_affine` and `bias`. Options: eps 1e-5, elementwise_affine true, bias
/// true. Errors: ShapeError for an empty shape, and for x that does not end in the shape.
template <class T = float>
class LayerNorm : public Module<T> {
 public:
  explicit LayerNorm(const Shape& normalized_shape, const LayerNormOptions& options = {})
      : normalized_shape_(normalized_shape), options_(options) {
    detail::count_rows("LayerNorm", normalized_shape, normalized_shape);
    if (!options.elementwise_affine) return;
    weight_ = this->register_parameter("weight", Tensor<T>::ones(normalized_shape));
    if (options.bias) bias_ = this->register_parameter("bias", Tensor<T>::zeros(normalized_shape));
  }
  explicit LayerNorm(std::initializer_list<Index> normalized_shape,
                     const LayerNormOptions& options = {})
      : LayerNorm(Shape(normalized_shape), options) {}
  explicit LayerNorm(Index last_axis, const LayerNormOptions& options = {})
      : LayerNorm(Shape{last_axis}, options) {}

  Variable<T> forward(const Variable<T>& x) override {
    detail::count_rows(text("LayerNorm(", normalized_shape_, ')'), x.shape(), normalized_shape_);
    return layer_norm(x, normalized_shape_, weight_, bias_, options_.eps);
  }
  std::string name() const override { return "LayerNorm"; }

  const Shape& normalized_shape() const { return normalized_shape_; }
  const LayerNormOptions& options() const { return options_; }
  /// Undefined without `elementwise_affine`.
  const Variable<T>& weight() const { return weight_; }
  const Variable<T>& bias() const { return bias_; }

 private:
  Shape normalized_shape_;
  LayerNormOptions options_;
  Variable<T> weight_, bias_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
