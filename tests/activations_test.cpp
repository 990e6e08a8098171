#include "minnow/nn/activations.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "minnow/core/parallel.hpp"
#include "minnow/nn/sequential.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/composed.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;

namespace {

/// A function, and its value and derivative in plain double arithmetic.
template <class T>
struct Case {
  std::string name;
  std::function<Variable<T>(const Variable<T>&)> function;
  double (*value)(double);
  double (*slope)(double);
};

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }
double normal_density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }
double logistic(double x) {
  return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}
double gelu_u(double x) {
  return std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * std::pow(x, 3));
}

template <class T>
std::vector<Case<T>> cases() {
  using X = const Variable<T>&;
  return {
      {"relu", [](X x) { return relu(x); }, [](double x) { return x > 0 ? x : 0; },
       [](double x) { return x > 0 ? 1. : 0.; }},
      {"leaky_relu", [](X x) { return leaky_relu(x); },
       [](double x) { return x > 0 ? x : 0.01 * x; }, [](double x) { return x > 0 ? 1 : 0.01; }},
      {"leaky_relu of slope 0", [](X x) { return leaky_relu(x, 0); },
       [](double x) { return x > 0 ? x : 0; }, [](double x) { return x > 0 ? 1. : 0.; }},
      {"leaky_relu of slope -2", [](X x) { return leaky_relu(x, -2); },
       [](double x) { return x > 0 ? x : -2 * x; }, [](double x) { return x > 0 ? 1. : -2.; }},
      {"elu", [](X x) { return elu(x); }, [](double x) { return x > 0 ? x : std::expm1(x); },
       [](double x) { return x > 0 ? 1 : std::exp(x); }},
      {"elu of alpha -1.5", [](X x) { return elu(x, -1.5); },
       [](double x) { return x > 0 ? x : -1.5 * std::expm1(x); },
       [](double x) { return x > 0 ? 1 : -1.5 * std::exp(x); }},
      {"gelu", [](X x) { return gelu(x); }, [](double x) { return x * normal_cdf(x); },
       [](double x) { return normal_cdf(x) + x * normal_density(x); }},
      {"gelu by tanh", [](X x) { return gelu(x, GeluApproximation::tanh); },
       [](double x) { return 0.5 * x * (1 + std::tanh(gelu_u(x))); },
       [](double x) {
         const double t = std::tanh(gelu_u(x));
         if (std::abs(t) == 1) return (1 + t) / 2;
         const double du = std::sqrt(2 / std::numbers::pi) * (1 + 3 * 0.044715 * x * x);
         return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du;
       }},
      {"silu", [](X x) { return silu(x); }, [](double x) { return x * logistic(x); },
       [](double x) { return logistic(x) * (1 + x * logistic(-x)); }},
      {"sigmoid", [](X x) { return sigmoid(x); }, logistic,
       [](double x) { return logistic(x) * logistic(-x); }},
      {"tanh", [](X x) { return minnow::tanh(x); }, [](double x) { return std::tanh(x); },
       [](double x) { return 1 - std::pow(std::tanh(x), 2); }},
  };
}

template <class T>
Tensor<T> mapped(const Tensor<T>& x, double (*f)(double)) {
  Tensor<T> y(x.shape());
  for (Index i = 0; i < x.size(); ++i) y[i] = static_cast<T>(f(static_cast<double>(x[i])));
  return y;
}

// The bounds that the kernels' documentation states.
template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 4e-7 : 4e-15;

template <class T>
testing::Comparison within(const Tensor<T>& actual, const Tensor<T>& expected) {
  return testing::compare(actual, expected, tolerance<T>, tolerance<T>);
}

template <class T>
Tensor<T> gradient(const Case<T>& function, const Tensor<T>& at, const Tensor<T>& dy) {
  const Variable<T> x(at, true);
  function.function(x).backward(dy);
  return x.grad();
}

}  // namespace

TEST_CASE_TEMPLATE("value and gradient agree with double arithmetic at every size", T, float,
                   double) {
  constexpr Index width = Pack<T>::width;
  for (const auto& function : cases<T>()) {
    CAPTURE(function.name);
    for (const Index size :
         {Index{0}, Index{1}, Index{2}, width - 1, width, width + 1, 3 * width + 1}) {
      CAPTURE(size);
      // A slice that starts one element late is aligned to nothing.
      const auto x = Tensor<T>::normal({size + 1}, 0, 3, {1, 0, 0}).slice(1, size + 1);
      const auto dy = Tensor<T>::normal({size}, 0, 1, {2, 0, 0});
      const Tensor<T> y = function.function(Variable<T>(x)).value();
      const auto value = within(y, mapped(x, function.value));
      CHECK_MESSAGE(value, value.message);

      Tensor<T> expected = mapped(x, function.slope);
      for (Index i = 0; i < size; ++i) expected[i] *= dy[i];
      const auto dx = within(gradient(function, x, dy), expected);
      CHECK_MESSAGE(dx, dx.message);
    }
  }
}

