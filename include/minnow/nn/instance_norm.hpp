#pragma once
/// @file
/// Instance normalisation: `instance_norm`, `InstanceNorm2d`.

#include <optional>

#include "minnow/kernels/instance_norm.hpp"
#include "minnow/nn/batch_norm.hpp"
#include "minnow/nn/group_norm.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Normalises each channel of each image of x [N, C, *], then scales by gamma [C] and shifts by
/// beta [C], where defined.
///
/// With `use_input_stats` by the mean and biased variance of that channel of that image: this is
/// group_norm with C groups. running_mean and running_var [C], where defined, are changed in place
/// then by `momentum`, the weight of the new value: the mean over the batch of the means, and of
/// the unbiased variances. Otherwise by running_mean and running_var, which must be defined: this
/// is batch_norm in evaluation.
///
/// Errors: ShapeError for x without positions beside N and C, for parameters or statistics of
/// another shape than [C], and for a single position with `use_input_stats`; Error for missing
/// statistics without it.
template <class T>
Variable<T> instance_norm(const Variable<T>& x, Tensor<T> running_mean = {},
                          Tensor<T> running_var = {}, const Variable<T>& gamma = {},
                          const Variable<T>& beta = {}, bool use_input_stats = true,
                          double momentum = 0.1, double eps = 1e-5) {
  const Shape& shape = x.shape();
  check<ShapeError>(shape.rank() >= 3, "instance_norm: x has shape ", shape,
                    ", expected [N, C, ...]");
  const Index n = shape[0], c = shape[1], hw = shape.product(2, shape.rank());
  detail::check_affine("instance_norm", x, gamma, beta, {c});
  detail::check_running("instance_norm", x, running_mean, running_var);
  check<ShapeError>(!use_input_stats || hw != 1,
                    "instance_norm: expected more than 1 position per channel, got x of shape ",
                    shape, "; normalise before the last pooling, or use BatchNorm2d");
  check(use_input_stats || (running_mean.defined() && running_var.defined()),
        "instance_norm: without running_mean and running_var only the input's statistics can be "
        "used");
  if (!use_input_stats)
    return batch_norm(x, running_mean, running_var, gamma, beta, false, momentum, eps);
  if (x.size() > 0 && (running_mean.defined() || running_var.defined()))
    kernels::instance_norm_running(running_mean.data(), running_var.data(), x.value().data(), n, c,
                                   hw, momentum);
  return group_norm(x, c, gamma, beta, eps);
}

struct InstanceNormOptions {
  double eps = 1e-5;
  /// The weight of the new value in the running statistics; without a value they stay as they are.
  std::optional<double> momentum = 0.1;
  bool affine = false;
  bool track_running_stats = false;
};

/// Instance normalisation of images [N, C, H, W].
///
///     nn::InstanceNorm2d norm(8, {.affine = true});
///     const auto y = norm(x);  // of x's shape
///
/// Parameters: weight [C], ones, and bias [C], zeros, with `affine`. Buffers: running_mean [C],
/// zeros, running_var [C], ones, and num_batches_tracked, which stays 0, with
/// `track_running_stats`; they are used in evaluation. Options: eps 1e-5, momentum 0.1, affine
/// false, track_running_stats false. Errors: ShapeError for another rank or number of channels, and
/// for images of one position.
template <class T = float>
class InstanceNorm2d : public Module<T> {
 public:
  explicit InstanceNorm2d(Index num_features, const InstanceNormOptions& options = {})
      : num_features_(num_features), options_(options) {
    check<ShapeError>(num_features > 0, "InstanceNorm2d: ", num_features,
                      " features; at least one is needed");
    const Shape channels{num_features};
    if (options.affine) {
      weight_ = this->register_parameter("weight", Tensor<T>::ones(channels));
      bias_ = this->register_parameter("bias", Tensor<T>::zeros(channels));
    }
    if (options.track_running_stats) {
      running_mean_ = this->register_buffer("running_mean", Tensor<T>::zeros(channels));
      running_var_ = this->register_buffer("running_var", Tensor<T>::ones(channels));
      this->register_buffer("num_batches_tracked", Tensor<std::int64_t>::scalar(0));
    }
  }

  Variable<T> forward(const Variable<T>& x) override {
    check<ShapeError>(x.rank() == 4 && x.size(1) == num_features_, "InstanceNorm2d(", num_features_,
                      "): x has shape ", x.shape(), ", expected [N, ", num_features_, ", H, W]");
    const bool own_statistics = this->is_training() || !options_.track_running_stats;
    return instance_norm(x, running_mean_, running_var_, weight_, bias_, own_statistics,
                         options_.momentum.value_or(0), options_.eps);
  }
  std::string name() const override { return "InstanceNorm2d"; }

  Index num_features() const { return num_features_; }
  const InstanceNormOptions& options() const { return options_; }
  /// Undefined without `affine`.
  const Variable<T>& weight() const { return weight_; }
  const Variable<T>& bias() const { return bias_; }
  /// Undefined without `track_running_stats`.
  const Tensor<T>& running_mean() const { return running_mean_; }
  const Tensor<T>& running_var() const { return running_var_; }

 private:
  Index num_features_;
  InstanceNormOptions options_;
  Variable<T> weight_, bias_;
  Tensor<T> running_mean_, running_var_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
