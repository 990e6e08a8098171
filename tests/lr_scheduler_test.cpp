#include "minnow/optim/lr_scheduler.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "minnow/optim/adam.hpp"
#include "minnow/optim/sgd.hpp"

using namespace minnow;

namespace {

Variable<float> parameter() { return Variable<float>(Tensor<float>::ones({1}), true); }

// The learning rate at the start and after each of `steps` steps.
std::vector<double> curve(optim::OptimizerBase& optimizer, optim::LRScheduler& scheduler,
                          int steps) {
  std::vector<double> values = {optimizer.lr()};
  for (int i = 0; i < steps; ++i) {
    scheduler.step();
    values.push_back(optimizer.lr());
  }
  return values;
}

void check_curve(const std::vector<double>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    CAPTURE(i);
    CHECK(actual[i] == doctest::Approx(expected[i]).epsilon(1e-12));
  }
}

}  // namespace

TEST_CASE("StepLR, MultiStepLR, ExponentialLR and LambdaLR by hand") {
  {
    optim::SGD optimizer({parameter()}, {.lr = 1});
    optim::StepLR scheduler(optimizer, {.step_size = 2});
    check_curve(curve(optimizer, scheduler, 5), {1, 1, 0.1, 0.1, 0.01, 0.01});
  }
  {
    optim::SGD optimizer({parameter()}, {.lr = 1});
    optim::MultiStepLR scheduler(optimizer, {.milestones = {3, 1, 3}, .gamma = 0.5});
    check_curve(curve(optimizer, scheduler, 4), {1, 0.5, 0.5, 0.125, 0.125});
  }
  {
    optim::SGD optimizer({parameter()}, {.lr = 1});
    optim::MultiStepLR scheduler(optimizer, {.milestones = {0}});
    check_curve(curve(optimizer, scheduler, 1), {0.1, 0.1});
  }
  {
    optim::SGD optimizer({parameter()}, {.lr = 2});
    optim::ExponentialLR scheduler(optimizer, {.gamma = 0.5});
    check_curve(curve(optimizer, scheduler, 3), {2, 1, 0.5, 0.25});
  }
  {
    optim::SGD optimizer({parameter()}, {.lr = 2});
    optim::LambdaLR scheduler(
        optimizer, [](std::int64_t epoch) { return 1.0 / static_cast<double>(epoch + 2); });
    check_curve(curve(optimizer, scheduler, 2), {1, 2.0 / 3, 0.5});
  }
}

TEST_CASE("CosineAnnealingLR keeps to the cosine, down and up again") {
  optim::SGD optimizer({parameter()}, {.lr = 1});
  optim::CosineAnnealingLR scheduler(optimizer, {.T_max = 10, .eta_min = 0.2});
  std::vector<double> expected;
  for (int i = 0; i <= 45; ++i)
    expected.push_back(0.2 + 0.4 * (1 + std::cos(std::numbers::pi * i / 10)));
  check_curve(curve(optimizer, scheduler, 45), expected);
}

TEST_CASE("CosineAnnealingLR with half a wave of one epoch") {
  optim::SGD optimizer({parameter()}, {.lr = 1});
  optim::CosineAnnealingLR scheduler(optimizer, {.T_max = 1});
  check_curve(curve(optimizer, scheduler, 3), {1, 0, 1, 0});
}

TEST_CASE("OneCycleLR meets its corners and moves the momentum against them") {
  optim::SGD optimizer({parameter()}, {.lr = 7, .momentum = 0.5});
  optim::OneCycleLR scheduler(optimizer, {.max_lr = 0.5, .total_steps = 100});
  const auto check_at = [&](double lr, double momentum) {
    CHECK(optimizer.lr() == doctest::Approx(lr).epsilon(1e-12));
    CHECK(optimizer.momentum() == doctest::Approx(momentum).epsilon(1e-12));
  };
  check_at(0.02, 0.95);
  while (scheduler.last_epoch() < 29) scheduler.step();
  check_at(0.5, 0.85);
  while (scheduler.last_epoch() < 64) scheduler.step();
  check_at((0.5 + 2e-6) / 2, 0.9);
  while (scheduler.last_epoch() < 99) scheduler.step();
  check_at(2e-6, 0.95);
  scheduler.step();
  CHECK_THROWS_WITH_AS(scheduler.step(),
                       "OneCycleLR: step 101 of total_steps = 100; call step() once per batch, and "
                       "count the batches of "
                       "all epochs",
                       Error);
  CHECK(scheduler.last_epoch() == 100);
}

