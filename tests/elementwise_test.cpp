#include "minnow/ops/elementwise.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "minnow/core/parallel.hpp"
#include "variables.hpp"

using namespace minnow;
using namespace minnow_test;
using minnow::testing::compare;
using minnow::testing::same_bits;

namespace {

template <class T>
constexpr double tolerance = std::is_same_v<T, float> ? 1e-6 : 1e-14;

/// Sizes around the width of a pack.
template <class T>
std::vector<Index> sizes() {
  const Index W = Pack<T>::width;
  return {0, 1, 2, std::max<Index>(1, W - 1), W, W + 1, 3 * W + 1, 20011};
}

template <class T>
struct UnaryCase {
  std::string name;
  Variable<T> (*function)(const Variable<T>&);
  double (*value)(double);
  double (*slope)(double);
  double low, high;
};

template <class T>
std::vector<UnaryCase<T>> unary_cases() {
  using X = const Variable<T>&;
  return {
      {"-x", [](X x) { return -x; }, [](double x) { return -x; }, [](double) { return -1.; }, -2,
       2},
      {"x + s", [](X x) { return x + 3; }, [](double x) { return x + 3; },
       [](double) { return 1.; }, -2, 2},
      {"s + x", [](X x) { return 3 + x; }, [](double x) { return x + 3; },
       [](double) { return 1.; }, -2, 2},
      {"x - s", [](X x) { return x - T(0.5); }, [](double x) { return x - 0.5; },
       [](double) { return 1.; }, -2, 2},
      {"s - x", [](X x) { return T(0.5) - x; }, [](double x) { return 0.5 - x; },
       [](double) { return -1.; }, -2, 2},
      {"x * s", [](X x) { return x * -3; }, [](double x) { return x * -3; },
       [](double) { return -3.; }, -2, 2},
      {"s * x", [](X x) { return -3 * x; }, [](double x) { return x * -3; },
       [](double) { return -3.; }, -2, 2},
      {"x / s", [](X x) { return x / 4; }, [](double x) { return x / 4; },
       [](double) { return 0.25; }, -2, 2},
      {"s / x", [](X x) { return 4 / x; }, [](double x) { return 4 / x; },
       [](double x) { return -4 / (x * x); }, 0.5, 2},
      {"exp", [](X x) { return exp(x); }, [](double x) { return std::exp(x); },
       [](double x) { return std::exp(x); }, -3, 3},
      {"log", [](X x) { return log(x); }, [](double x) { return std::log(x); },
       [](double x) { return 1 / x; }, 2, 9},
      {"sqrt", [](X x) { return sqrt(x); }, [](double x) { return std::sqrt(x); },
       [](double x) { return 0.5 / std::sqrt(x); }, 0.1, 9},
      {"erf", [](X x) { return erf(x); }, [](double x) { return std::erf(x); },
       [](double x) { return std::exp(-x * x) * 2 / std::sqrt(std::acos(-1.)); }, -2, 2},
      {"abs", [](X x) { return abs(x); }, [](double x) { return std::abs(x); },
       [](double x) { return x < 0 ? -1. : 1.; }, -2, 2},
      {"pow 2", [](X x) { return pow(x, 2); }, [](double x) { return x * x; },
       [](double x) { return 2 * x; }, -2, 2},
      {"pow 3", [](X x) { return pow(x, 3); }, [](double x) { return x * x * x; },
       [](double x) { return 3 * x * x; }, -2, 2},
      {"pow -1.5", [](X x) { return pow(x, T(-1.5)); }, [](double x) { return std::pow(x, -1.5); },
       [](double x) { return -1.5 * std::pow(x, -2.5); }, 0.5, 2},
      {"clamp", [](X x) { return clamp(x, -1, T(0.5)); },
       [](double x) { return x < -1    ? -1
                             : x > 0.5 ? 0.5
                                       : x; },
       [](double x) { return x < -1 || x > 0.5 ? 0. : 1.; }, -2, 2},
  };
}

template <class T>
struct BinaryCase {
  std::string name;
  Variable<T> (*function)(const Variable<T>&, const Variable<T>&);
  double (*value)(double, double);
};

template <class T>
std::vector<BinaryCase<T>> binary_cases() {
  using X = const Variable<T>&;
  return {
      {"x + y", [](X x, X y) { return x + y; }, [](double x, double y) { return x + y; }},
      {"x - y", [](X x, X y) { return x - y; }, [](double x, double y) { return x - y; }},
      {"x * y", [](X x, X y) { return x * y; }, [](double x, double y) { return x * y; }},
      {"x / y", [](X x, X y) { return x / y; }, [](double x, double y) { return x / y; }},
      {"maximum", [](X x, X y) { return maximum(x, y); },
       [](double x, double y) { return std::max(x, y); }},
  };
}

/// Pairs of shapes and what they are repeated to.
struct Broadcast {
  Shape x, y, z;
};
const std::vector<Broadcast> broadcasts = {
    {{}, {}, {}},
    {{3}, {}, {3}},
    {{}, {2, 3}, {2, 3}},
    {{4, 1}, {3}, {4, 3}},
    {{1}, {5}, {5}},
    {{2, 3, 4, 5}, {3, 1, 1}, {2, 3, 4, 5}},
    {{2, 3, 4, 5}, {2, 1, 4, 1}, {2, 3, 4, 5}},
    {{1, 3, 1, 5}, {2, 1, 4, 1}, {2, 3, 4, 5}},
    {{40, 35}, {35}, {40, 35}},
    {{40, 35}, {40, 1}, {40, 35}},
    {{0, 3}, {1, 3}, {0, 3}},
    {{1, 3}, {0, 1}, {0, 3}},
};

/// The element that position `i` of `whole` gets from an array of shape `part`, by plain division.
Index source(Index i, const Shape& whole, const Shape& part) {
  Index offset = 0, stride = 1;
  for (Index axis = -1; axis >= -part.rank(); --axis) {
    const Index at = i % whole[axis];
    i /= whole[axis];
    if (part[axis] != 1) offset += at * stride;
    stride *= part[axis];
  }
  return offset;
}

}  // namespace

