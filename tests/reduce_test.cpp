#include "minnow/ops/reduce.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "exact.hpp"
#include "minnow/core/parallel.hpp"
#include "variables.hpp"

using namespace minnow;
using namespace minnow_test;
using minnow::testing::compare;
using minnow::testing::same_bits;

namespace {

template <class T>
constexpr double tolerance = std::is_same_v<T, float> ? 1e-6 : 1e-13;

struct Case {
  Shape shape;
  std::vector<Index> axes;
};
const std::vector<Case> cases = {
    {{5}, {0}},
    {{4, 3}, {1}},
    {{4, 3}, {0}},
    {{4, 3}, {-1, 0}},
    {{4, 3}, {}},
    {{}, {}},
    {{2, 3, 4, 5}, {0, 2, 3}},
    {{2, 3, 4, 5}, {1}},
    {{2, 3, 4, 5}, {1, -1}},
    {{2, 3, 4, 5}, {0, 2}},
    {{2, 3, 4, 5}, {2, 1}},
    {{2, 3, 2, 3, 2, 3}, {0, 2, 4}},
    {{2, 3, 2, 3, 2, 3}, {1, 3, 5}},
    {{2, 1, 4, 1, 3}, {0, 2}},
    {{2, 1, 4, 1, 3}, {1}},
    {{2, 1, 4, 1, 3}, {3, 4}},
    {{1, 1}, {0}},
    {{3, 300}, {1}},
    {{300, 3}, {0}},
    {{2, 150, 130}, {1}},
    {{70000}, {0}},
};

/// Which element of the result, with size 1 on the chosen axes, position `i` of the shape goes to.
Index target(Index i, const Shape& shape, std::vector<bool> chosen) {
  Index offset = 0, stride = 1;
  for (Index axis = shape.rank() - 1; axis >= 0; --axis) {
    const Index at = i % shape[axis];
    i /= shape[axis];
    if (chosen[static_cast<std::size_t>(axis)]) continue;
    offset += at * stride;
    stride *= shape[axis];
  }
  return offset;
}

struct Expected {
  Shape shape, kept;
  Tensor<double> sum, mean, max, variance;
  Index count = 1;  ///< elements behind each result
  std::vector<Index> target;
};

template <class T>
Expected expected_of(const Tensor<T>& x, const std::vector<Index>& axes) {
  std::vector<bool> chosen(static_cast<std::size_t>(x.rank()), axes.empty());
  for (const Index axis : axes) chosen[static_cast<std::size_t>(x.shape().wrap(axis))] = true;
  Expected e;
  for (Index axis = 0; axis < x.rank(); ++axis) {
    const bool gone = chosen[static_cast<std::size_t>(axis)];
    e.kept.push_back(gone ? 1 : x.size(axis));
    if (gone)
      e.count *= x.size(axis);
    else
      e.shape.push_back(x.size(axis));
  }
  for (Index i = 0; i < x.size(); ++i) e.target.push_back(target(i, x.shape(), chosen));
  const auto at = [&](Index i) { return e.target[static_cast<std::size_t>(i)]; };
  e.sum = Tensor<double>::zeros(e.shape);
  e.max = Tensor<double>::full(e.shape, -std::numeric_limits<double>::infinity());
  e.mean = Tensor<double>::zeros(e.shape);
  e.variance = Tensor<double>::zeros(e.shape);
  const double n = static_cast<double>(e.count);
  for (Index i = 0; i < x.size(); ++i) {
    e.sum[at(i)] += static_cast<double>(x[i]);
    e.max[at(i)] = std::max(e.max[at(i)], static_cast<double>(x[i]));
  }
  for (Index i = 0; i < e.mean.size(); ++i) e.mean[i] = e.sum[i] / n;
  for (Index i = 0; i < x.size(); ++i)
    e.variance[at(i)] += std::pow(static_cast<double>(x[i]) - e.mean[at(i)], 2) / (n - 1);
  return e;
}

}  // namespace

TEST_CASE_TEMPLATE("reductions over any axes are the definition's", T, float, double) {
  for (const Case& c : cases) {
    const Shape& shape = c.shape;
    const std::vector<Index>& axes = c.axes;
    CAPTURE(shape.str());
    CAPTURE(Axes(axes).size());
    const Tensor<T> x = random_tensor<T>(shape, -1, 3);
    const Expected e = expected_of(x, axes);
    const Axes over(axes);
    const double relative = tolerance<T>;
    for (const bool keepdim : {false, true}) {
      const Shape& expected_shape = keepdim ? e.kept : e.shape;
      const auto check = [&](const Tensor<T>& actual, const Tensor<double>& expected) {
        CHECK(compare(actual, expected.reshape(expected_shape), relative, relative));
      };
      check(sum(Variable<T>(x), over, keepdim).value(), e.sum);
      check(mean(Variable<T>(x), over, keepdim).value(), e.mean);
      check(max(Variable<T>(x), over, keepdim).value(), e.max);
      if (e.count > 1) check(variance(Variable<T>(x), over, keepdim).value(), e.variance);
    }
  }
}

