#pragma once
/// @file
/// What a training program measures: running means, accuracy, a confusion matrix.

#include <cstdint>
#include <string>
#include <vector>

#include "minnow/core/format.hpp"
#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI::train {

/// The mean of values with weights: of batch losses, weighted by the batches' sizes.
class RunningMean {
 public:
  /// A value without weight counts for nothing, even NaN: the mean loss of an empty batch.
  void add(double value, Index weight = 1) {
    if (weight == 0) return;
    sum_ += value * static_cast<double>(weight);
    weight_ += weight;
  }
  /// 0 before the first value.
  double value() const { return weight_ > 0 ? sum_ / static_cast<double>(weight_) : 0; }
  Index weight() const { return weight_; }

 private:
  double sum_ = 0;
  Index weight_ = 0;
};

/// Each row's class: the position of its largest value, the first one of several. A row that holds
/// a NaN has no largest value and gets -1, so a network that has diverged is never right by chance.
///
/// `scores` is [N, classes], or [N, classes, 1, ...] as a convolution gives it.
/// Errors: ShapeError for any other shape.
template <class T>
std::vector<Index> predicted_classes(const Tensor<T>& scores) {
  check<ShapeError>(
      scores.rank() >= 2 && scores.shape().product(2, scores.rank()) == 1 && scores.size(1) > 0,
      "predicted_classes: scores have shape ", scores.shape(),
      ", expected [N, classes] or [N, classes, 1, 1]");
  const Index classes = scores.size(1);
  std::vector<Index> result(static_cast<std::size_t>(scores.size(0)));
  for (std::size_t n = 0; n < result.size(); ++n) {
    const T* row = scores.data() + static_cast<Index>(n) * classes;
    Index best = 0;
    for (Index c = 0; c < classes && best >= 0; ++c) {
      if (row[c] != row[c])
        best = -1;
      else if (row[c] > row[best])
        best = c;
    }
    result[n] = best;
  }
  return result;
}

/// Counts how often class `actual` was taken for class `predicted`.
class ConfusionMatrix {
 public:
  /// Errors: Error unless there is a class.
  explicit ConfusionMatrix(Index classes) : classes_(classes) {
    check(classes > 0, "ConfusionMatrix: ", classes, " classes, expected at least one");
    counts_.resize(static_cast<std::size_t>(classes * (classes + 1)));
  }

  /// Errors: ShapeError unless there are as many labels as scores, and as many classes as this
  /// matrix has; Error for a label outside [0, classes). Nothing is counted then.
  template <class T>
  void add(const Tensor<T>& scores, const Tensor<std::int64_t>& labels) {
    const std::vector<Index> predicted = predicted_classes(scores);
    check<ShapeError>(labels.size() == std::ssize(predicted), "ConfusionMatrix: ", labels.size(),
                      " labels for ", predicted.size(), " rows of scores");
    check<ShapeError>(scores.size(1) == classes_, "ConfusionMatrix: scores of shape ",
                      scores.shape(), " are for ", scores.size(1), " classes, the matrix is for ",
                      classes_);
    for (Index n = 0; n < labels.size(); ++n)
      check(labels[n] >= 0 && labels[n] < classes_, "ConfusionMatrix: label ", labels[n],
            " at position ", n, " is not in [0, ", classes_, ")");
    for (Index n = 0; n < labels.size(); ++n)
      ++counts_[position(labels[n], predicted[static_cast<std::size_t>(n)])];
  }

  Index classes() const { return classes_; }
  /// `predicted` -1 counts the rows that held a NaN. Errors: Error for any other number that is
  /// not in [0, classes), here and in `recall` and `precision`.
  Index count(Index actual, Index predicted) const {
    check(actual >= 0 && actual < classes_ && predicted >= -1 && predicted < classes_,
          "ConfusionMatrix: class ", actual, " taken for ", predicted, "; there are 0 to ",
          classes_ - 1);
    return counts_[position(actual, predicted)];
  }

  Index total() const {
    Index sum = 0;
    for (const Index count : counts_) sum += count;
    return sum;
  }
  Index correct() const {
    Index sum = 0;
    for (Index c = 0; c < classes_; ++c) sum += count(c, c);
    return sum;
  }
  /// The share of right predictions, from 0 to 1; 0 before the first.
  double accuracy() const { return ratio(correct(), total()); }
  /// The share of class `c` that was found; 0 if there was none.
  double recall(Index c) const {
    Index sum = 0;
    for (Index predicted = -1; predicted < classes_; ++predicted) sum += count(c, predicted);
    return ratio(count(c, c), sum);
  }
  /// The share of the predictions of class `c` that were right; 0 if there was none.
  double precision(Index c) const {
    Index sum = 0;
    for (Index actual = 0; actual < classes_; ++actual) sum += count(actual, c);
    return ratio(count(c, c), sum);
  }

  /// A table: a row for each actual class, a column for each prediction, recall at the end.
  std::string str() const {
    Index width = 5;
    for (const Index count : counts_)
      width = std::max<Index>(width, std::ssize(std::to_string(count)) + 1);
    std::string out = align_left("actual", 7);
    for (Index c = 0; c < classes_; ++c) out += align_right(std::to_string(c), width);
    out += align_right("recall", 10) + '\n';
    for (Index actual = 0; actual < classes_; ++actual) {
      out += align_right(std::to_string(actual), 6) + ' ';
      for (Index c = 0; c < classes_; ++c)
        out += align_right(std::to_string(count(actual, c)), width);
      out += align_right(fixed(100 * recall(actual), 2) + " %", 10) + '\n';
    }
    return out;
  }

 private:
  std::size_t position(Index actual, Index predicted) const {
    return static_cast<std::size_t>(actual * (classes_ + 1) + predicted + 1);
  }
  static double ratio(Index part, Index whole) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
  }

  Index classes_;
  std::vector<Index> counts_;  ///< a row of 1 + classes for each actual class; first the NaNs
};

/// The mean loss and the accuracy over the batches of a pass.
class PassMetrics {
 public:
  /// Errors: ShapeError unless there are as many labels as scores.
  template <class T>
  void add(double loss, const Tensor<T>& scores, const Tensor<std::int64_t>& labels) {
    const std::vector<Index> predicted = predicted_classes(scores);
    check<ShapeError>(labels.size() == std::ssize(predicted), "PassMetrics: ", labels.size(),
                      " labels for ", predicted.size(), " rows of scores");
    loss_.add(loss, labels.size());
    for (Index n = 0; n < labels.size(); ++n)
      correct_ += labels[n] >= 0 && labels[n] == predicted[static_cast<std::size_t>(n)] ? 1 : 0;
  }

  double loss() const { return loss_.value(); }
  /// From 0 to 1.
  double accuracy() const {
    return samples() > 0 ? static_cast<double>(correct_) / static_cast<double>(samples()) : 0;
  }
  Index samples() const { return loss_.weight(); }

 private:
  RunningMean loss_;
  Index correct_ = 0;
};

}  // namespace minnow::inline MINNOW_ABI::train
