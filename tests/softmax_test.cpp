#include "minnow/ops/softmax.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "minnow/nn/activations.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/composed.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;
namespace composed = minnow::testing::composed;

namespace {

struct View {
  Index outer, size, inner;
};

template <class T>
struct Result {
  Tensor<T> y, dx;
};

/// One sum after the other, in double.
template <class T>
Result<double> slowly(bool logarithm, const Tensor<T>& x, const Tensor<T>& dy, const View& v) {
  Result<double> result{Tensor<double>(x.shape()), Tensor<double>(x.shape())};
  for (Index o = 0; o < v.outer; ++o)
    for (Index i = 0; i < v.inner; ++i) {
      const auto at = [&](Index a) { return (o * v.size + a) * v.inner + i; };
      double top = -std::numeric_limits<double>::infinity(), total = 0, weighted = 0, plain = 0;
      for (Index a = 0; a < v.size; ++a) top = std::max(top, static_cast<double>(x[at(a)]));
      const auto e = [&](Index a) { return std::exp(static_cast<double>(x[at(a)]) - top); };
      for (Index a = 0; a < v.size; ++a) total += e(a);
      for (Index a = 0; a < v.size; ++a) {
        weighted += static_cast<double>(dy[at(a)]) * e(a) / total;
        plain += static_cast<double>(dy[at(a)]);
      }
      for (Index a = 0; a < v.size; ++a) {
        const double p = e(a) / total, d = static_cast<double>(dy[at(a)]);
        result.y[at(a)] = logarithm ? static_cast<double>(x[at(a)]) - top - std::log(total) : p;
        result.dx[at(a)] = logarithm ? d - p * plain : p * (d - weighted);
      }
    }
  return result;
}

template <class T>
Variable<T> function(bool logarithm, const Variable<T>& x, Index axis) {
  return logarithm ? log_softmax(x, axis) : softmax(x, axis);
}

/// Runs the kernels from and into unaligned memory that holds NaN before, and checks the guards.
template <class T>
Result<T> run_kernels(bool logarithm, const Tensor<T>& x, const Tensor<T>& dy, const View& v) {
  const Index size = x.size();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  auto y = Tensor<T>::full({size + 2}, nan), dx = Tensor<T>::full({size + 2}, nan);
  if (logarithm) {
    kernels::log_softmax_forward(y.data() + 1, x.data(), v.outer, v.size, v.inner);
    kernels::log_softmax_backward(dx.data() + 1, dy.data(), y.data() + 1, v.outer, v.size, v.inner);
  } else {
    kernels::softmax_forward(y.data() + 1, x.data(), v.outer, v.size, v.inner);
    kernels::softmax_backward(dx.data() + 1, dy.data(), y.data() + 1, v.outer, v.size, v.inner);
  }
  for (const auto* guarded : {&y, &dx}) {
    CHECK(std::isnan((*guarded)[0]));
    CHECK(std::isnan((*guarded)[size + 1]));
  }
  return {y.slice(1, size + 1).reshape(x.shape()), dx.slice(1, size + 1).reshape(x.shape())};
}

template <class T, class U>
void check_close(const Tensor<T>& actual, const Tensor<U>& expected, double tolerance) {
  const auto close = testing::compare(actual, expected, tolerance, tolerance);
  CHECK_MESSAGE(close, close.message);
}

}  // namespace

TEST_CASE_TEMPLATE("kernels agree with plain loops in double at every size", T, float, double) {
  constexpr Index width = Pack<T>::width;
  std::vector<View> views{{0, 3, 1},    {3, 0, 1},    {3, 4, 0},
                          {128, 10, 1}, {3, 1000, 1}, {3, 300, 20}};
  for (const Index edge : {Index{1}, Index{2}, width - 1, width, width + 1, 3 * width + 1})
    if (edge > 0) {
      views.push_back({1, edge, 1});
      views.push_back({5, edge, 1});
      views.push_back({3, 7, edge});
      views.push_back({1, edge, 5});
    }
  for (const View& v : views)
    for (const bool logarithm : {false, true}) {
      CAPTURE(v.outer);
      CAPTURE(v.size);
      CAPTURE(v.inner);
      CAPTURE(logarithm);
      const Index count = v.outer * v.size * v.inner;
      const auto x = Tensor<T>::normal({count + 1}, 0, 2, {1, 0, 0}).slice(1, count + 1);
      const auto dy = Tensor<T>::normal({count + 1}, 0, 1, {2, 0, 0}).slice(1, count + 1);
      const auto [y, dx] = run_kernels(logarithm, x, dy, v);
      const Result<double> expected = slowly(logarithm, x, dy, v);
      const double tolerance = sizeof(T) == 4 ? 1e-6 : 2e-15;
      // A logarithm's gradient is as exact as the sum of the dy it contains.
      const double sum = sizeof(T) == 4 ? 2e-6 : 1e-14;
      const auto relative = testing::compare(y, expected.y, tolerance, logarithm ? tolerance : 0);
      CHECK_MESSAGE(relative, relative.message);
      check_close(dx, expected.dx, sum);
    }
}

