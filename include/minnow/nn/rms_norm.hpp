#pragma once
/// @file
/// RMS normalisation: `rms_norm`, `RMSNorm`.

#include <limits>
#include <optional>

#include "minnow/kernels/rms_norm.hpp"
#include "minnow/nn/module.hpp"
#include "minnow/nn/norm_checks.hpp"
#include "minnow/nn/parameters.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Divides x [*, normalized...] by its root mean square over the trailing axes, which have the
/// shape `normalized`, then scales by gamma, of shape `normalized`, where defined. Without a value,
/// eps is the distance from 1 to the next number of type T.
///
/// Errors: ShapeError unless x ends in `normalized`, and for gamma of another shape.
template <class T>
Variable<T> rms_norm(const Variable<T>& x, const Shape& normalized, const Variable<T>& gamma = {},
                     std::optional<double> eps = std::nullopt) {
  const Index rows = detail::count_rows("rms_norm", x.shape(), normalized),
              cols = normalized.size();
  detail::check_affine("rms_norm", x, gamma, {}, normalized);

  Tensor<T> y(x.shape()), rstd({rows});
  kernels::rms_norm_forward(y.data(), rstd.data(), x.value().data(), detail::data_or_null(gamma),
                            rows, cols, eps.value_or(double{std::numeric_limits<T>::epsilon()}));
  return record(
      "rms_norm", std::move(y), {x, gamma},
      [value = x.value(), rstd, gamma, normalized, rows, cols, wants_dx = x.requires_grad(),
       wants_dgamma = gamma.requires_grad()](const Tensor<T>& dy) -> std::vector<Tensor<T>> {
        auto dx = detail::gradient_if<T>(wants_dx, value.shape());
        auto dgamma = detail::gradient_if<T>(wants_dgamma, normalized);
        kernels::rms_norm_backward(dx.data(), dgamma.data(), dy.data(), value.data(), rstd.data(),
                                   detail::data_or_null(gamma), rows, cols);
        return {dx, dgamma};
      });
}

struct RMSNormOptions {
  /// Without a value, the distance from 1 to the next number of the layer's type.
  std::optional<double> eps = std::nullopt;
  bool elementwise_affine = true;
};

/// RMS normalisation over the trailing axes of x [*, normalized...]; the same in training and
/// evaluation.
///
///     nn::RMSNorm norm(768);  // or nn::RMSNorm({768})
///     const auto y = norm(x); // of x's shape
///
/// Parameters: weight, of the normalized shape, ones, with `elementwise_affine`. Options: eps the
/// machine's, elementwise_affine true. Errors: ShapeError for an empty shape, and for x that does
/// not end in the shape.
template <class T = float>
class RMSNorm : public Module<T> {
 public:
  explicit RMSNorm(const Shape& normalized_shape, const RMSNormOptions& options = {})
      : normalized_shape_(normalized_shape), options_(options) {
    detail::count_rows("RMSNorm", normalized_shape, normalized_shape);
    if (options.elementwise_affine)
      weight_ = this->register_parameter("weight", Tensor<T>::ones(normalized_shape));
  }
  explicit RMSNorm(std::initializer_list<Index> normalized_shape,
                   const RMSNormOptions& options = {})
      : RMSNorm(Shape(normalized_shape), options) {}
  explicit RMSNorm(Index last_axis, const RMSNormOptions& options = {})
      : RMSNorm(Shape{last_axis}, options) {}

  Variable<T> forward(const Variable<T>& x) override {
    detail::count_rows(text("RMSNorm(", normalized_shape_, ')'), x.shape(), normalized_shape_);
    return rms_norm(x, normalized_shape_, weight_, options_.eps);
  }
  std::string name() const override { return "RMSNorm"; }

  const Shape& normalized_shape() const { return normalized_shape_; }
  const RMSNormOptions& options() const { return options_; }
  /// Undefined without `elementwise_affine`.
  const Variable<T>& weight() const { return weight_; }

 private:
  Shape normalized_shape_;
  RMSNormOptions options_;
  Variable<T> weight_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
