#include "minnow/nn/init.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "minnow/testing/compare.hpp"

using namespace minnow;
namespace init = nn::init;

namespace {

template <class T>
Tensor<T> empty(const Shape& shape) {
  return Tensor<T>::full(shape, std::numeric_limits<T>::quiet_NaN());
}

struct Moments {
  double mean, deviation, least, most, fourth;
};

template <class T>
Moments moments(const Tensor<T>& x) {
  const auto n = static_cast<double>(x.size());
  Moments m{0, 0, x[0], x[0], 0};
  for (const T value : x.values()) {
    m.mean += double{value} / n;
    m.least = std::min(m.least, double{value});
    m.most = std::max(m.most, double{value});
  }
  for (const T value : x.values()) {
    const double d = value - m.mean;
    m.deviation += d * d / n;
    m.fourth += d * d * d * d / n;
  }
  m.fourth /= m.deviation * m.deviation;
  m.deviation = std::sqrt(m.deviation);
  return m;
}

// Bounds kept and nearly reached, moments within six standard errors.
void check_uniform(const auto& x, double low, double high) {
  const Moments m = moments(x);
  const double width = high - low, n = static_cast<double>(x.size());
  CHECK(m.least >= low);
  CHECK(m.most <= high);
  CHECK(m.least < low + width * 20 / n);
  CHECK(m.most > high - width * 20 / n);
  CHECK(std::abs(m.mean - (low + high) / 2) < 6 * width / std::sqrt(12 * n));
  CHECK(m.deviation == doctest::Approx(width / std::sqrt(12.0)).epsilon(6 * std::sqrt(0.2 / n)));
}

void check_normal(const auto& x, double mean, double deviation) {
  const Moments m = moments(x);
  const double n = static_cast<double>(x.size());
  CHECK(std::abs(m.mean - mean) < 6 * deviation / std::sqrt(n));
  CHECK(m.deviation == doctest::Approx(deviation).epsilon(6 * std::sqrt(0.5 / n)));
  CHECK(m.fourth == doctest::Approx(3).epsilon(6 * std::sqrt(24 / n) / 3));
}

constexpr RandomKey key{7, 0, 3};

}  // namespace

TEST_CASE_TEMPLATE("constants fill every element", T, float, double) {
  const auto x = empty<T>({3, 5});
  init::constant(x, 0.25);
  CHECK(testing::same_bits(x, Tensor<T>::full({3, 5}, T(0.25))));
  init::ones(x);
  CHECK(testing::same_bits(x, Tensor<T>::ones({3, 5})));
  init::zeros(x);
  CHECK(testing::same_bits(x, Tensor<T>::zeros({3, 5})));
}

TEST_CASE_TEMPLATE("uniform and normal have the asked bounds and moments", T, float, double) {
  check_uniform(init::uniform(empty<T>({20000})), 0, 1);
  check_uniform(init::uniform(empty<T>({100, 200}), -3, 1, key), -3, 1);
  check_normal(init::normal(empty<T>({20000})), 0, 1);
  check_normal(init::normal(empty<T>({100, 200}), 5, 0.5, key), 5, 0.5);
  // Half of the numbers between these neighbours round up.
  const double next = static_cast<double>(std::nextafter(T(1), T(2)));
  CHECK(testing::same_bits(init::uniform(empty<T>({64}), 1, next, key), Tensor<T>::ones({64})));
}

TEST_CASE("element i is number i of the key's sequence") {
  const auto u = init::uniform(empty<double>({2, 3}), -1, 3, key);
  const auto z = init::normal(empty<double>({2, 3}), 1, 2, key);
  for (Index i = 0; i < 6; ++i) {
    CHECK(u[i] == doctest::Approx(-1 + 4 * random_uniform(key, static_cast<std::uint64_t>(i)))
                      .epsilon(1e-15));
    CHECK(
        z[i] ==
        doctest::Approx(1 + 2 * random_normal(key, static_cast<std::uint64_t>(i))).epsilon(1e-15));
  }
}

TEST_CASE("numbers follow from the key, not from the threads") {
  const auto draw = [](int threads) {
    set_num_threads(threads);
    auto x = init::kaiming_normal(empty<float>({300, 100}), {}, key);
    set_num_threads(0);
    return x;
  };
  const auto expected = draw(1);
  CHECK(testing::same_bits(draw(2), expected));
  CHECK(testing::same_bits(draw(4), expected));
  const RandomKey other{7, 0, 4};
  CHECK_FALSE(
      testing::same_bits(init::kaiming_normal(empty<float>({300, 100}), {}, other), expected));
}

TEST_CASE("without a key every call draws the next sequence of the default generator") {
  manual_seed(11);
  const auto a = init::uniform(empty<float>({50}));
  const auto b = init::uniform(empty<float>({50}));
  CHECK_FALSE(testing::same_bits(a, b));
  manual_seed(11);
  CHECK(testing::same_bits(init::uniform(empty<float>({50})), a));
  CHECK(testing::same_bits(init::uniform(empty<float>({50})), b));
}

TEST_CASE("fans of a linear and of a convolution weight") {
  CHECK(init::calculate_fan({10, 84}).in == 84);
  CHECK(init::calculate_fan({10, 84}).out == 10);
  CHECK(init::calculate_fan({14, 3, 5, 7}).in == 105);
  CHECK(init::calculate_fan({14, 3, 5, 7}).out == 490);
}