TEST_CASE_TEMPLATE("every element gets its share of the gradient", T, float, double) {
  for (const Case& c : cases) {
    const Shape& shape = c.shape;
    const std::vector<Index>& axes = c.axes;
    CAPTURE(shape.str());
    for (const bool keepdim : {false, true}) {
      const Variable<T> x = random_variable<T>(shape, -1, 3);
      const Expected e = expected_of(x.value(), axes);
      const Tensor<T> dy = random_tensor<T>(keepdim ? e.kept : e.shape, 1, 2, 1);
      Tensor<double> to_all(shape), to_mean(shape), to_largest(shape);
      for (Index i = 0; i < x.size(); ++i) {
        const Index at = e.target[static_cast<std::size_t>(i)];
        const bool largest = static_cast<double>(x.value()[i]) == e.max[at];
        to_all[i] = static_cast<double>(dy[at]);
        to_mean[i] = to_all[i] / static_cast<double>(e.count);
        to_largest[i] = largest ? to_all[i] : 0;
      }
      const auto check = [&](const Variable<T>& y, const Tensor<double>& expected) {
        Variable<T>(x).zero_grad();
        y.backward(dy);
        CHECK(compare(x.grad(), expected, tolerance<T>, 0));
      };
      check(sum(x, Axes(axes), keepdim), to_all);
      check(mean(x, Axes(axes), keepdim), to_mean);
      check(max(x, Axes(axes), keepdim), to_largest);
    }
  }
}

TEST_CASE("gradients of reductions agree with differences") {
  for (const Case& c : cases) {
    const Shape& shape = c.shape;
    const std::vector<Index>& list = c.axes;
    if (shape.size() > 200) continue;
    CAPTURE(shape.str());
    const Axes axes(list);
    const auto x = random_variable<double>(shape, -1, 3);
    for (const bool keepdim : {false, true}) {
      check_gradients([&](const auto& in) { return sum(in[0], axes, keepdim); }, {x});
      check_gradients([&](const auto& in) { return mean(in[0], axes, keepdim); }, {x});
      check_gradients([&](const auto& in) { return max(in[0], axes, keepdim); }, {x});
      if (expected_of(x.value(), list).count > 1)
        for (const double correction : {0.0, 1.0})
          check_gradients(
              [&](const auto& in) { return variance(in[0], axes, keepdim, correction); }, {x});
    }
  }
}

TEST_CASE("one axis needs no braces, and no axes mean all") {
  const auto x = random_variable<double>({3, 4, 5});
  CHECK(sum(x, 1).shape() == Shape{3, 5});
  CHECK(sum(x, -1, true).shape() == Shape{3, 4, 1});
  CHECK(same_bits(sum(x, 1).value(), sum(x, {1}).value()));
  CHECK(sum(x).shape() == Shape{});
  CHECK(mean(x, {}, true).shape() == Shape{1, 1, 1});
}

TEST_CASE("a sum of a million floats is the double's, rounded") {
  const Index size = 1000003;
  const auto x = random_tensor<float>({size}, 0, 1);
  double expected = 0, mean_expected = 0;
  for (Index i = 0; i < size; ++i) expected += static_cast<double>(x[i]);
  mean_expected = expected / static_cast<double>(size);
  CHECK(sum(Variable<float>(x)).item() == static_cast<float>(expected));
  CHECK(mean(Variable<float>(x)).item() == static_cast<float>(mean_expected));
  // Over the outer of two axes too.
  const auto columns = sum(Variable<float>(x.slice(0, 1000000).reshape({500000, 2})), 0).value();
  double even = 0;
  for (Index i = 0; i < 1000000; i += 2) even += static_cast<double>(x[i]);
  CHECK(columns[0] == static_cast<float>(even));
}

TEST_CASE("a sum in double keeps its documented bound") {
  // 1, and then numbers so small that adding them one by one to the sum loses each of them.
  const Index size = 1 << 20;
  const double tiny = 0x1.0p-54;
  auto x = Tensor<double>::full({size}, tiny);
  x[0] = 1;
  const double exact = 1 + static_cast<double>(size - 1) * tiny;
  CHECK(std::abs(sum(Variable<double>(x)).item() - exact) <
        static_cast<double>(size) / 32 * 0x1.0p-53);
}