TEST_CASE_TEMPLATE("functions agree with their definition by plain operations", T, float, double) {
  namespace composed = testing::composed;
  const auto values = Tensor<T>::normal({5, 37}, 0, 2, {1, 0, 0});
  const auto dy = Tensor<T>::normal({5, 37}, 0, 1, {2, 0, 0});
  const auto agree = [&](const auto& fast, const auto& slow) {
    const Variable<T> x(values, true), same(values, true);
    const Variable<T> y = fast(x), expected = slow(same);
    y.backward(dy);
    expected.backward(dy);
    const double bound = sizeof(T) == 4 ? 4e-6 : 1e-13;
    const auto value = testing::compare(y.value(), expected.value(), bound, bound);
    CHECK_MESSAGE(value, value.message);
    const auto dx = testing::compare(x.grad(), same.grad(), bound, bound);
    CHECK_MESSAGE(dx, dx.message);
  };
  using X = const Variable<T>&;
  agree([](X x) { return relu(x); }, [](X x) { return composed::relu(x); });
  agree([](X x) { return leaky_relu(x, 0.1); }, [](X x) { return composed::leaky_relu(x, 0.1); });
  agree([](X x) { return elu(x, 0.7); }, [](X x) { return composed::elu(x, 0.7); });
  agree([](X x) { return gelu(x); }, [](X x) { return composed::gelu(x); });
  agree([](X x) { return gelu(x, GeluApproximation::tanh); },
        [](X x) { return composed::gelu_tanh(x); });
  agree([](X x) { return silu(x); }, [](X x) { return composed::silu(x); });
  agree([](X x) { return sigmoid(x); }, [](X x) { return composed::sigmoid(x); });
  agree([](X x) { return minnow::tanh(x); }, [](X x) { return composed::tanh(x); });
}

TEST_CASE_TEMPLATE("small, large and huge numbers of both signs give what double gives", T, float,
                   double) {
  const Tensor<T> x(
      {26}, {T(0),   T(1e-30), T(-1e-30), T(1e-8), T(-1e-8), T(1e-4), T(-1e-4), T(0.1), T(-0.1),
             T(1),   T(-1),    T(5),      T(-5),   T(9),     T(-9),   T(20),    T(-20), T(88),
             T(-88), T(95),    T(-95),    T(800),  T(-800),  T(1e4),  T(-1e4),  T(1e30)});
  const auto huge = Tensor<T>({2}, {T(-1e30), T(-1e38)});
  for (const auto& function : cases<T>()) {
    CAPTURE(function.name);
    for (const auto& at : {x, huge}) {
      const Variable<T> y = function.function(Variable<T>(at));
      const auto value = within(y.value(), mapped(at, function.value));
      CHECK_MESSAGE(value, value.message);
      const auto dx =
          within(gradient(function, at, Tensor<T>::ones(at.shape())), mapped(at, function.slope));
      CHECK_MESSAGE(dx, dx.message);
    }
  }
}

TEST_CASE_TEMPLATE("elu, silu and tanh keep their relative accuracy near zero", T, float, double) {
  const auto x = Tensor<T>({6}, {T(-1e-12), T(-3e-9), T(-2e-6), T(-1e-4), T(-3e-3), T(-0.02)});
  const auto relative = [&](const Variable<T>& y, double (*f)(double)) {
    const auto close = testing::compare(y.value(), mapped(x, f), tolerance<T>, 0);
    CHECK_MESSAGE(close, close.message);
  };
  relative(elu(Variable<T>(x)), [](double v) { return std::expm1(v); });
  relative(silu(Variable<T>(x)), [](double v) { return v * logistic(v); });
  relative(minnow::tanh(Variable<T>(x)), [](double v) { return std::tanh(v); });
}

TEST_CASE_TEMPLATE("NaN goes through every activation and its gradient", T, float, double) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  // In a full pack, in its tail, and alone.
  for (const Index size : {Index{1}, Pack<T>::width, 2 * Pack<T>::width + 1}) {
    auto x = Tensor<T>::full({size}, T(0.5));
    x[size - 1] = nan;
    for (const auto& function : cases<T>()) {
      CAPTURE(function.name);
      const Tensor<T> y = function.function(Variable<T>(x)).value();
      CHECK(std::isnan(y[size - 1]));
      if (size > 1) CHECK(!std::isnan(y[0]));
      auto dy = Tensor<T>::ones({size});
      dy[size - 1] = nan;
      CHECK(std::isnan(gradient(function, x, dy)[size - 1]));
    }
  }
}