TEST_CASE_TEMPLATE("functions agree with their definition along every axis", T, float, double) {
  const double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-14;
  const Shape shape{3, 5, 2, 19};
  const auto values = Tensor<T>::normal(shape, 0, 2, {1, 0, 0});
  const auto dy = Tensor<T>::normal(shape, 0, 1, {2, 0, 0});
  for (const Index axis : {0, 1, 2, 3, -1, -3})
    for (const bool logarithm : {false, true}) {
      CAPTURE(axis);
      const Variable<T> x(values, true), same(values, true);
      const Variable<T> y = function(logarithm, x, axis);
      const Variable<T> expected =
          logarithm ? composed::log_softmax(same, axis) : composed::softmax(same, axis);
      check_close(y.value(), expected.value(), tolerance);
      y.backward(dy);
      expected.backward(dy);
      check_close(x.grad(), same.grad(), tolerance);
    }
}

TEST_CASE("kernels may work in place") {
  const auto x = Tensor<float>::normal({6, 21, 5}, 0, 2, {1, 0, 0});
  for (const View& v : {View{6, 105, 1}, View{6, 21, 5}}) {
    Tensor<float> y(x.shape()), log_y(x.shape()), dx(x.shape()), in_place = x.clone();
    kernels::softmax_forward(y.data(), x.data(), v.outer, v.size, v.inner);
    kernels::softmax_forward(in_place.data(), in_place.data(), v.outer, v.size, v.inner);
    CHECK(testing::same_bits(in_place, y));
    kernels::softmax_backward(dx.data(), x.data(), y.data(), v.outer, v.size, v.inner);
    in_place.copy_from(x);
    kernels::softmax_backward(in_place.data(), in_place.data(), y.data(), v.outer, v.size, v.inner);
    CHECK(testing::same_bits(in_place, dx));
    kernels::log_softmax_forward(log_y.data(), x.data(), v.outer, v.size, v.inner);
    in_place.copy_from(x);
    kernels::log_softmax_forward(in_place.data(), in_place.data(), v.outer, v.size, v.inner);
    CHECK(testing::same_bits(in_place, log_y));
    kernels::log_softmax_backward(dx.data(), x.data(), log_y.data(), v.outer, v.size, v.inner);
    in_place.copy_from(x);
    kernels::log_softmax_backward(in_place.data(), in_place.data(), log_y.data(), v.outer, v.size,
                                  v.inner);
    CHECK(testing::same_bits(in_place, dx));
  }
}