TEST_CASE_TEMPLATE("functions of one variable, and their gradients, are the formula's", T, float,
                   double) {
  for (const auto& c : unary_cases<T>()) {
    CAPTURE(c.name);
    for (const Index size : sizes<T>()) {
      CAPTURE(size);
      const Variable<T> x = random_variable<T>({size}, c.low, c.high);
      const Tensor<T> dy = random_tensor<T>({size}, -1, 1, 1);
      const Variable<T> y = c.function(x);
      y.backward(dy);
      Tensor<double> value({size}), dx({size});
      for (Index i = 0; i < size; ++i) {
        value[i] = c.value(static_cast<double>(x.value()[i]));
        dx[i] = c.slope(static_cast<double>(x.value()[i])) * static_cast<double>(dy[i]);
      }
      CHECK(compare(y.value(), value, 3 * tolerance<T>, tolerance<T>));
      CHECK(compare(x.grad(), dx, 3 * tolerance<T>, tolerance<T>));
    }
  }
}

TEST_CASE("gradients of functions of one variable agree with differences") {
  for (const auto& c : unary_cases<double>()) {
    CAPTURE(c.name);
    check_gradients([&](const auto& in) { return c.function(in[0]); },
                    {random_variable<double>({3, 7}, c.low, c.high)});
  }
}

TEST_CASE_TEMPLATE("operands of different shapes are repeated to fit each other", T, float,
                   double) {
  for (const auto& c : binary_cases<T>()) {
    CAPTURE(c.name);
    for (const Broadcast& shapes : broadcasts) {
      const Shape &x_shape = shapes.x, &y_shape = shapes.y, &z_shape = shapes.z;
      CAPTURE(x_shape.str());
      CAPTURE(y_shape.str());
      const auto x = random_tensor<T>(x_shape, 1, 3), y = random_tensor<T>(y_shape, 1, 3, 1);
      const Tensor<T> z = c.function(x, y).value(), swapped = c.function(y, x).value();
      Tensor<double> expected(z_shape), expected_swapped(z_shape);
      for (Index i = 0; i < z_shape.size(); ++i) {
        const double a = static_cast<double>(x[source(i, z_shape, x_shape)]);
        const double b = static_cast<double>(y[source(i, z_shape, y_shape)]);
        expected[i] = c.value(a, b);
        expected_swapped[i] = c.value(b, a);
      }
      CHECK(compare(z, expected, tolerance<T>, 0));
      CHECK(compare(swapped, expected_swapped, tolerance<T>, 0));
    }
  }
}

