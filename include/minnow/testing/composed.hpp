#pragma once
/// @file
/// Every layer once more, put together from the plain operations of ops/ by its defining formula:
/// slow, short, and what the fast kernels are compared with. An undefined gamma, beta, bias or
/// weight is left out. Options mean what they mean in the layers.

#include <limits>
#include <numbers>
#include <string_view>
#include <vector>

#include "minnow/ops/matmul.hpp"
#include "minnow/ops/reduce.hpp"
#include "minnow/ops/shape.hpp"

namespace minnow::inline MINNOW_ABI::testing::composed {

namespace detail {

/// 1 where `predicate` holds for the element of x, 0 elsewhere; a constant.
template <class T, class Predicate>
Variable<T> mask(const Variable<T>& x, const Predicate& predicate) {
  Tensor<T> result(x.shape());
  for (Index i = 0; i < x.size(); ++i) result[i] = predicate(x.value()[i]) ? T(1) : T(0);
  return result;
}

/// One number per channel, in a shape that fits [N, C, ...].
template <class T>
Variable<T> per_channel(const Variable<T>& v, Index rank) {
  Shape shape;
  for (Index axis = 0; axis < rank; ++axis) shape.push_back(axis == 1 ? v.size() : 1);
  return reshape(v, shape);
}

template <class T>
Variable<T> affine(Variable<T> x, const Variable<T>& gamma, const Variable<T>& beta) {
  if (gamma.defined()) x = x * gamma;
  if (beta.defined()) x = x + beta;
  return x;
}
template <class T>
Variable<T> channel_affine(const Variable<T>& x, const Variable<T>& gamma,
                           const Variable<T>& beta) {
  return affine(x, gamma.defined() ? per_channel(gamma, x.rank()) : gamma,
                beta.defined() ? per_channel(beta, x.rank()) : beta);
}

/// (x - mean) / sqrt(biased variance + eps), both over `axes`.
template <class T>
Variable<T> standardize(const Variable<T>& x, const Axes& axes, double eps) {
  return (x - mean(x, axes, true)) / sqrt(variance(x, axes, true, 0) + T(eps));
}

inline Axes trailing_axes(Index count) {
  std::vector<Index> axes;
  for (Index axis = 1; axis <= count; ++axis) axes.push_back(-axis);
  return Axes(axes);
}

/// How many windows of `kernel` entries, `dilation` apart, fit into `size`.
inline Index window_count(Index size, Index kernel, Index stride, Index padding, Index dilation,
                          bool ceil_mode) {
  const Index room = size + 2 * padding - dilation * (kernel - 1) - 1;
  Index count = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  // With ceil_mode, a window must begin within the input or the padding before it.
  if (ceil_mode && (count - 1) * stride >= size + padding) --count;
  return count;
}

/// The windows of an image [N, C, H, W]: entry (i, j) of each of them as an image [N, C, OH, OW],
/// for all i and j row by row. Around the image lies `padding_value`, and where ceil_mode lets
/// windows reach further still, `beyond_value`.
template <class T>
std::vector<Variable<T>> windows(const Variable<T>& x, Size2 kernel, Size2 stride, Size2 padding,
                                 Size2 dilation, bool ceil_mode, T padding_value, T beyond_value) {
  const Index oh = window_count(x.size(2), kernel.h, stride.h, padding.h, dilation.h, ceil_mode);
  const Index ow = window_count(x.size(3), kernel.w, stride.w, padding.w, dilation.w, ceil_mode);
  Variable<T> image = pad(x, 2, padding.h, padding.h, padding_value);
  image = pad(image, 3, padding.w, padding.w, padding_value);
  const auto extend = [&](Index axis, Index end) {
    image = pad(image, axis, 0, std::max<Index>(0, end - image.size(axis)), beyond_value);
  };
  extend(2, (oh - 1) * stride.h + dilation.h * (kernel.h - 1) + 1);
  extend(3, (ow - 1) * stride.w + dilation.w * (kernel.w - 1) + 1);
  std::vector<Variable<T>> result;
  for (Index i = 0; i < kernel.h; ++i)
    for (Index j = 0; j < kernel.w; ++j) {
      const Index h = i * dilation.h, w = j * dilation.w;
      const auto rows = slice(image, 2, h, h + (oh - 1) * stride.h + 1, stride.h);
      result.push_back(slice(rows, 3, w, w + (ow - 1) * stride.w + 1, stride.w));
    }
  return result;
}

template <class T>
Variable<T> add_all(const std::vector<Variable<T>>& terms) {
  Variable<T> total = terms.front();
  for (std::size_t i = 1; i < terms.size(); ++i) total = total + terms[i];
  return total;
}

/// The losses as they are ("none"), their sum, or their sum divided by `count` ("mean").
template <class T>
Variable<T> reduce(const Variable<T>& losses, std::string_view reduction, double count) {
  check(reduction == "none" || reduction == "sum" || reduction == "mean", "no reduction '",
        reduction, "'");
  if (reduction == "none") return losses;
  return reduction == "sum" ? sum(losses) : sum(losses) / T(count);
}

}  // namespace detail

// --- Normalisation -------------------------------------------------------------------------------

template <class T>
struct BatchNormResult {
  Variable<T> y;
  Tensor<T> mean, variance;  ///< of the batch, one number per channel; the variance is biased
};

/// x [N, C, ...]; statistics over all axes but the second.
template <class T>
BatchNormResult<T> batch_norm(const Variable<T>& x, const Variable<T>& gamma,
                              const Variable<T>& beta, double eps) {
  std::vector<Index> list;
  for (Index axis = 0; axis < x.rank(); ++axis)
    if (axis != 1) list.push_back(axis);
  const Axes axes(list);
  return {detail::channel_affine(detail::standardize(x, axes, eps), gamma, beta),
          mean(x, axes).value(), variance(x, axes, false, 0).value()};
}

/// The same with given statistics.
template <class T>
Variable<T> batch_norm_eval(const Variable<T>& x, const Tensor<T>& mean, const Tensor<T>& variance,
                            const Variable<T>& gamma, const Variable<T>& beta, double eps) {
  const auto centre = detail::per_channel(Variable<T>(mean), x.rank());
  const auto spread = detail::per_channel(Variable<T>(variance), x.rank());
  return detail::channel_affine((x - centre) / sqrt(spread + T(eps)), gamma, beta);
}

/// x [N, C, ...]; statistics per sample over each of `groups` runs of channels.
template <class T>
Variable<T> group_norm(const Variable<T>& x, Index groups, const Variable<T>& gamma,
                       const Variable<T>& beta, double eps) {
  const auto grouped = reshape(x, {x.size(0), groups, -1});
  return detail::channel_affine(reshape(detail::standardize(grouped, 2, eps), x.shape()), gamma,
                                beta);
}

/// x [N, C, ...]; statistics per sample and channel.
template <class T>
Variable<T> instance_norm(const Variable<T>& x, const Variable<T>& gamma, const Variable<T>& beta,
                          double eps) {
  return composed::group_norm(x, x.size(1), gamma, beta, eps);
}

/// Statistics over the last axes, which have the sizes `normalized_shape`, as have gamma and beta.
template <class T>
Variable<T> layer_norm(const Variable<T>& x, const Shape& normalized_shape,
                       const Variable<T>& gamma, const Variable<T>& beta, double eps) {
  const Axes axes = detail::trailing_axes(normalized_shape.rank());
  return detail::affine(detail::standardize(x, axes, eps), gamma, beta);
}

template <class T>
Variable<T> rms_norm(const Variable<T>& x, const Shape& normalized_shape, const Variable<T>& gamma,
                     double eps) {
  const Axes axes = detail::trailing_axes(normalized_shape.rank());
  return detail::affine(x / sqrt(mean(x * x, axes, true) + T(eps)), gamma, {});
}

// --- Linear maps, pooling, dropout ---------------------------------------------------------------

/// x [..., in], weight [out, in], bias [out].
template <class T>
Variable<T> linear(const Variable<T>& x, const Variable<T>& weight, const Variable<T>& bias) {
  return detail::affine(matmul(x, transpose(weight, 0, 1)), {}, bias);
}

/// x [N, C, H, W], weight [O, C / groups, KH, KW], bias [O].
template <class T>
Variable<T> conv2d(const Variable<T>& x, const Variable<T>& weight, const Variable<T>& bias,
                   Size2 stride, Size2 padding, Size2 dilation, Index groups) {
  const Index n = x.size(0), c = x.size(1), o = weight.size(0);
  const Size2 kernel(weight.size(2), weight.size(3));
  const auto taps = detail::windows(x, kernel, stride, padding, dilation, false, T(0), T(0));
  std::vector<Variable<T>> terms;
  for (const Variable<T>& tap : taps) {
    const Index k = static_cast<Index>(terms.size());
    const auto w = select(select(weight, 3, k % kernel.w), 2, k / kernel.w);
    terms.push_back(matmul(reshape(w, {groups, o / groups, c / groups}),
                           reshape(tap, {n, groups, c / groups, tap.size(2) * tap.size(3)})));
  }
  const auto y = reshape(detail::add_all(terms), {n, o, taps[0].size(2), taps[0].size(3)});
  return detail::channel_affine(y, {}, bias);
}

/// The first of several equal maxima gets the gradient. For finite x.
template <class T>
Variable<T> max_pool2d(const Variable<T>& x, Size2 kernel, Size2 stride, Size2 padding,
                       Size2 dilation = 1, bool ceil_mode = false) {
  constexpr T lowest = std::numeric_limits<T>::lowest();
  const auto taps =
      detail::windows(x, kernel, stride, padding, dilation, ceil_mode, lowest, lowest);
  Variable<T> y = taps.front();
  for (const Variable<T>& tap : taps) {
    Tensor<T> larger(y.shape());
    for (Index i = 0; i < y.size(); ++i) larger[i] = tap.value()[i] > y.value()[i] ? T(1) : T(0);
    y = tap * Variable<T>(larger) + y * (T(1) - Variable<T>(larger));
  }
  return y;
}

template <class T>
Variable<T> avg_pool2d(const Variable<T>& x, Size2 kernel, Size2 stride, Size2 padding,
                       bool ceil_mode = false, bool count_include_pad = true) {
  const auto total = [&](const Variable<T>& image, T padding_value) {
    return detail::add_all(
        detail::windows(image, kernel, stride, padding, 1, ceil_mode, padding_value, T(0)));
  };
  const Variable<T> ones = Tensor<T>::ones(Shape{1, 1, x.size(2), x.size(3)});
  return total(x, T(0)) / total(ones, count_include_pad ? T(1) : T(0));
}

/// Output i of `output.h` is the mean of rows floor(i H / output.h) up to ceil((i + 1) H /
/// output.h).
template <class T>
Variable<T> adaptive_avg_pool2d(const Variable<T>& x, Size2 output) {
  const auto along = [](const Variable<T>& image, Index axis, Index count) {
    const Index size = image.size(axis);
    std::vector<Variable<T>> means;
    for (Index i = 0; i < count; ++i) {
      const Index begin = i * size / count, end = ((i + 1) * size + count - 1) / count;
      means.push_back(mean(slice(image, axis, begin, end), axis, true));
    }
    return concat(means, axis);
  };
  return along(along(x, 2, output.h), 3, output.w);
}

/// `keep` holds 1 where x is kept and 0 where it is dropped, in a shape that fits x.
template <class T>
Variable<T> dropout(const Variable<T>& x, const Tensor<T>& keep, double p) {
  return x * Variable<T>(keep) / T(1 - p);
}

// --- Activations ---------------------------------------------------------------------------------

template <class T>
Variable<T> relu(const Variable<T>& x) {
  return x * detail::mask(x, [](T v) { return v > 0; });
}

template <class T>
Variable<T> leaky_relu(const Variable<T>& x, double negative_slope) {
  const auto positive = detail::mask(x, [](T v) { return v > 0; });
  return x * (positive + T(negative_slope) * (T(1) - positive));
}

template <class T>
Variable<T> elu(const Variable<T>& x, double alpha) {
  const auto positive = detail::mask(x, [](T v) { return v > 0; });
  return x * positive + T(alpha) * (exp(x * (T(1) - positive)) - T(1));
}

/// 1 / (1 + exp(-x)), by exponentials of negative numbers only.
template <class T>
Variable<T> sigmoid(const Variable<T>& x) {
  const auto positive = detail::mask(x, [](T v) { return v >= 0; });
  const auto e = exp(x * (T(1) - T(2) * positive));
  return (positive + e * (T(1) - positive)) / (e + T(1));
}

template <class T>
Variable<T> tanh(const Variable<T>& x) {
  return T(2) * composed::sigmoid(T(2) * x) - T(1);
}

template <class T>
Variable<T> silu(const Variable<T>& x) {
  return x * composed::sigmoid(x);
}

template <class T>
Variable<T> gelu(const Variable<T>& x) {
  return x * T(0.5) * (erf(x * T(1 / std::numbers::sqrt2)) + T(1));
}

/// The approximation of gelu by a hyperbolic tangent.
template <class T>
Variable<T> gelu_tanh(const Variable<T>& x) {
  const T factor = std::sqrt(T(2) * std::numbers::inv_pi_v<T>);
  return x * T(0.5) * (composed::tanh(factor * (x + T(0.044715) * x * x * x)) + T(1));
}

template <class T>
Variable<T> log_softmax(const Variable<T>& x, Index axis) {
  const auto z = x - max(x, axis, true).detach();
  return z - log(sum(exp(z), axis, true));
}

template <class T>
Variable<T> softmax(const Variable<T>& x, Index axis) {
  const auto e = exp(x - max(x, axis, true).detach());
  return e / sum(e, axis, true);
}

// --- Losses --------------------------------------------------------------------------------------

/// log_p [N, C, ...] of log-probabilities, target [N, ...] of class numbers, weight [C]. Reduction
/// is "mean" (by the targets' weights), "sum" or "none". Label smoothing spreads that share of each
/// target evenly over the classes.
template <class T>
Variable<T> nll_loss(const Variable<T>& log_p, const Tensor<std::int64_t>& target,
                     const Tensor<T>& weight = {}, std::int64_t ignore_index = -100,
                     std::string_view reduction = "mean", double label_smoothing = 0) {
  const Index classes = log_p.size(1);
  std::vector<Index> order;
  for (Index axis = 0; axis < log_p.rank(); ++axis)
    if (axis != 1) order.push_back(axis);
  order.push_back(1);
  const auto rows = reshape(permute(log_p, Axes(order)), {target.size(), classes});
  auto share = Tensor<T>::zeros(rows.shape());
  double count = 0;
  for (Index i = 0; i < target.size(); ++i) {
    if (target[i] == ignore_index) continue;
    const auto weight_of = [&](Index c) { return weight.defined() ? double{weight[c]} : 1.0; };
    for (Index c = 0; c < classes; ++c)
      share(i, c) = static_cast<T>(weight_of(c) * ((c == target[i] ? 1 - label_smoothing : 0) +
                                                   label_smoothing / static_cast<double>(classes)));
    count += weight_of(target[i]);
  }
  const auto losses = reshape(-sum(rows * Variable<T>(share), 1), target.shape());
  return detail::reduce(losses, reduction, count);
}

/// The same of logits.
template <class T>
Variable<T> cross_entropy(const Variable<T>& logits, const Tensor<std::int64_t>& target,
                          const Tensor<T>& weight = {}, std::int64_t ignore_index = -100,
                          std::string_view reduction = "mean", double label_smoothing = 0) {
  return composed::nll_loss(composed::log_softmax(logits, 1), target, weight, ignore_index,
                            reduction, label_smoothing);
}

template <class T>
Variable<T> mse_loss(const Variable<T>& x, const Variable<T>& target,
                     std::string_view reduction = "mean") {
  return detail::reduce(pow(x - target, 2), reduction, static_cast<double>(x.size()));
}

/// -w (p t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))), with weight w and pos_weight p in shapes
/// that fit x.
template <class T>
Variable<T> bce_with_logits(const Variable<T>& x, const Variable<T>& target,
                            const Variable<T>& weight = {}, const Variable<T>& pos_weight = {},
                            std::string_view reduction = "mean") {
  // log sigmoid(x) = min(x, 0) - log(1 + exp(-|x|))
  const auto negative = detail::mask(x, [](T v) { return v < 0; });
  const auto log_sigmoid = x * negative - log(exp(x * (T(2) * negative - T(1))) + T(1));
  const auto positives = pos_weight.defined() ? target * pos_weight : target;
  auto losses = (T(1) - target) * (x - log_sigmoid) - positives * log_sigmoid;
  if (weight.defined()) losses = losses * weight;
  return detail::reduce(losses, reduction, static_cast<double>(x.size()));
}

}  // namespace minnow::inline MINNOW_ABI::testing::composed
