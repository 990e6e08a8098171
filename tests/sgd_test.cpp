#include "minnow/optim/sgd.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace minnow;

namespace {

Variable<double> parameter(double value) {
  return Variable<double>(Tensor<double>({1}, {value}), true);
}

// The parameter after each step with the given gradients.
std::vector<double> path(const optim::SGDOptions& options, std::vector<double> gradients) {
  Variable<double> p = parameter(1);
  optim::SGD optimizer({p}, options);
  std::vector<double> values;
  for (const double gradient : gradients) {
    p.mutable_grad() = Tensor<double>({1}, {gradient});
    optimizer.step();
    values.push_back(p.value()[0]);
  }
  return values;
}

void check_path(const std::vector<double>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    CHECK(actual[i] == doctest::Approx(expected[i]).epsilon(1e-14));
}

}  // namespace

TEST_CASE("plain descent subtracts lr times the gradient") {
  check_path(path({.lr = 0.5}, {1, -2, 0}), {0.5, 1.5, 1.5});
}

TEST_CASE("momentum adds up a velocity that is free of lr") {
  // v = 1, 1.5, 1.75
  check_path(path({.lr = 0.1, .momentum = 0.5}, {1, 1, 1}), {0.9, 0.75, 0.575});

  Variable<double> p = parameter(0);
  optim::SGD optimizer({p}, {.lr = 0.1, .momentum = 1});
  p.mutable_grad() = Tensor<double>({1}, {1.0});
  optimizer.step();
  CHECK(optimizer.groups()[0].state[0].momentum_buffer[0] == 1);
  optimizer.set_lr(10, 0);
  p.mutable_grad() = Tensor<double>({1}, {0.0});
  optimizer.step();
  CHECK(p.value()[0] == doctest::Approx(-10.1));
}

TEST_CASE("dampening spares the first gradient") {
  // v = 1, 0.5 + 0.25, 0.375 + 0.25
  check_path(path({.lr = 1, .momentum = 0.5, .dampening = 0.75}, {1, 1, 1}), {0, -0.75, -1.375});
}

TEST_CASE("nesterov looks ahead along the velocity") {
  // v = 1, 1.5; steps g + 0.5 v
  check_path(path({.lr = 1, .momentum = 0.5, .nesterov = true}, {1, 1}), {-0.5, -2.25});
}

TEST_CASE("weight decay pulls towards zero, through the velocity") {
  check_path(path({.lr = 0.5, .weight_decay = 0.2}, {0, 0}), {0.9, 0.81});
  // g = 0.2 p: v = 0.2, then 0.1 + 0.18
  check_path(path({.lr = 0.5, .momentum = 0.5, .weight_decay = 0.2}, {0, 0}), {0.9, 0.76});
}

TEST_CASE("without momentum there is no velocity") {
  Variable<double> p = parameter(1);
  optim::SGD optimizer({p}, {.lr = 0.5});
  p.mutable_grad() = Tensor<double>({1}, {1.0});
  optimizer.step();
  CHECK_FALSE(optimizer.groups()[0].state[0].momentum_buffer.defined());
}

TEST_CASE("options that make no sense are refused by name") {
  const auto make = [](const optim::SGDOptions& options) { optim::SGD({parameter(1)}, options); };
  CHECK_NOTHROW(make({.lr = 0}));
  CHECK_THROWS_WITH_AS(make({.lr = -0.1}), "SGD: lr = -0.1 must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.lr = std::numeric_limits<double>::quiet_NaN()}),
                       "SGD: lr = nan must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.lr = std::numeric_limits<double>::infinity()}),
                       "SGD: lr = inf must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.momentum = -1}), "SGD: momentum = -1 must be at least 0", Error);
  CHECK_THROWS_WITH_AS(make({.weight_decay = -1}), "SGD: weight_decay = -1 must be at least 0",
                       Error);
  const char* nesterov = "SGD: nesterov needs momentum > 0 and dampening = 0, got momentum = ";
  CHECK_THROWS_WITH_AS(make({.nesterov = true}), text(nesterov, "0 and dampening = 0").c_str(),
                       Error);
  CHECK_THROWS_WITH_AS(make({.momentum = 0.9, .dampening = 0.5, .nesterov = true}),
                       text(nesterov, "0.9 and dampening = 0.5").c_str(), Error);
  optim::SGD optimizer({parameter(1)}, {});
  CHECK_THROWS_WITH_AS(optimizer.add_group({parameter(2)}, {.lr = -1}),
                       "SGD: lr = -1 must be at least 0", Error);
}