TEST_CASE_TEMPLATE("operands of the same shape of any size meet element by element", T, float,
                   double) {
  for (const auto& c : binary_cases<T>())
    for (const Index size : sizes<T>()) {
      CAPTURE(c.name);
      CAPTURE(size);
      const auto x = random_tensor<T>({size}, 1, 3), y = random_tensor<T>({size}, 1, 3, 1);
      Tensor<double> expected({size});
      for (Index i = 0; i < size; ++i)
        expected[i] = c.value(static_cast<double>(x[i]), static_cast<double>(y[i]));
      CHECK(compare(c.function(x, y).value(), expected, tolerance<T>, 0));
    }
}

TEST_CASE("gradients of functions of two variables agree with differences, repeated or not") {
  for (const auto& c : binary_cases<double>())
    for (const Broadcast& shapes : broadcasts) {
      const Shape &x_shape = shapes.x, &y_shape = shapes.y, &z_shape = shapes.z;
      if (z_shape.size() == 0 || z_shape.size() > 200) continue;
      CAPTURE(c.name);
      CAPTURE(x_shape.str());
      CAPTURE(y_shape.str());
      const auto x = random_variable<double>(x_shape, 1, 3);
      const auto y = random_variable<double>(y_shape, 1, 3, 1);
      // One of a few variables may lose all its comparisons.
      const bool may_vanish = c.name == "maximum" && z_shape.size() < 20;
      check_gradients([&](const auto& in) { return c.function(in[0], in[1]); }, {x, y},
                      {.allow_zero = may_vanish});
      check_gradients([&](const auto& in) { return c.function(in[1], in[0]); }, {x, y},
                      {.allow_zero = may_vanish});
    }
}

TEST_CASE("gradients of repeated operands of no elements are zeros") {
  const auto x = random_variable<double>({1, 3}), y = random_variable<double>({0, 3});
  (x * y).backward(Tensor<double>({0, 3}));
  CHECK(same_bits(x.grad(), Tensor<double>::zeros({1, 3})));
  CHECK(y.grad().shape() == Shape{0, 3});
}

TEST_CASE("where a function has a corner the gradient is PyTorch's") {
  const auto gradient = [](auto function, double at) {
    const Variable<double> x(Tensor<double>({1}, {at}), true);
    function(x).backward();
    return x.grad()[0];
  };
  using X = const Variable<double>&;
  CHECK(gradient([](X x) { return abs(x); }, 0) == 0);
  CHECK(gradient([](X x) { return clamp(x, -1, 1); }, 1) == 1);
  CHECK(gradient([](X x) { return clamp(x, -1, 1); }, -1) == 1);
  CHECK(gradient([](X x) { return clamp(x, -1, 1); }, 1.5) == 0);
  CHECK(gradient([](X x) { return pow(x, 0); }, 0) == 0);
  CHECK(gradient([](X x) { return pow(x, 1); }, 0) == 1);
  CHECK(gradient([](X x) { return pow(x, 2); }, 0) == 0);
  CHECK(gradient([](X x) { return sqrt(x); }, 0) == std::numeric_limits<double>::infinity());

  const auto x = random_variable<double>({3});
  const Variable<double> y(x.value().clone(), true);
  maximum(x, y).backward(Tensor<double>({3}, {2, 4, 6}));
  CHECK(same_bits(x.grad(), Tensor<double>({3}, {1, 2, 3})));
  CHECK(same_bits(y.grad(), Tensor<double>({3}, {1, 2, 3})));
}