TEST_CASE_TEMPLATE("logits far from zero, equal or huge give what they should", T, float, double) {
  // Along contiguous rows and along columns.
  for (const Index axis : {1, 0}) {
    const auto along = [axis](std::initializer_list<T> values) {
      const Index size = std::ssize(values);
      Tensor<T> x(axis == 1 ? Shape{2, size} : Shape{size, 2});
      for (Index i = 0; i < size; ++i)
        for (Index r = 0; r < 2; ++r) x[axis == 1 ? r * size + i : 2 * i + r] = values.begin()[i];
      return Variable<T>(x);
    };
    const auto element = [axis](const Variable<T>& y, Index i) {
      return axis == 1 ? y.value()(1, i) : y.value()(i, 1);
    };
    const T inf = std::numeric_limits<T>::infinity();
    const auto even = softmax(along({T(1e30), T(1e30), T(1e30)}), axis);
    const auto log_even = log_softmax(along({T(1e30), T(1e30), T(1e30)}), axis);
    const auto far = log_softmax(along({10000, 10001, 10003}), axis);
    const auto near = log_softmax(along({0, 1, 3}), axis);
    const auto one = softmax(along({T(-1e30), 0, T(1e30)}), axis);
    const auto log_one = log_softmax(along({-800, 0, 800}), axis);
    const auto masked = softmax(along({1, -inf, 1, -inf}), axis);
    for (Index i = 0; i < 3; ++i) {
      CHECK(element(even, i) == doctest::Approx(1. / 3).epsilon(1e-7));
      CHECK(element(log_even, i) == doctest::Approx(-std::log(3.)).epsilon(1e-7));
      CHECK(element(far, i) == element(near, i));
      CHECK(element(one, i) == (i == 2 ? 1 : 0));
      CHECK(element(log_one, i) == 800 * (i - 2));
    }
    for (Index i = 0; i < 4; ++i) CHECK(element(masked, i) == (i % 2 == 0 ? T(0.5) : 0));
    for (Index i = 0; i < 3; ++i) {
      CHECK(std::isnan(element(softmax(along({0, T(NAN), 1}), axis), i)));
      CHECK(std::isnan(element(log_softmax(along({0, T(NAN), 1}), axis), i)));
    }
  }
}

TEST_CASE("long rows of equal logits sum to one") {
  for (const Shape& shape : {Shape{1, 100'000}, Shape{100'000, 1, 3}}) {
    const Index axis = shape.rank() == 2 ? 1 : 0;
    const Tensor<float> y = softmax(Variable<float>(Tensor<float>::ones(shape)), axis).value();
    CHECK(y[0] == doctest::Approx(1e-5).epsilon(1e-6));
  }
}

TEST_CASE("gradients agree with finite differences") {
  const Variable<double> x(Tensor<double>::normal({3, 4, 5}, 0, 1, {1, 0, 0}), true);
  for (const Index axis : {0, 1, 2})
    for (const bool logarithm : {false, true}) {
      const auto result =
          testing::gradcheck([&](const auto& in) { return function(logarithm, in[0], axis); }, {x});
      CHECK_MESSAGE(result, result.message);
    }
}

TEST_CASE("results have the same bits with 1, 2 and 4 threads") {
  const auto x = Tensor<float>::normal({90, 31, 33}, 0, 2, {1, 0, 0});
  const auto dy = Tensor<float>::normal({90, 31, 33}, 0, 1, {2, 0, 0});
  for (const View& v : {View{90 * 31, 33, 1}, View{90, 31, 33}})
    for (const bool logarithm : {false, true}) {
      set_num_threads(1);
      const auto [y, dx] = run_kernels(logarithm, x, dy, v);
      for (const int threads : {2, 4}) {
        set_num_threads(threads);
        const auto other = run_kernels(logarithm, x, dy, v);
        CHECK(testing::same_bits(other.y, y));
        CHECK(testing::same_bits(other.dx, dx));
      }
    }
  set_num_threads(0);
}

TEST_CASE("modules apply their function and carry PyTorch's names") {
  const Variable<float> x(Tensor<float>::normal({3, 5, 2}, 0, 1, {1, 0, 0}));
  nn::Softmax soft(1);
  nn::LogSoftmax log_soft, log_first(0);
  CHECK(soft.name() == "Softmax");
  CHECK(log_soft.name() == "LogSoftmax");
  CHECK(soft.axis() == 1);
  CHECK(log_soft.axis() == -1);
  CHECK(testing::same_bits(soft(x).value(), softmax(x, 1).value()));
  CHECK(testing::same_bits(log_soft(x).value(), log_softmax(x, 2).value()));
  CHECK(testing::same_bits(log_first(x).value(), log_softmax(x, 0).value()));
  CHECK(softmax(Variable<float>(Tensor<float>::scalar(3)), 0).item() == 1);
}

TEST_CASE("errors say what is wrong") {
  const Variable<float> x(Tensor<float>::ones({3, 5}));
  CHECK_THROWS_WITH_AS(softmax(x, 2), "softmax: there is no axis 2 in shape [3, 5] of rank 2",
                       ShapeError);
  CHECK_THROWS_WITH_AS(log_softmax(x, -3),
                       "log_softmax: there is no axis -3 in shape [3, 5] of rank 2", ShapeError);
}