TEST_CASE("OneCycleLR in three phases falls as fast as it rose") {
  optim::Adam optimizer({parameter()}, {.lr = 7});
  optim::OneCycleLR scheduler(optimizer, {.max_lr = 1,
                                          .total_steps = 100,
                                          .pct_start = 0.4,
                                          .anneal = optim::Anneal::linear,
                                          .div_factor = 10,
                                          .final_div_factor = 100,
                                          .three_phase = true});
  std::vector<double> lr = {optimizer.lr()}, beta = {optimizer.groups()[0].options.betas[0]};
  for (int i = 1; i < 100; ++i) {
    scheduler.step();
    lr.push_back(optimizer.lr());
    beta.push_back(optimizer.groups()[0].options.betas[0]);
  }
  CHECK(lr[0] == doctest::Approx(0.1));
  CHECK(lr[13] == doctest::Approx(0.4));
  CHECK(lr[39] == doctest::Approx(1));
  CHECK(lr[78] == doctest::Approx(0.1));
  CHECK(lr[99] == doctest::Approx(0.001));
  CHECK(beta[0] == doctest::Approx(0.95));
  CHECK(beta[39] == doctest::Approx(0.85));
  CHECK(beta[78] == doctest::Approx(0.95));
  CHECK(beta[90] == doctest::Approx(0.95));
  for (std::size_t i = 1; i <= 39; ++i) CHECK(lr[39 + i] == doctest::Approx(lr[39 - i]));
}

TEST_CASE("OneCycleLR without a rise, without a fall, and of one step") {
  const auto lr_at = [](double pct_start, std::int64_t total, std::int64_t step) {
    optim::SGD optimizer({parameter()}, {.momentum = 0.9});
    optim::OneCycleLR scheduler(optimizer, {.max_lr = 1,
                                            .total_steps = total,
                                            .pct_start = pct_start,
                                            .anneal = optim::Anneal::linear,
                                            .cycle_momentum = false});
    while (scheduler.last_epoch() < step) scheduler.step();
    CHECK(optimizer.momentum() == 0.9);
    return optimizer.lr();
  };
  CHECK(lr_at(0, 10, 0) == doctest::Approx(0.9 + 0.1 * 4e-6));
  CHECK(lr_at(0, 10, 9) == doctest::Approx(4e-6));
  CHECK(lr_at(0.1, 10, 0) == doctest::Approx(1));
  CHECK(lr_at(1, 10, 0) == doctest::Approx(0.04));
  CHECK(lr_at(1, 10, 9) == doctest::Approx(1));
  CHECK(lr_at(1, 10, 10) == doctest::Approx(4e-6));
  CHECK(lr_at(0.3, 1, 0) == doctest::Approx(4e-6));
}

TEST_CASE("every group follows the schedule from its own start") {
  optim::SGD optimizer({parameter()}, {.lr = 1, .momentum = 0.9});
  optimizer.add_group({parameter()}, {.lr = 0.01, .momentum = 0.9});
  optim::ExponentialLR exponential(optimizer, {.gamma = 0.5});
  exponential.step();
  CHECK(optimizer.lr(0) == 0.5);
  CHECK(optimizer.lr(1) == 0.005);

  using Function = optim::LambdaLR::Function;
  optim::LambdaLR lambda(optimizer, std::vector<Function>{[](std::int64_t) { return 2.0; },
                                                          [](std::int64_t) { return 3.0; }});
  CHECK(optimizer.lr(0) == 1);
  CHECK(optimizer.lr(1) == doctest::Approx(0.015));

  optim::OneCycleLR cycle(optimizer, {.max_lr = {1, 0.1},
                                      .total_steps = 10,
                                      .base_momentum = {0.5, 0.6},
                                      .max_momentum = {0.7, 0.8},
                                      .div_factor = 2});
  CHECK(optimizer.lr(0) == 0.5);
  CHECK(optimizer.lr(1) == 0.05);
  CHECK(optimizer.momentum(0) == 0.7);
  CHECK(optimizer.momentum(1) == 0.8);
}

TEST_CASE("two schedules of one optimizer act one after the other") {
  optim::SGD optimizer({parameter()}, {.lr = 1});
  optim::ExponentialLR decay(optimizer, {.gamma = 0.5});
  optim::StepLR steps(optimizer, {.step_size = 2});
  std::vector<double> lr;
  for (int i = 0; i < 4; ++i) {
    decay.step();
    steps.step();
    lr.push_back(optimizer.lr());
  }
  check_curve(lr, {0.5, 0.025, 0.0125, 0.000625});
}