TEST_CASE_TEMPLATE("infinities and NaN go through as the arithmetic has it", T, float, double) {
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const Index n = 3 * Pack<T>::width + 1;  // in whole packs and in the tail alike
  const auto everywhere = [&](T value) { return Variable<T>(Tensor<T>::full({n}, value)); };
  const auto all = [&](const Variable<T>& y, T expected) {
    for (const T v : y.value().values())
      CHECK((v == expected || (std::isnan(v) && std::isnan(expected))));
  };
  all(maximum(everywhere(nan), everywhere(1)), nan);
  all(maximum(everywhere(1), everywhere(nan)), nan);
  all(maximum(everywhere(-inf), everywhere(inf)), inf);
  all(clamp(everywhere(nan), -1, 1), nan);
  all(clamp(everywhere(-inf), -1, 1), -1);
  all(clamp(everywhere(inf), -1, 1), 1);
  for (const T x : {T(-3), T(0), T(3)}) all(clamp(everywhere(x), 2, -2), -2);
  all(exp(everywhere(-inf)), 0);
  all(exp(everywhere(inf)), inf);
  all(log(everywhere(0)), -inf);
  all(log(everywhere(-1)), nan);
  all(sqrt(everywhere(inf)), inf);
  all(sqrt(everywhere(-1)), nan);
  all(everywhere(1) / everywhere(0), inf);
  all(1 / everywhere(0), inf);
  all(everywhere(inf) - everywhere(inf), nan);
  all(pow(everywhere(-8), T(1.0 / 3)), nan);
  all(pow(everywhere(0), -1), inf);
  all(abs(everywhere(-inf)), inf);
}

TEST_CASE("shapes that do not fit are named by the operation") {
  const auto x = random_variable<float>({2, 3}), y = random_variable<float>({2, 4});
  CHECK_THROWS_WITH_AS(x + y,
                       "add: shapes [2, 3] and [2, 4] do not fit together: on axis -1 they "
                       "have 3 and 4, which must be equal or one of them 1",
                       ShapeError);
  CHECK_THROWS_WITH_AS(x - y, doctest::Contains("sub: shapes [2, 3] and [2, 4]"), ShapeError);
  CHECK_THROWS_WITH_AS(x * y, doctest::Contains("mul: shapes [2, 3] and [2, 4]"), ShapeError);
  CHECK_THROWS_WITH_AS(x / random_variable<float>({3, 2, 1, 3}) / random_variable<float>({5, 1, 1}),
                       doctest::Contains("div: shapes [3, 2, 2, 3] and [5, 1, 1] do not fit "
                                         "together: on axis -3 they have 2 and 5"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(maximum(x, y), doctest::Contains("maximum: shapes"), ShapeError);
}

TEST_CASE_TEMPLATE("large and repeated operands give the same bits with any number of threads", T,
                   float, double) {
  const auto compute = [] {
    const auto x = random_variable<T>({70, 30, 50}), y = random_variable<T>({30, 1}, 1, 2, 1);
    const auto z = exp(x * y) / y - maximum(x, y);
    z.backward(random_tensor<T>(z.shape(), -1, 1, 2));
    return std::vector<Tensor<T>>{z.value(), x.grad(), y.grad()};
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

TEST_CASE_TEMPLATE("the kernel writes what it should, from any address, and nothing else", T, float,
                   double) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const auto subtract = [](Pack<T> a, Pack<T> b) { return a - b; };
  for (const Index size : sizes<T>())
    for (const Index shift : {0, 1}) {
      std::vector<T> x(static_cast<std::size_t>(size + 2)), y(x.size()), z(x.size(), nan);
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<T>(i), y[i] = static_cast<T>(2 * i);
      kernels::map(subtract, z.data() + shift, size, 1, x.data() + shift, y.data());
      for (Index i = 0; i < size; ++i)
        REQUIRE(z[static_cast<std::size_t>(i + shift)] == static_cast<T>(i + shift - 2 * i));
      CHECK(std::isnan(z[static_cast<std::size_t>(size + shift)]));
      if (shift == 1) CHECK(std::isnan(z[0]));
      // In place.
      kernels::map(subtract, x.data(), size, 1, x.data(), y.data());
      for (Index i = 0; i < size; ++i)
        REQUIRE(x[static_cast<std::size_t>(i)] == static_cast<T>(-i));
    }
}