TEST_CASE_TEMPLATE("sums, means and variances of hard numbers are finite and right", T, float,
                   double) {
  const Index rows = 4, cols = 1000;
  const auto shifted = Tensor<T>::normal({rows, cols}, 10000, 1, {9, 0, 0});
  const Expected e = expected_of(shifted, {1});
  CHECK(compare(mean(Variable<T>(shifted), 1).value(), e.mean, tolerance<T>, 0));
  CHECK(compare(variance(Variable<T>(shifted), 1).value(), e.variance,
                std::is_same_v<T, float> ? 2e-3 : 1e-10, 0));
  const Variable<T> constant = Tensor<T>::full({3, 77}, T(0.1));
  CHECK(compare(mean(constant, 1).value(), Tensor<T>::full({3}, T(0.1)), 1e-15, 0));
  CHECK(compare(variance(constant, 1).value(), Tensor<T>::zeros({3}), 0, 1e-30));
  const Variable<T> huge = Tensor<T>::full({3, 77}, T(1e30));
  CHECK(compare(sum(huge, 1).value(), Tensor<double>::full({3}, 77e30), tolerance<T>, 0));
  CHECK(compare(mean(huge, 1).value(), Tensor<T>::full({3}, T(1e30)), 0, 0));
  // The sum leaves the range of T on its way to a mean that is within it.
  const Variable<T> largest = Tensor<T>::full({40, 5}, std::numeric_limits<float>::max());
  CHECK(compare(mean(largest, {0, 1}).value(),
                Tensor<T>::full({}, std::numeric_limits<float>::max()), 0, 0));
}

TEST_CASE("largest elements that are equal share the gradient") {
  const Variable<double> x(Tensor<double>({2, 4}, {1, 5, 5, 5, 2, 2, 1, 0}), true);
  max(x, 1).backward(Tensor<double>({2}, {6, 8}));
  CHECK(same_bits(x.grad(), Tensor<double>({2, 4}, {0, 2, 2, 2, 4, 4, 0, 0})));
  Variable<double>(x).zero_grad();
  max(x).backward();
  CHECK(same_bits(x.grad(), Tensor<double>({2, 4}, {0, 1. / 3, 1. / 3, 1. / 3, 0, 0, 0, 0})));
}

TEST_CASE_TEMPLATE("a NaN is the largest, wherever it stands, and takes the gradient", T, float,
                   double) {
  const T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
  for (const Index size : {1, 2, 31, 32, 33, 100})
    for (const Index inner : {1, 3})
      for (Index place = 0; place < size; place += 1 + size / 5) {
        auto values = random_tensor<T>({size, inner});
        values(0, 0) = inf;
        values(place, inner - 1) = nan;
        const Variable<T> x(values, true);
        const Variable<T> y = max(x, 0);
        CHECK(std::isnan(y.value()[inner - 1]));
        if (inner > 1) CHECK(y.value()[0] == inf);
        CHECK(argmax(values, 0)[inner - 1] == place);
        y.backward(Tensor<T>::ones({inner}));
        CHECK(x.grad()(place, inner - 1) == 1);
        CHECK(sum(Variable<T>(x.grad())).item() == static_cast<T>(inner));
      }
  const Variable<T> lowest = Tensor<T>::full({50}, -inf);
  CHECK(max(lowest).item() == -inf);
}

TEST_CASE("of nothing the sum is 0, the mean NaN, and there is no largest") {
  const Variable<double> x(Tensor<double>({3, 0, 2}), true);
  CHECK(same_bits(sum(x, 1).value(), Tensor<double>::zeros({3, 2})));
  CHECK(sum(x).item() == 0);
  CHECK(std::isnan(mean(x).item()));
  CHECK(max(x, 0).shape() == Shape{0, 2});
  CHECK_THROWS_WITH_AS(
      max(x, 1), "max: shape [3, 0, 2] has no elements along the axes, so there is no largest",
      ShapeError);
  CHECK_THROWS_AS(max(x), ShapeError);
  CHECK_THROWS_WITH_AS(argmax(x.value(), 1), "argmax: axis 1 of shape [3, 0, 2] is empty",
                       ShapeError);
  sum(x).backward();
  CHECK(x.grad().shape() == Shape{3, 0, 2});
}

TEST_CASE("argmax finds the first of the largest along its axis") {
  const Tensor<float> x({2, 3, 2}, {1, 5, 7, 2, 7, 5, 0, 0, -1, 0, -2, 1});
  const auto along = argmax(x, 1);
  CHECK(along.shape() == Shape{2, 2});
  CHECK(same_bits(along, Tensor<std::int64_t>({2, 2}, {1, 0, 0, 2})));
  CHECK(same_bits(argmax(x), Tensor<std::int64_t>({2, 3}, {1, 0, 0, 0, 1, 1})));
  CHECK(same_bits(argmax(x, 0), argmax(x, -3)));
  CHECK(argmax(Tensor<std::uint8_t>({3}, {1, 200, 100})).item() == 1);
}

