#pragma once
/// @file
/// Batch normalisation: `batch_norm`, `BatchNorm1d`, `BatchNorm2d`.

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>

#include "minnow/kernels/batch_norm.hpp"
#include "minnow/nn/module.hpp"
#include "minnow/nn/norm_checks.hpp"
#include "minnow/nn/parameters.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Normalises each channel of x [N, C, *], then scales by gamma [C] and shifts by beta [C], where
/// defined.
///
/// In training by the mean and biased variance of the channel in this batch; running_mean and
/// running_var [C], where defined, are changed in place by `momentum`, the weight of the new value
/// (the variance that goes there is the unbiased one). Otherwise by running_mean and running_var,
/// which must be defined then.
///
/// Errors: ShapeError for x without a channel axis, for parameters or statistics of another shape
/// than [C], and for a single value per channel in training; Error for missing statistics outside
/// of training.
template <class T>
Variable<T> batch_norm(const Variable<T>& x, Tensor<T> running_mean, Tensor<T> running_var,
                       const Variable<T>& gamma = {}, const Variable<T>& beta = {},
                       bool training = false, double momentum = 0.1, double eps = 1e-5) {
  const Shape& shape = x.shape();
  check<ShapeError>(shape.rank() >= 2, "batch_norm: x has shape ", shape,
                    ", expected [N, C] or [N, C, ...]");
  const Index n = shape[0], c = shape[1], hw = shape.product(2, shape.rank());
  const Shape channels{c};
  detail::check_affine("batch_norm", x, gamma, beta, channels);
  detail::check_running("batch_norm", x, running_mean, running_var);
  check<ShapeError>(
      !training || n * hw != 1,
      "batch_norm: expected more than 1 value per channel when training, got x of shape ", shape,
      "; use a larger batch, drop the last incomplete one, or call eval()");
  check(training || (running_mean.defined() && running_var.defined()),
        "batch_norm: without running_mean and running_var only training is possible");

  Tensor<T> y(shape), mean(channels), rstd(channels);
  if (training) {
    const bool tracks = x.size() > 0;  // of nothing there is nothing to learn
    kernels::batch_norm_forward(
        y.data(), mean.data(), rstd.data(), tracks ? running_mean.data() : nullptr,
        tracks ? running_var.data() : nullptr, x.value().data(), detail::data_or_null(gamma),
        detail::data_or_null(beta), n, c, hw, eps, momentum);
  } else {
    mean.copy_from(running_mean);
    kernels::batch_norm_inference(y.data(), rstd.data(), x.value().data(), mean.data(),
                                  running_var.data(), detail::data_or_null(gamma),
                                  detail::data_or_null(beta), n, c, hw, eps);
  }
  return record(
      "batch_norm", std::move(y), {x, gamma, beta},
      [value = x.value(), mean, rstd, gamma, channels, n, c, hw, training,
       wants_dx = x.requires_grad(), wants_dgamma = gamma.requires_grad(),
       wants_dbeta = beta.requires_grad()](const Tensor<T>& dy) -> std::vector<Tensor<T>> {
        auto dx = detail::gradient_if<T>(wants_dx, value.shape());
        auto dgamma = detail::gradient_if<T>(wants_dgamma, channels);
        auto dbeta = detail::gradient_if<T>(wants_dbeta, channels);
        kernels::batch_norm_backward(dx.data(), dgamma.data(), dbeta.data(), dy.data(),
                                     value.data(), mean.data(), rstd.data(),
                                     detail::data_or_null(gamma), n, c, hw, !training);
        return {dx, dgamma, dbeta};
      });
}

struct BatchNormOptions {
  double eps = 1e-5;
  /// The weight of the new value in the running statistics; without a value they are the mean over
  /// all batches so far.
  std::optional<double> momentum = 0.1;
  bool affine = true;
  bool track_running_stats = true;
};

/// What BatchNorm1d and BatchNorm2d share.
///
/// Parameters: weight [C], ones, and bias [C], zeros, with `affine`. Buffers: running_mean [C],
/// zeros, running_var [C], ones, and num_batches_tracked, an integer, with `track_running_stats`.
/// Without them the batch's own statistics are used in evaluation, too.
template <class T>
class BatchNorm : public Module<T> {
 public:
  Variable<T> forward(const Variable<T>& x) override {
    check_shape(x.shape());
    const bool update = this->is_training() && options_.track_running_stats;
    const bool own_statistics = this->is_training() || !options_.track_running_stats;
    const std::int64_t batches = update ? num_batches_tracked_[0] + 1 : 0;
    Variable<T> y = batch_norm(x, running_mean_, running_var_, weight_, bias_, own_statistics,
                               momentum_of(batches), options_.eps);
    if (update) num_batches_tracked_[0] = batches;
    return y;
  }

