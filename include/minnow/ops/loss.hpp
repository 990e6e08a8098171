#pragma once
/// @file
/// Losses: how far a prediction is from its target.

#include <limits>

#include "minnow/kernels/activations.hpp"
#include "minnow/kernels/loss.hpp"
#include "minnow/ops/elementwise.hpp"
#include "minnow/ops/reduce.hpp"
#include "minnow/ops/shape.hpp"
#include "minnow/ops/softmax.hpp"

namespace minnow::inline MINNOW_ABI {

/// What becomes of the losses of single elements or samples.
enum class Reduction {
  none,  ///< they are returned as they are
  mean,  ///< their (weighted) mean, a scalar
  sum,   ///< their sum, a scalar
};

template <class T>
struct CrossEntropyOptions {
  double label_smoothing = 0;        ///< this share of each target is spread over all classes
  Tensor<T> weight = {};             ///< [C]: how much each class counts; undefined: all the same
  std::int64_t ignore_index = -100;  ///< a label that counts for nothing
  Reduction reduction = Reduction::mean;
};

template <class T>
struct NllLossOptions {
  Tensor<T> weight = {};             ///< [C]: how much each class counts; undefined: all the same
  std::int64_t ignore_index = -100;  ///< a label that counts for nothing
  Reduction reduction = Reduction::mean;
};

struct MseLossOptions {
  Reduction reduction = Reduction::mean;
};

template <class T>
struct BinaryCrossEntropyOptions {
  Tensor<T> weight = {};  ///< how much each element counts, in a shape that can be repeated to x's
  Tensor<T> pos_weight = {};  ///< how much more a target of 1 counts, likewise
  Reduction reduction = Reduction::mean;
};

namespace detail {

inline void check_smoothing(double smoothing) {
  check(smoothing >= 0 && smoothing <= 1, "cross_entropy: label_smoothing ", smoothing,
        " must lie in [0, 1]");
}

template <class T>
void check_class_weight(const char* place, const Tensor<T>& weight, Index classes) {
  check<ShapeError>(!weight.defined() || weight.shape() == Shape{classes}, place,
                    ": weight has shape ", weight.shape(), ", expected [", classes,
                    "], one number per class");
}

/// Checks logits, labels and weight, and says how the kernels see them.
template <class T>
kernels::LabelTargets<T> label_targets(const char* place, const Variable<T>& x,
                                       const Tensor<std::int64_t>& labels, const Tensor<T>& weight,
                                       std::int64_t ignore_index, double smoothing) {
  const Index rank = x.rank();
  check<ShapeError>(rank >= 1, place, ": a scalar has no classes; expected [N, C, ...] or [C]");
  Shape expected;
  for (Index axis = 0; axis < rank; ++axis)
    if (rank > 1 && axis != 1) expected.push_back(x.size(axis));
  check(labels.defined(), place, ": the labels are undefined");
  check<ShapeError>(labels.shape() == expected, place, ": labels have shape ", labels.shape(),
                    "; an input of shape ", x.shape(), " needs labels of shape ", expected,
                    ", without the axis of the classes");
  const Index classes = rank > 1 ? x.size(1) : x.size(0);
  check_class_weight(place, weight, classes);
  for (Index i = 0; i < labels.size(); ++i)
    check(labels[i] == ignore_index || (labels[i] >= 0 && labels[i] < classes), place, ": label ",
          i, " is ", labels[i], "; with ", classes, " classes, labels are 0 to ", classes - 1,
          " (or ", ignore_index, ", which is ignored)");
  return {labels.data(), weight.defined() ? weight.data() : nullptr, rank > 1 ? x.size(0) : 1,
          classes,       rank > 1 ? x.shape().product(2, rank) : 1,  ignore_index,
          smoothing};
}

/// What the sum of the losses is divided by: for a mean, what the labels weigh; NaN for nothing.
template <class T>
double mean_count(const kernels::LabelTargets<T>& targets, Reduction reduction) {
  if (reduction != Reduction::mean) return 1;
  const double total = targets.total();
  return total == 0 ? std::numeric_limits<double>::quiet_NaN() : total;
}

/// `losses` as they are, or their sum divided by `count`.
template <class T>
Tensor<T> reduced(const Tensor<T>& losses, Reduction reduction, double count) {
  if (reduction == Reduction::none) return losses;
  return sum_axes(losses, Axes().of(losses.shape(), "loss"), false, count);
}

}  // namespace detail

/// The mean of -log p(label), where p is the softmax of the logits along axis 1.
///
/// logits [N, C], [N, C, d1, ...] or [C]; labels the same without the classes. Returns a scalar, or
/// for Reduction::none the labels' shape. With weights, a label counts as much as its class, and
/// the mean divides by the labels' weights. With smoothing s, the target is 1 - s at the label plus
/// s / C everywhere. A mean of nothing (all labels ignored, or of classes without weight) is NaN;
/// the gradient of what is ignored is 0. Errors: ShapeError for labels or a weight that do not fit;
/// Error for a label out of range, or a smoothing outside [0, 1].
///
///     cross_entropy(logits, labels, {.label_smoothing = 0.1}).backward();
template <class T>
Variable<T> cross_entropy(const Variable<T>& logits, const Tensor<std::int64_t>& labels,
                          const std::type_identity_t<CrossEntropyOptions<T>>& options = {}) {
  detail::check_smoothing(options.label_smoothing);
  // Copies, so that the backward sees the same if the caller fills them anew.
  const Tensor<std::int64_t> own_labels = labels.clone();
  const Tensor<T> weight = options.weight.clone();
  const auto targets = detail::label_targets("cross_entropy", logits, own_labels, weight,
                                             options.ignore_index, options.label_smoothing);
  Tensor<T> log_p(logits.shape()), losses(labels.shape());
  kernels::log_softmax_forward(log_p.data(), logits.value().data(), targets.outer, targets.classes,
                               targets.inner);
  kernels::nll_forward(losses.data(), log_p.data(), targets);
  const double count = detail::mean_count(targets, options.reduction);
  // `targets` points into both: the backward keeps them.
  return record<T>("cross_entropy", detail::reduced(losses, options.reduction, count), {logits},
                   [=, own_labels = own_labels, weight = weight,
                    reduction = options.reduction](const Tensor<T>& dy) {
                     Tensor<T> dx(log_p.shape());
                     kernels::cross_entropy_backward(dx.data(), dy.data(),
                                                     reduction == Reduction::none ? 1 : 0,
                                                     log_p.data(), targets, 1 / count);
                     return std::vector{dx};
                   });
}

/// The same for targets that are probabilities of the classes, of the logits' shape. A mean divides
/// by the number of positions; `ignore_index` has no meaning. Errors: ShapeError where shapes do
/// not fit.
template <class T>
Variable<T> cross_entropy(const Variable<T>& logits, const Tensor<T>& probabilities,
                          const std::type_identity_t<CrossEntropyOptions<T>>& options = {}) {
  detail::check_smoothing(options.label_smoothing);
  check<ShapeError>(logits.rank() >= 1 && probabilities.shape() == logits.shape(),
                    "cross_entropy: probabilities have shape ", probabilities.shape(),
                    ", expected that of the logits, ", logits.shape());
  const Index axis = logits.rank() > 1 ? 1 : 0, classes = logits.size(axis);
  detail::check_class_weight("cross_entropy", options.weight, classes);
  const T smoothing = static_cast<T>(options.label_smoothing);
  const auto smooth = [=](Pack<T> p, Pack<T> w) {
    return -w * fma(p, Pack<T>(1 - smoothing), Pack<T>(smoothing / static_cast<T>(classes)));
  };
  Shape per_class;
  for (Index i = 0; i < logits.rank(); ++i) per_class.push_back(i == axis ? classes : 1);
  const Tensor<T> weight =
      options.weight.defined() ? options.weight.reshape(per_class) : Tensor<T>::scalar(1);
  const Variable<T> shares = detail::map_to(logits.shape(), 1, smooth, probabilities, weight);
  const Variable<T> losses = sum(log_softmax(logits, axis) * shares, axis);
  if (options.reduction == Reduction::none) return losses;
  return options.reduction == Reduction::sum ? sum(losses) : mean(losses);
}

/// The mean of -log_p[label] for log-probabilities along axis 1, such as those of `log_softmax`.
/// Shapes, weights, mean and errors as in `cross_entropy`, which is faster than the two together.
template <class T>
Variable<T> nll_loss(const Variable<T>& log_p, const Tensor<std::int64_t>& labels,
                     const std::type_identity_t<NllLossOptions<T>>& options = {}) {
  const Tensor<std::int64_t> own_labels = labels.clone();
  const Tensor<T> weight = options.weight.clone();
  const auto targets =
      detail::label_targets("nll_loss", log_p, own_labels, weight, options.ignore_index, 0);
  Tensor<T> losses(labels.shape());
  kernels::nll_forward(losses.data(), log_p.value().data(), targets);
  const double count = detail::mean_count(targets, options.reduction);
  return record<T>("nll_loss", detail::reduced(losses, options.reduction, count), {log_p},
                   [=, own_labels = own_labels, weight = weight, reduction = options.reduction,
                    shape = log_p.shape()](const Tensor<T>& dy) {
                     Tensor<T> dx(shape);
                     kernels::nll_backward(dx.data(), dy.data(),
                                           reduction == Reduction::none ? 1 : 0, targets,
                                           1 / count);
                     return std::vector{dx};
                   });
}

/// The mean of (x - target)^2. Both have the same shape and may require a gradient.
/// Errors: ShapeError where the shapes differ.
template <class T>
Variable<T> mse_loss(const Variable<T>& x, const std::type_identity_t<Variable<T>>& target,
                     const MseLossOptions& options = {}) {
  using V = Pack<T>;
  const Reduction reduction = options.reduction;
  check<ShapeError>(x.shape() == target.shape(), "mse_loss: x has shape ", x.shape(),
                    ", target has shape ", target.shape(), "; they must be equal");
  // Copied unless it is a result, so that the backward sees the same if the caller fills it anew.
  const Tensor<T> a = x.value(), b = target.is_leaf() ? target.value().clone() : target.value();
  const double count = reduction == Reduction::mean ? static_cast<double>(x.size()) : 1;
  const Tensor<T> losses = detail::map(
      1, [](V v, V t) { return (v - t) * (v - t); }, a, b);
  return record<T>(
      "mse_loss", detail::reduced(losses, reduction, count), {x, target},
      [=, need_x = x.requires_grad(), need_target = target.requires_grad()](const Tensor<T>& dy) {
        const V factor(static_cast<T>(2 / count));
        const auto slope = [=](V d, V v, V t) { return d * factor * (v - t); };
        std::vector<Tensor<T>> gradients(2);
        if (need_x) gradients[0] = detail::map_to(a.shape(), 1, slope, dy, a, b);
        if (need_target) gradients[1] = detail::map_to(a.shape(), 1, slope, dy, b, a);
        return gradients;
      });
}

/// The mean of -w (p t log s + (1 - t) log(1 - s)), s = sigmoid(x), for targets t in [0, 1] of the
/// shape of x, weights w and weights p of the positives. Accurate for logits of any size. The
/// target is a constant. Errors: ShapeError where shapes do not fit.
template <class T>
Variable<T> binary_cross_entropy_with_logits(
    const Variable<T>& x, const Tensor<T>& target,
    const std::type_identity_t<BinaryCrossEntropyOptions<T>>& options = {}) {
  using V = Pack<T>;
  constexpr const char* place = "binary_cross_entropy_with_logits";
  check(target.defined(), place, ": the target is undefined");
  check<ShapeError>(x.shape() == target.shape(), place, ": x has shape ", x.shape(),
                    ", target has shape ", target.shape(), "; they must be equal");
  // Copies, so that the backward sees the same if the caller fills them anew.
  const auto copy_or_one = [](const Tensor<T>& tensor) {
    return tensor.defined() ? tensor.clone() : Tensor<T>::scalar(1);
  };
  const Tensor<T> own_target = target.clone(), weight = copy_or_one(options.weight),
                  positive = copy_or_one(options.pos_weight);
  const auto check_fits = [&](const Tensor<T>& tensor, const char* name) {
    check<ShapeError>(detail::broadcast_shape(x.shape(), tensor.shape(), place) == x.shape(), place,
                      ": ", name, " has shape ", tensor.shape(), ", which cannot be repeated to ",
                      x.shape());
  };
  check_fits(weight, "weight");
  check_fits(positive, "pos_weight");
  // A share of 0 of an infinite loss is none.
  const auto part = [](V share, V of) { return select_equal(share, V::zero(), share, share * of); };
  const auto loss = [=](V v, V t, V w, V p) {
    return w * (part(V(1) - t, kernels::softplus(v)) + part(p * t, kernels::softplus(-v)));
  };
  const auto slope = [](V d, V v, V t, V w, V p) {
    const auto [s, rest] = kernels::logistic(v);
    return d * w * ((V(1) - t) * s - p * t * rest);
  };
  const Tensor<T> logits = x.value();
  const double count = options.reduction == Reduction::mean ? static_cast<double>(x.size()) : 1;
  const Tensor<T> losses =
      detail::map_to(x.shape(), detail::function_cost, loss, logits, own_target, weight, positive);
  return record<T>(
      place, detail::reduced(losses, options.reduction, count), {x}, [=](const Tensor<T>& dy) {
        const V scale(static_cast<T>(1 / count));
        const auto scaled = [=](V d, V v, V t, V w, V p) { return slope(d * scale, v, t, w, p); };
        return std::vector{detail::map_to(logits.shape(), detail::function_cost, scaled, dy, logits,
                                          own_target, weight, positive)};
      });
}

}  // namespace minnow::inline MINNOW_ABI