TEST_CASE("gains are those of the nonlinearities") {
  using init::Nonlinearity;
  CHECK(init::calculate_gain(Nonlinearity::linear) == 1);
  CHECK(init::calculate_gain(Nonlinearity::sigmoid) == 1);
  CHECK(init::calculate_gain(Nonlinearity::tanh) == doctest::Approx(5.0 / 3));
  CHECK(init::calculate_gain(Nonlinearity::relu) == doctest::Approx(std::numbers::sqrt2));
  CHECK(init::calculate_gain(Nonlinearity::leaky_relu, 3) == doctest::Approx(std::sqrt(0.2)));
  CHECK(init::calculate_gain(Nonlinearity::leaky_relu) == doctest::Approx(std::sqrt(2 / 1.0001)));
  CHECK(init::calculate_gain(Nonlinearity::selu) == 0.75);
}

TEST_CASE("Kaiming bounds and deviations") {
  using init::FanMode, init::Nonlinearity;
  const Shape shape{40, 20, 5, 5};  // fan in 500, fan out 1000
  check_uniform(init::kaiming_uniform(empty<float>(shape)), -std::sqrt(6 / 500.0),
                std::sqrt(6 / 500.0));
  check_uniform(init::kaiming_uniform(empty<double>(shape), {.mode = FanMode::out}),
                -std::sqrt(6 / 1000.0), std::sqrt(6 / 1000.0));
  check_uniform(init::kaiming_uniform(empty<double>(shape), {.nonlinearity = Nonlinearity::linear}),
                -std::sqrt(3 / 500.0), std::sqrt(3 / 500.0));
  check_normal(init::kaiming_normal(empty<float>(shape)), 0, std::sqrt(2 / 500.0));
  check_normal(init::kaiming_normal(empty<float>(shape), {.a = 3}), 0, std::sqrt(0.2 / 500.0));
  check_normal(init::kaiming_normal(empty<double>(shape),
                                    {.mode = FanMode::out, .nonlinearity = Nonlinearity::tanh}),
               0, 5.0 / 3 / std::sqrt(1000.0));
}

TEST_CASE("Xavier bounds and deviations") {
  const Shape shape{40, 20, 5, 5};
  check_uniform(init::xavier_uniform(empty<float>(shape)), -std::sqrt(6 / 1500.0),
                std::sqrt(6 / 1500.0));
  check_uniform(init::xavier_uniform(empty<double>({100, 200}), 2), -2 * std::sqrt(6 / 300.0),
                2 * std::sqrt(6 / 300.0));
  check_normal(init::xavier_normal(empty<float>(shape)), 0, std::sqrt(2 / 1500.0));
  check_normal(init::xavier_normal(empty<double>(shape), 0.5), 0, 0.5 * std::sqrt(2 / 1500.0));
}

TEST_CASE("a layer's default weight and bias lie within one over the root of the fan in") {
  const Shape shape{40, 20, 5, 5};
  const double bound = 1 / std::sqrt(500.0);
  check_uniform(init::default_weight(empty<float>(shape)), -bound, bound);
  check_uniform(init::default_bias(empty<float>({20000}), shape), -bound, bound);
}

TEST_CASE("a variable is filled in place and nothing is recorded") {
  Variable<float> weight(empty<float>({8, 4}), true);
  const Tensor<float> before = weight.value();
  const Variable<float> same = init::kaiming_uniform(weight, {}, key);
  CHECK(weight.value().shares_memory_with(before));
  CHECK(same.value().shares_memory_with(before));
  CHECK(weight.is_leaf());
  CHECK(testing::same_bits(before, init::kaiming_uniform(empty<float>({8, 4}), {}, key)));
}

TEST_CASE("sizes of zero and one are fine") {
  CHECK(init::default_weight(empty<float>({0, 3})).size() == 0);
  CHECK(init::default_weight(empty<float>({3, 0})).size() == 0);
  CHECK(init::default_bias(empty<float>({3}), {3, 0})[2] == 0);
  CHECK(std::abs(init::default_weight(empty<double>({1, 1}), key)[0]) <= 1);
}

TEST_CASE("errors name the place and the way out") {
  CHECK_THROWS_WITH_AS(
      init::kaiming_uniform(empty<float>({8})),
      "init: a tensor of shape [8] has no fan; a weight of shape [out, in, ...] is needed. "
      "For a bias use uniform() or zeros()",
      ShapeError);
  CHECK_THROWS_AS(init::xavier_normal(empty<float>({})), ShapeError);
  CHECK_THROWS_WITH_AS(init::uniform(Tensor<float>(), 0, 1),
                       "init: the tensor is undefined, give it a shape", ShapeError);
  CHECK_THROWS_AS(init::zeros(Tensor<float>()), ShapeError);
  CHECK_THROWS_WITH_AS(init::uniform(empty<float>({8}), 2, 1), "uniform: low = 2 is above high = 1",
                       Error);
  CHECK_THROWS_WITH_AS(init::normal(empty<float>({8}), 0, -1),
                       "normal: the standard deviation -1 is negative", Error);
}
