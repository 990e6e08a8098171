#include "minnow/train/metrics.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace minnow;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

Tensor<float> scores() {
  return Tensor<float>({5, 3}, {1, 2, 3,             // 2
                                -1, -2, -3,          // 0
                                0, 4, 4,             // 1: the first of two
                                0, not_a_number, 9,  // none
                                -infinity, -infinity, 0});
}

}  // namespace

TEST_CASE("a running mean weighs by the batches' sizes") {
  train::RunningMean mean;
  CHECK(mean.value() == 0);
  mean.add(1.0, 128);
  mean.add(4.0, 64);
  CHECK(mean.value() == doctest::Approx(2.0));
  CHECK(mean.weight() == 192);
  mean.add(std::numeric_limits<double>::quiet_NaN(), 0);
  CHECK(mean.value() == doctest::Approx(2.0));
}

TEST_CASE("the predicted class is the first largest score, and none where there is a NaN") {
  CHECK(train::predicted_classes(scores()) == std::vector<Index>{2, 0, 1, -1, 2});
  CHECK(train::predicted_classes(scores().reshape({5, 3, 1, 1})) ==
        std::vector<Index>{2, 0, 1, -1, 2});
  CHECK(train::predicted_classes(Tensor<float>({1, 2}, {not_a_number, 1})) ==
        std::vector<Index>{-1});
  CHECK(train::predicted_classes(Tensor<double>::zeros({0, 3})).empty());
  CHECK_THROWS_WITH_AS(
      train::predicted_classes(Tensor<float>::zeros({5, 3, 2})),
      "predicted_classes: scores have shape [5, 3, 2], expected [N, classes] or [N, classes, 1, 1]",
      ShapeError);
  CHECK_THROWS_AS(train::predicted_classes(Tensor<float>::zeros({5})), ShapeError);
}

TEST_CASE("the metrics of a pass are the mean loss and the share of right predictions") {
  train::PassMetrics metrics;
  CHECK(metrics.accuracy() == 0);
  metrics.add(0.5, scores(), Tensor<std::int64_t>({5}, {2, 0, 2, 0, 2}));
  metrics.add(2.0, Tensor<float>({1, 2}, {0, 1}), Tensor<std::int64_t>({1}, {1}));
  CHECK(metrics.samples() == 6);
  CHECK(metrics.accuracy() == doctest::Approx(4.0 / 6));
  CHECK(metrics.loss() == doctest::Approx((5 * 0.5 + 2.0) / 6));
  CHECK_THROWS_WITH_AS(metrics.add(1, scores(), Tensor<std::int64_t>({2}, {0, 1})),
                       "PassMetrics: 2 labels for 5 rows of scores", ShapeError);
}

TEST_CASE("a row of NaN is never right, whatever the label") {
  train::PassMetrics metrics;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  metrics.add(1, Tensor<float>({1, 2}, {nan, nan}), Tensor<std::int64_t>({1}, {-1}));
  CHECK(metrics.accuracy() == 0);
}

TEST_CASE("a confusion matrix counts what was taken for what") {
  train::ConfusionMatrix matrix(3);
  CHECK(matrix.accuracy() == 0);
  CHECK(matrix.recall(0) == 0);
  CHECK(matrix.precision(0) == 0);
  matrix.add(scores(), Tensor<std::int64_t>({5}, {2, 0, 2, 0, 2}));
  CHECK(matrix.classes() == 3);
  CHECK(matrix.total() == 5);
  CHECK(matrix.correct() == 3);
  CHECK(matrix.count(2, 2) == 2);
  CHECK(matrix.count(2, 1) == 1);
  CHECK(matrix.count(0, 0) == 1);
  CHECK(matrix.count(0, -1) == 1);
  CHECK(matrix.accuracy() == doctest::Approx(0.6));
  CHECK(matrix.recall(2) == doctest::Approx(2.0 / 3));
  CHECK(matrix.recall(0) == doctest::Approx(0.5));
  CHECK(matrix.precision(2) == 1);
  CHECK(matrix.precision(1) == 0);
  CHECK(matrix.str() ==
        "actual     0    1    2    recall\n"
        "     0     1    0    0   50.00 %\n"
        "     1     0    0    0    0.00 %\n"
        "     2     0    1    2   66.67 %\n");
}

TEST_CASE("a confusion matrix refuses what does not fit") {
  train::ConfusionMatrix matrix(3);
  CHECK_THROWS_WITH_AS(matrix.add(scores(), Tensor<std::int64_t>({2}, {0, 1})),
                       "ConfusionMatrix: 2 labels for 5 rows of scores", ShapeError);
  CHECK_THROWS_WITH_AS(
      matrix.add(Tensor<float>::zeros({1, 4}), Tensor<std::int64_t>({1}, {0})),
      "ConfusionMatrix: scores of shape [1, 4] are for 4 classes, the matrix is for 3", ShapeError);
  CHECK_THROWS_WITH_AS(matrix.add(scores(), Tensor<std::int64_t>({5}, {0, 1, 2, 3, 0})),
                       "ConfusionMatrix: label 3 at position 3 is not in [0, 3)", Error);
  CHECK(matrix.total() == 0);
  CHECK_THROWS_WITH_AS(matrix.count(2, 3), "ConfusionMatrix: class 2 taken for 3; there are 0 to 2",
                       Error);
  CHECK_THROWS_AS(matrix.count(-1, 0), Error);
  CHECK_THROWS_AS(matrix.recall(3), Error);
  CHECK_THROWS_AS(matrix.precision(3), Error);
  CHECK_THROWS_WITH_AS(train::ConfusionMatrix(0),
                       "ConfusionMatrix: 0 classes, expected at least one", Error);
}
