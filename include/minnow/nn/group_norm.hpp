#pragma once
/// @file
/// Group normalisation: `group_norm`, `GroupNorm`.

#include "minnow/kernels/group_norm.hpp"
#include "minnow/nn/module.hpp"
#include "minnow/nn/norm_checks.hpp"
#include "minnow/nn/parameters.hpp"

namespace minnow::inline MINNOW_ABI::nn {

namespace detail {

/// "1, 2, 7 or 14": the numbers of groups that `channels` can be divided into.
inline std::string divisors(Index channels) {
  std::string list, last = "1";
  for (Index groups = 2; groups <= channels; ++groups)
    if (channels % groups == 0) {
      list += (list.empty() ? "" : ", ") + last;
      last = std::to_string(groups);
    }
  return list.empty() ? last : list + " or " + last;
}

/// `place` is the function's or the module's name.
inline void check_groups(std::string_view place, Index groups, Index channels) {
  check<ShapeError>(channels > 0, place, '(', groups, ", ", channels, "): ", channels,
                    " channels; at least one is needed");
  if (groups > 0 && channels % groups == 0) return;
  throw ShapeError(text(place, '(', groups, ", ", channels, "): ", channels,
                        " channels cannot be divided into ", groups, " groups; ",
                        divisors(channels), " would work"));
}

}  // namespace detail

/// Normalises each of `groups` groups of channels of each image of x [N, C, *] by its mean and
/// biased variance, then scales by gamma [C] and shifts by beta [C], where defined.
///
/// Errors: ShapeError for x without a channel axis, channels that `groups` does not divide, and
/// parameters of another shape than [C].
template <class T>
Variable<T> group_norm(const Variable<T>& x, Index groups, const Variable<T>& gamma = {},
                       const Variable<T>& beta = {}, double eps = 1e-5) {
  const Shape& shape = x.shape();
  check<ShapeError>(shape.rank() >= 2, "group_norm: x has shape ", shape,
                    ", expected [N, C] or [N, C, ...]");
  const Index n = shape[0], c = shape[1], hw = shape.product(2, shape.rank());
  detail::check_groups("group_norm", groups, c);
  detail::check_affine("group_norm", x, gamma, beta, {c});

  Tensor<T> y(shape), mean({n, groups}), rstd({n, groups});
  kernels::group_norm_forward(y.data(), mean.data(), rstd.data(), x.value().data(),
                              detail::data_or_null(gamma), detail::data_or_null(beta), n, c, hw,
                              groups, eps);
  return record(
      "group_norm", std::move(y), {x, gamma, beta},
      [value = x.value(), mean, rstd, gamma, n, c, hw, groups, wants_dx = x.requires_grad(),
       wants_dgamma = gamma.requires_grad(),
       wants_dbeta = beta.requires_grad()](const Tensor<T>& dy) -> std::vector<Tensor<T>> {
        auto dx = detail::gradient_if<T>(wants_dx, value.shape());
        auto dgamma = detail::gradient_if<T>(wants_dgamma, {c});
        auto dbeta = detail::gradient_if<T>(wants_dbeta, {c});
        kernels::group_norm_backward(dx.data(), dgamma.data(), dbeta.data(), dy.data(),
                                     value.data(), mean.data(), rstd.data(),
                                     detail::data_or_null(gamma), n, c, hw, groups);
        return {dx, dgamma, dbeta};
      });
}

struct GroupNormOptions {
  double eps = 1e-5;
  bool affine = true;
};

/// Group normalisation of x [N, C, *] in groups of C / num_groups channels; the same in training
/// and evaluation, and for any batch size.
///
///     nn::GroupNorm norm(2, 8);
///     const auto y = norm(x);  // of x's shape
///
/// Parameters: weight [C], ones, and bias [C], zeros, with `affine`. Options: eps 1e-5, affine
/// true. Errors: ShapeError for groups that do not divide the channels, and for x with another
/// number of channels.
template <class T = float>
class GroupNorm : public Module<T> {
 public:
  GroupNorm(Index num_groups, Index num_channels, const GroupNormOptions& options = {})
      : num_groups_(num_groups), num_channels_(num_channels), options_(options) {
    detail::check_groups("GroupNorm", num_groups, num_channels);
    if (options.affine) {
      weight_ = this->register_parameter("weight", Tensor<T>::ones({num_channels}));
      bias_ = this->register_parameter("bias", Tensor<T>::zeros({num_channels}));
    }
  }

  Variable<T> forward(const Variable<T>& x) override {
    check<ShapeError>(x.rank() >= 2 && x.size(1) == num_channels_, "GroupNorm(", num_groups_, ", ",
                      num_channels_, "): x has shape ", x.shape(), ", expected [N, ", num_channels_,
                      ", ...]");
    return group_norm(x, num_groups_, weight_, bias_, options_.eps);
  }
  std::string name() const override { return "GroupNorm"; }

  Index num_groups() const { return num_groups_; }
  Index num_channels() const { return num_channels_; }
  const GroupNormOptions& options() const { return options_; }
  /// Undefined without `affine`.
  const Variable<T>& weight() const { return weight_; }
  const Variable<T>& bias() const { return bias_; }

 private:
  Index num_groups_, num_channels_;
  GroupNormOptions options_;
  Variable<T> weight_, bias_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