  /// Takes a batch's moments, one per channel, into the running statistics; does nothing unless
  /// this is training and tracks them. `forward` does the same by itself.
  void track(std::span<const kernels::Moments> batch) {
    if (!this->is_training() || !options_.track_running_stats) return;
    const std::int64_t batches = ++num_batches_tracked_[0];
    const double momentum = momentum_of(batches);
    for (Index c = 0; c < num_features_; ++c) {
      const kernels::Moments& m = batch[static_cast<std::size_t>(c)];
      kernels::move_running(running_mean_[c], m.mean, momentum);
      kernels::move_running(running_var_[c], m.m2 / (m.count - 1), momentum);
    }
  }

  Index num_features() const { return num_features_; }
  const BatchNormOptions& options() const { return options_; }
  /// Undefined without `affine`.
  const Variable<T>& weight() const { return weight_; }
  const Variable<T>& bias() const { return bias_; }
  /// Undefined without `track_running_stats`.
  const Tensor<T>& running_mean() const { return running_mean_; }
  const Tensor<T>& running_var() const { return running_var_; }
  const Tensor<std::int64_t>& num_batches_tracked() const { return num_batches_tracked_; }

 protected:
  BatchNorm(std::string_view name, Index num_features, const BatchNormOptions& options)
      : num_features_(num_features), options_(options) {
    check<ShapeError>(num_features > 0, name, ": ", num_features,
                      " features; at least one is needed");
    const Shape channels{num_features};
    if (options.affine) {
      weight_ = this->register_parameter("weight", Tensor<T>::ones(channels));
      bias_ = this->register_parameter("bias", Tensor<T>::zeros(channels));
    }
    if (options.track_running_stats) {
      running_mean_ = this->register_buffer("running_mean", Tensor<T>::zeros(channels));
      running_var_ = this->register_buffer("running_var", Tensor<T>::ones(channels));
      num_batches_tracked_ =
          this->register_buffer("num_batches_tracked", Tensor<std::int64_t>::scalar(0));
    }
  }

  /// Throws ShapeError unless x has a rank this class is for, and num_features channels.
  virtual void check_shape(const Shape& x) const = 0;

 private:
  double momentum_of(std::int64_t batches) const {
    return options_.momentum.value_or(1 / static_cast<double>(std::max<std::int64_t>(1, batches)));
  }

  Index num_features_;
  BatchNormOptions options_;
  Variable<T> weight_, bias_;
  Tensor<T> running_mean_, running_var_;
  Tensor<std::int64_t> num_batches_tracked_;
};

/// Batch normalisation of images [N, C, H, W].
///
///     nn::BatchNorm2d norm(8, {.momentum = std::nullopt});
///     const auto y = norm(x);  // of x's shape
///
/// Options: eps 1e-5, momentum 0.1, affine true, track_running_stats true; see BatchNorm.
/// Errors: ShapeError for another rank or number of channels, and for one value per channel in
/// training.
template <class T = float>
class BatchNorm2d : public BatchNorm<T> {
 public:
  explicit BatchNorm2d(Index num_features, const BatchNormOptions& options = {})
      : BatchNorm<T>("BatchNorm2d", num_features, options) {}
  std::string name() const override { return "BatchNorm2d"; }

 private:
  void check_shape(const Shape& x) const override {
    check<ShapeError>(x.rank() == 4 && x[1] == this->num_features(), "BatchNorm2d(",
                      this->num_features(), "): x has shape ", x, ", expected [N, ",
                      this->num_features(), ", H, W]");
  }
};

/// Batch normalisation of features [N, C] or sequences [N, C, L].
///
///     nn::BatchNorm1d norm(128);
///     const auto y = norm(x);  // of x's shape
///
/// Options: eps 1e-5, momentum 0.1, affine true, track_running_stats true; see BatchNorm.
/// Errors: ShapeError for another rank or number of channels, and for one value per channel in
/// training.
template <class T = float>
class BatchNorm1d : public BatchNorm<T> {
 public:
  explicit BatchNorm1d(Index num_features, const BatchNormOptions& options = {})
      : BatchNorm<T>("BatchNorm1d", num_features, options) {}
  std::string name() const override { return "BatchNorm1d"; }

 private:
  void check_shape(const Shape& x) const override {
    check<ShapeError>((x.rank() == 2 || x.rank() == 3) && x[1] == this->num_features(),
                      "BatchNorm1d(", this->num_features(), "): x has shape ", x, ", expected [N, ",
                      this->num_features(), "] or [N, ", this->num_features(), ", L]");
  }
};

}  // namespace minnow::inline MINNOW_ABI::nn
