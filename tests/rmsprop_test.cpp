#include "minnow/optim/rmsprop.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace minnow;

namespace {

template <class T>
Variable<T> parameter(T value) {
  return Variable<T>(Tensor<T>({1}, {value}), true);
}

template <class T>
void step(optim::RMSprop<T>& optimizer, Variable<T> p, T gradient) {
  p.mutable_grad() = Tensor<T>({1}, {gradient});
  optimizer.step();
}

}  // namespace

TEST_CASE("two steps by hand") {
  const auto p = parameter(1.0);
  optim::RMSprop optimizer({p}, {.lr = 0.1, .alpha = 0.75, .eps = 0.5});
  step(optimizer, p, 2.0);  // s = 1
  double expected = 1 - 0.1 * 2 / 1.5;
  CHECK(p.value()[0] == doctest::Approx(expected).epsilon(1e-14));
  step(optimizer, p, 1.0);  // s = 1
  expected -= 0.1 * 1 / 1.5;
  CHECK(p.value()[0] == doctest::Approx(expected).epsilon(1e-14));
}

TEST_CASE("the centred form divides by the deviation") {
  const auto p = parameter(0.0);
  optim::RMSprop optimizer({p}, {.lr = 0.1, .alpha = 0.5, .eps = 0, .centered = true});
  step(optimizer, p, 2.0);  // s = 2, mean = 1
  CHECK(p.value()[0] == doctest::Approx(-0.2).epsilon(1e-14));
}

TEST_CASE("momentum adds up scaled gradients") {
  const auto p = parameter(0.0);
  optim::RMSprop optimizer({p}, {.lr = 0.1, .alpha = 0, .eps = 0, .momentum = 0.5});
  step(optimizer, p, 3.0);  // u = 1, v = 1
  step(optimizer, p, 7.0);  // u = 1, v = 1.5
  CHECK(p.value()[0] == doctest::Approx(-0.25).epsilon(1e-14));
}

TEST_CASE("weight decay is added to the gradient") {
  const auto p = parameter(4.0);
  optim::RMSprop optimizer({p}, {.lr = 0.1, .alpha = 0.75, .eps = 0.5, .weight_decay = 0.5});
  step(optimizer, p, 0.0);  // g = 2, s = 1
  CHECK(p.value()[0] == doctest::Approx(4 - 0.1 * 2 / 1.5).epsilon(1e-14));
}

TEST_CASE("a variance that rounding makes negative counts as zero") {
  const auto p = parameter(0.0f);
  optim::RMSprop optimizer({p}, {.lr = 1e-3, .alpha = 0.5, .eps = 1, .centered = true});
  // With a constant gradient s - mean² tends to zero, and the rounding errors are of either sign.
  for (int i = 0; i < 500; ++i) step(optimizer, p, 1000.1f);
  CHECK(std::isfinite(p.value()[0]));
  CHECK(p.value()[0] < -100);
}

TEST_CASE("a gradient whose square overflows does no harm") {
  const auto p = parameter(1.0f);
  optim::RMSprop optimizer({p}, {.lr = 1e-3});
  step(optimizer, p, 1e25f);
  CHECK(std::isfinite(p.value()[0]));
}

TEST_CASE("state exists for the options in use only") {
  const auto p = parameter(1.0f);
  optim::RMSprop optimizer({p}, {});
  step(optimizer, p, 1.0f);
  const auto& state = optimizer.groups()[0].state[0];
  CHECK(state.square_avg[0] == doctest::Approx(0.01));
  CHECK_FALSE(state.grad_avg.defined());
  CHECK_FALSE(state.momentum_buffer.defined());
}

TEST_CASE("options that make no sense are refused by name") {
  const auto make = [](const optim::RMSpropOptions& options) {
    optim::RMSprop({parameter(1.0f)}, options);
  };
  CHECK_THROWS_WITH_AS(make({.lr = -0.5}), "RMSprop: lr = -0.5 must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.alpha = -1}), "RMSprop: alpha = -1 must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.eps = -1}), "RMSprop: eps = -1 must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.weight_decay = -1}), "RMSprop: weight_decay = -1 must be at least 0",
                       Error);
  CHECK_THROWS_WITH_AS(make({.momentum = -1}), "RMSprop: momentum = -1 must be at least 0", Error);
}