TEST_CASE("a schedule goes on where its state was taken") {
  const auto run = [](int stop_at) {
    optim::SGD optimizer({parameter()}, {.lr = 1});
    optim::CosineAnnealingLR first(optimizer, {.T_max = 4, .eta_min = 0.1});
    for (int i = 0; i < stop_at; ++i) first.step();
    optim::SGD other({parameter()}, {.lr = 123});
    optim::CosineAnnealingLR second(other, {.T_max = 4, .eta_min = 0.1});
    second.load_state_dict(first.state_dict());
    other.set_lr(optimizer.lr(), 0);
    return curve(other, second, 10 - stop_at).back();
  };
  for (int stop_at = 1; stop_at < 10; ++stop_at) CHECK(run(stop_at) == run(0));
}

TEST_CASE("errors name the schedule and the value") {
  optim::SGD optimizer({parameter()}, {.lr = 1});
  CHECK_THROWS_WITH_AS(optim::StepLR(optimizer, {.step_size = 0}),
                       "StepLR: step_size = 0 must be positive", Error);
  CHECK_THROWS_WITH_AS(optim::CosineAnnealingLR(optimizer, {.T_max = 0}),
                       "CosineAnnealingLR: T_max = 0 must be positive", Error);
  CHECK_THROWS_WITH_AS(optim::OneCycleLR(optimizer, {.max_lr = 1, .total_steps = 0}),
                       "OneCycleLR: total_steps = 0 must be positive", Error);
  CHECK_THROWS_WITH_AS(
      optim::OneCycleLR(optimizer, {.max_lr = 1, .total_steps = 9, .pct_start = 30}),
      "OneCycleLR: pct_start = 30 must be in [0, 1]: it is a share, not a percentage", Error);
  CHECK_THROWS_WITH_AS(
      optim::OneCycleLR(optimizer, {.max_lr = 1, .total_steps = 9, .div_factor = 0}),
      "OneCycleLR: div_factor = 0 and final_div_factor = 10000 must be positive", Error);
  CHECK_THROWS_WITH_AS(
      optim::OneCycleLR(optimizer, {.max_lr = {1, 2}, .total_steps = 9}),
      "OneCycleLR: max_lr has 2 values for 1 groups of parameters; give one, or one per group",
      Error);
  CHECK_THROWS_WITH_AS(
      optim::LambdaLR(optimizer, std::vector<optim::LambdaLR::Function>{}),
      "LambdaLR: 0 functions for 1 groups of parameters; give one, or one per group", Error);

  optim::ExponentialLR exponential(optimizer, {.gamma = 0.5});
  optimizer.add_group({parameter()}, {});
  CHECK_THROWS_WITH_AS(
      exponential.step(),
      "scheduler: made for 1 groups of parameters, the optimizer has 2 now; add the groups first",
      Error);
}

TEST_CASE("numbers that make no schedule are refused") {
  const Variable<float> p(Tensor<float>({1}), true);
  optim::SGD optimizer({p}, {.lr = 0.1});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(optim::ExponentialLR(optimizer, {}),
                       "ExponentialLR: gamma = 0 must be positive", Error);
  CHECK_THROWS_AS(optim::StepLR(optimizer, {.step_size = 1, .gamma = nan}), Error);
  CHECK_THROWS_AS(optim::MultiStepLR(optimizer, {.milestones = {1}, .gamma = -1}), Error);
  CHECK_THROWS_AS(optim::OneCycleLR(optimizer, {.max_lr = -1, .total_steps = 3}), Error);
  CHECK_THROWS_AS(optim::CosineAnnealingLR(optimizer, {.T_max = 3, .eta_min = nan}), Error);
  CHECK_THROWS_WITH_AS(optim::LambdaLR(optimizer, optim::LambdaLR::Function{}),
                       "LambdaLR: a function is empty", Error);
  optim::StepLR scheduler(optimizer, {.step_size = 1});
  const StateDict state = scheduler.state_dict();
  const auto with = [&](const char* key, StateTensor value) {
    StateDict changed = state;
    changed[key] = std::move(value);
    return changed;
  };
  CHECK_THROWS_WITH_AS(scheduler.load_state_dict(with("base_lrs", Tensor<double>({2}))),
                       "scheduler: the state's base_lrs has shape [2], expected [1]", Error);
  CHECK_THROWS_WITH_AS(
      scheduler.load_state_dict(with("last_epoch", Tensor<std::int64_t>::scalar(-1))),
      "scheduler: a state after -1 epochs", Error);
  CHECK_THROWS_WITH_AS(scheduler.load_state_dict({}), "scheduler: the state has no last_epoch",
                       Error);
  CHECK(optimizer.lr() == 0.1);
}