TEST_CASE_TEMPLATE("infinity goes where the limit is", T, float, double) {
  const T inf = std::numeric_limits<T>::infinity();
  const Variable<T> x(Tensor<T>({2}, {inf, -inf}));
  const auto expect = [](const Variable<T>& y, T first, T second) {
    CHECK(y.value()[0] == first);
    CHECK(y.value()[1] == second);
  };
  expect(relu(x), inf, 0);
  expect(leaky_relu(x), inf, -inf);
  expect(elu(x, 2), inf, -2);
  expect(sigmoid(x), 1, 0);
  expect(minnow::tanh(x), 1, -1);
}

TEST_CASE("gradients agree with finite differences") {
  for (const auto& function : cases<double>()) {
    CAPTURE(function.name);
    // Away from 0, where some have a corner.
    auto x = Tensor<double>::normal({5, 7}, 0, 2, {3, 0, 0});
    for (double& value : x.values()) value += value < 0 ? -0.01 : 0.01;
    const auto result = testing::gradcheck([&](const auto& in) { return function.function(in[0]); },
                                           {Variable<double>(x, true)});
    CHECK_MESSAGE(result, result.message);
  }
}

TEST_CASE("results have the same bits with 1, 2 and 4 threads") {
  const auto x = Tensor<float>::normal({50'001}, 0, 3, {4, 0, 0});
  const auto dy = Tensor<float>::normal({50'001}, 0, 1, {5, 0, 0});
  for (const auto& function : cases<float>()) {
    CAPTURE(function.name);
    set_num_threads(1);
    const Tensor<float> y = function.function(Variable<float>(x)).value();
    const Tensor<float> dx = gradient(function, x, dy);
    for (const int threads : {2, 4}) {
      set_num_threads(threads);
      CHECK(testing::same_bits(function.function(Variable<float>(x)).value(), y));
      CHECK(testing::same_bits(gradient(function, x, dy), dx));
    }
  }
  set_num_threads(0);
}

TEST_CASE("only what the derivative needs is kept: y where it suffices, else x") {
  const auto keeps_input = [](auto function) {
    const Variable<float> x(Tensor<float>::ones({4}), true);
    const Tensor<float> value = x.value();
    const Variable<float> y = function(x);
    // Dropping the graph's own handle leaves x's variable, this test's copy, and what was saved.
    Variable<float> other = x;
    other.mutable_value() = Tensor<float>();
    return !value.unique();
  };
  CHECK(!keeps_input([](const auto& x) { return relu(x); }));
  CHECK(!keeps_input([](const auto& x) { return leaky_relu(x); }));
  CHECK(keeps_input([](const auto& x) { return leaky_relu(x, -1); }));
  CHECK(!keeps_input([](const auto& x) { return sigmoid(x); }));
  CHECK(!keeps_input([](const auto& x) { return minnow::tanh(x); }));
  CHECK(keeps_input([](const auto& x) { return silu(x); }));
}

TEST_CASE("modules apply their function and carry PyTorch's names") {
  const Variable<float> x(Tensor<float>::normal({3, 5}, 0, 2, {6, 0, 0}));
  const auto check = [&](auto module, const char* name, const Variable<float>& expected) {
    CHECK(module.name() == name);
    CHECK(module.named_parameters().empty());
    CHECK(testing::same_bits(module(x).value(), expected.value()));
    module.eval();
    CHECK(testing::same_bits(module(x).value(), expected.value()));
  };
  check(nn::ReLU(), "ReLU", relu(x));
  check(nn::LeakyReLU(), "LeakyReLU", leaky_relu(x));
  check(nn::LeakyReLU(0.2), "LeakyReLU", leaky_relu(x, 0.2));
  check(nn::ELU(), "ELU", elu(x));
  check(nn::ELU(0.5), "ELU", elu(x, 0.5));
  check(nn::GELU(), "GELU", gelu(x));
  check(nn::GELU(GeluApproximation::tanh), "GELU", gelu(x, GeluApproximation::tanh));
  check(nn::SiLU(), "SiLU", silu(x));
  check(nn::Sigmoid(), "Sigmoid", sigmoid(x));
  check(nn::Tanh(), "Tanh", minnow::tanh(x));
  CHECK(nn::LeakyReLU(0.2).negative_slope() == 0.2);
  CHECK(nn::ELU(0.5).alpha() == 0.5);
  CHECK(nn::GELU(GeluApproximation::tanh).approximate() == GeluApproximation::tanh);

  nn::Sequential model{nn::ReLU(), nn::Tanh()};
  CHECK(testing::same_bits(model(x).value(), minnow::tanh(relu(x)).value()));
}