TEST_CASE("axes that are missing or named twice are refused by the operation's name") {
  const auto x = random_variable<float>({2, 3});
  CHECK_THROWS_WITH_AS(sum(x, 2), "sum: there is no axis 2 in shape [2, 3] of rank 2", ShapeError);
  CHECK_THROWS_WITH_AS(mean(x, {0, -3}), "mean: there is no axis -3 in shape [2, 3] of rank 2",
                       ShapeError);
  CHECK_THROWS_WITH_AS((max(x, {1, -1})), "max: axis -1 of shape [2, 3] is named more than once",
                       ShapeError);
  CHECK_THROWS_WITH_AS(variance(x, 7), doctest::Contains("variance: there is no axis 7"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(argmax(x.value(), 2), doctest::Contains("argmax: there is no axis 2"),
                       ShapeError);
  CHECK_THROWS_WITH_AS((Axes{0, 1, 2, 3, 4, 5, 6, 7, 8}), "Axes: 9 axes, at most 8 are supported",
                       ShapeError);
}

TEST_CASE_TEMPLATE("the kernels assign every output, from any address, and nothing else", T, float,
                   double) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const Index outer : {1, 2, 70})
    for (const Index reduced : {1, 2, 31, 33, 5000})
      for (const Index inner : {1, 2, 127, 129}) {
        if (outer * reduced * inner > 400000) continue;
        CAPTURE(outer);
        CAPTURE(reduced);
        CAPTURE(inner);
        const auto x = random_tensor<T>({outer * reduced * inner + 1}, -1, 2);
        std::vector<T> y(static_cast<std::size_t>(outer * inner + 2), nan);
        std::vector<T> largest = y;
        kernels::sum(y.data() + 1, x.data() + 1, outer, reduced, inner, 4);
        kernels::max(largest.data() + 1, x.data() + 1, outer, reduced, inner);
        for (Index o = 0; o < outer; ++o)
          for (Index c = 0; c < inner; ++c) {
            double total = 0, top = -10;
            for (Index r = 0; r < reduced; ++r) {
              const T value = x[1 + (o * reduced + r) * inner + c];
              total += static_cast<double>(value);
              top = std::max(top, static_cast<double>(value));
            }
            const auto at = static_cast<std::size_t>(1 + o * inner + c);
            REQUIRE(static_cast<double>(y[at]) == doctest::Approx(total / 4).epsilon(1e-6));
            REQUIRE(static_cast<double>(largest[at]) == top);
          }
        for (const auto& out : {y, largest}) {
          CHECK(std::isnan(out.front()));
          CHECK(std::isnan(out.back()));
        }
      }
}

TEST_CASE_TEMPLATE("reductions give the same bits with any number of threads", T, float, double) {
  const auto compute = [] {
    const auto x = random_variable<T>({64, 30, 70});
    std::vector<Tensor<T>> results;
    for (const Axes& axes : {Axes(), Axes(0), Axes(1), Axes(2), Axes{0, 2}}) {
      const auto y = sum(x, axes) + max(x, axes) * variance(x, axes);
      y.backward(random_tensor<T>(y.shape(), -1, 1, 3));
      results.push_back(y.value());
      results.push_back(x.grad().clone());
    }
    return results;
  };
  set_num_threads(1);
  const auto expected = compute();
  for (const int threads : {2, 4}) {
    set_num_threads(threads);
    const auto actual = compute();
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(actual[i], expected[i]));
  }
  set_num_threads(0);
}

TEST_CASE_TEMPLATE("sum_columns adds rows at a pitch in double", T, float, double) {
  using exact::Place;
  const Index blocks = 1000, cols = 35, pitch = 40;
  const auto partial = exact::normals<T>(blocks * pitch, 1);
  exact::Numbers<double> sums(cols, Place::unaligned), expected(cols, Place::exact, 0);
  kernels::sum_columns(sums.data(), partial.data(), blocks, cols, pitch);
  for (Index b = 0; b < blocks; ++b)
    for (Index j = 0; j < cols; ++j) expected[j] += static_cast<double>(partial[b * pitch + j]);
  CHECK(exact::first_difference(sums, expected) == -1);
  CHECK(sums.intact());
  kernels::sum_columns(sums.data(), partial.data(), 0, cols, pitch);
  CHECK(exact::first_difference(sums, exact::Numbers<double>(cols, Place::exact, 0)) == -1);
}

TEST_CASE("a variance of fewer numbers than its correction is infinite") {
  Tensor<double> x({2});
  x[0] = 1;
  x[1] = 2;
  CHECK(variance(Variable<double>(x), {}, false, 3).item() ==
        std::numeric_limits<double>::infinity());
}
