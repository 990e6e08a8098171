#include "minnow/optim/adam.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace minnow;

namespace {

template <class T>
Variable<T> parameter(T value) {
  return Variable<T>(Tensor<T>({1}, {value}), true);
}

template <class Optimizer, class T>
void step(Optimizer& optimizer, Variable<T> p, T gradient) {
  p.mutable_grad() = Tensor<T>({1}, {gradient});
  optimizer.step();
}

}  // namespace

TEST_CASE("the first step has the size of lr, whatever the gradient's") {
  for (const float gradient : {1e-3f, 1.0f, 1e15f, -1e15f}) {
    const auto p = parameter(0.0f);
    optim::Adam optimizer({p}, {.lr = 0.125});
    step(optimizer, p, gradient);
    CHECK(p.value()[0] == doctest::Approx(gradient > 0 ? -0.125 : 0.125).epsilon(2e-5));
  }
}

TEST_CASE("two steps by hand") {
  const auto p = parameter(1.0);
  optim::Adam optimizer({p}, {.lr = 0.1, .betas = {0.5, 0.75}, .eps = 0.25});
  step(optimizer, p, 2.0);
  // m = 1, s = 1; corrected 2 and 4
  double expected = 1 - 0.1 * 2 / (2 + 0.25);
  CHECK(p.value()[0] == doctest::Approx(expected).epsilon(1e-14));
  step(optimizer, p, 1.0);
  // m = 1, s = 1; corrected by 1 - 0.25 and 1 - 0.5625
  expected -= 0.1 * (1 / 0.75) / (std::sqrt(1 / 0.4375) + 0.25);
  CHECK(p.value()[0] == doctest::Approx(expected).epsilon(1e-14));
}

TEST_CASE("Adam adds weight decay to the gradient, AdamW shrinks the parameter") {
  const auto p = parameter(2.0), q = parameter(2.0);
  optim::Adam adam({p}, {.lr = 0.1, .weight_decay = 0.5});
  optim::AdamW adamw({q}, {.lr = 0.1, .weight_decay = 0.5});
  step(adam, p, 0.0);
  step(adamw, q, 0.0);
  CHECK(p.value()[0] == doctest::Approx(1.9).epsilon(1e-7));
  CHECK(q.value()[0] == doctest::Approx(2 * 0.95).epsilon(1e-14));
}

TEST_CASE("the default weight decay is 0 in Adam and 0.01 in AdamW") {
  const auto p = parameter(2.0), q = parameter(2.0);
  optim::Adam adam({p});
  optim::AdamW adamw({q});
  step(adam, p, 0.0);
  step(adamw, q, 0.0);
  CHECK(p.value()[0] == 2);
  CHECK(q.value()[0] == doctest::Approx(2 * (1 - 1e-5)).epsilon(1e-14));
}

TEST_CASE("amsgrad never forgets the largest mean square") {
  const auto p = parameter(0.0), q = parameter(0.0);
  optim::Adam plain({p}, {.betas = {0.9, 0.5}});
  optim::Adam amsgrad({q}, {.betas = {0.9, 0.5}, .amsgrad = true});
  for (const double gradient : {100.0, 1.0, 1.0, 1.0}) {
    step(plain, p, gradient);
    step(amsgrad, q, gradient);
  }
  CHECK(amsgrad.groups()[0].state[0].max_exp_avg_sq[0] == doctest::Approx(5000));
  CHECK(amsgrad.groups()[0].state[0].exp_avg_sq[0] < 700);
  CHECK_FALSE(plain.groups()[0].state[0].max_exp_avg_sq.defined());
  CHECK(std::abs(q.value()[0]) < std::abs(p.value()[0]));
}

TEST_CASE("a gradient whose square overflows does no harm") {
  for (const bool amsgrad : {false, true}) {
    const auto p = parameter(1.0f);
    optim::Adam optimizer({p}, {.lr = 0.1, .amsgrad = amsgrad});
    step(optimizer, p, 1e30f);
    for (int i = 0; i < 3; ++i) step(optimizer, p, 1.0f);
    CHECK(std::isfinite(p.value()[0]));
  }
}

TEST_CASE("options that make no sense are refused by name") {
  const auto make = [](const optim::AdamOptions& options) {
    optim::Adam({parameter(1.0f)}, options);
  };
  CHECK_THROWS_WITH_AS(make({.lr = -0.5}), "Adam: lr = -0.5 must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.betas = {1, 0.9}}), "Adam: beta = 1 must be at least 0 and below 1",
                       Error);
  CHECK_THROWS_WITH_AS(make({.betas = {0.9, -0.5}}),
                       "Adam: beta = -0.5 must be at least 0 and below 1", Error);
  CHECK_THROWS_WITH_AS(make({.eps = -1}), "Adam: eps = -1 must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.weight_decay = -1}), "Adam: weight_decay = -1 must be at least 0",
                       Error);
  CHECK_THROWS_WITH_AS(optim::AdamW({parameter(1.0f)}, {.lr = -1}),
                       "AdamW: lr = -1 must be at least 0", Error);
}
