#include "minnow/optim/reduce_lr_on_plateau.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "minnow/optim/sgd.hpp"

using namespace minnow;

namespace {

Variable<float> parameter() { return Variable<float>(Tensor<float>::ones({1}), true); }

}  // namespace

TEST_CASE("ReduceLROnPlateau waits, reduces, cools down and stops at the least") {
  optim::SGD optimizer({parameter()}, {.lr = 1});
  optim::ReduceLROnPlateau scheduler(optimizer,
                                     {.factor = 0.5, .patience = 1, .cooldown = 2, .min_lr = 0.3});
  const auto after = [&](double metric) {
    scheduler.step(metric);
    return optimizer.lr();
  };
  CHECK(after(5) == 1);
  CHECK(after(4.9999) == 1);  // by less than the threshold: the first bad epoch
  CHECK(after(4) == 1);       // better: counting starts anew
  CHECK(after(4) == 1);
  CHECK(after(4) == 0.5);
  CHECK(after(4) == 0.5);  // cooling down
  CHECK(after(4) == 0.5);
  CHECK(after(4) == 0.5);
  CHECK(after(std::numeric_limits<double>::quiet_NaN()) == 0.3);
  CHECK(scheduler.best() == 4);
  CHECK(scheduler.last_epoch() == 9);
  for (int i = 0; i < 10; ++i) CHECK(after(4) == 0.3);
}

TEST_CASE("ReduceLROnPlateau compares by mode and threshold") {
  using optim::PlateauMode, optim::ThresholdMode;
  struct Case {
    PlateauMode mode;
    ThresholdMode threshold_mode;
    double enough, too_little;
  };
  for (const Case& c : {Case{PlateauMode::min, ThresholdMode::rel, 8.9, 9.1},
                        Case{PlateauMode::min, ThresholdMode::abs, 9.8, 9.95},
                        Case{PlateauMode::max, ThresholdMode::rel, 11.1, 10.9},
                        Case{PlateauMode::max, ThresholdMode::abs, 10.2, 10.05}}) {
    for (const bool better : {true, false}) {
      optim::SGD optimizer({parameter()}, {.lr = 1});
      optim::ReduceLROnPlateau scheduler(
          optimizer,
          {.mode = c.mode, .patience = 0, .threshold = 0.1, .threshold_mode = c.threshold_mode});
      scheduler.step(10);
      scheduler.step(better ? c.enough : c.too_little);
      CHECK(optimizer.lr() == (better ? 1 : 0.1));
      CHECK(scheduler.best() == (better ? c.enough : 10));
    }
  }
}

TEST_CASE("ReduceLROnPlateau leaves changes below eps undone") {
  optim::SGD optimizer({parameter()}, {.lr = 1e-8});
  optim::ReduceLROnPlateau scheduler(optimizer, {.patience = 0});
  for (int i = 0; i < 3; ++i) scheduler.step(1);
  CHECK(optimizer.lr() == 1e-8);
}

TEST_CASE("every group has its own least learning rate") {
  optim::SGD optimizer({parameter()}, {.lr = 0.5});
  optimizer.add_group({parameter()}, {.lr = 0.05});
  optim::ReduceLROnPlateau plateau(optimizer, {.patience = 0, .min_lr = {0.3, 0}});
  plateau.step(1);
  plateau.step(1);
  CHECK(optimizer.lr(0) == 0.3);
  CHECK(optimizer.lr(1) == doctest::Approx(0.005));
}

TEST_CASE("ReduceLROnPlateau goes on where its state was taken") {
  optim::SGD optimizer({parameter()}, {.lr = 1});
  optim::ReduceLROnPlateau first(optimizer, {.patience = 1}), second(optimizer, {.patience = 1});
  first.step(1);
  first.step(1);
  second.load_state_dict(first.state_dict());
  second.step(1);
  CHECK(optimizer.lr() == doctest::Approx(0.1));
}

TEST_CASE("numbers that make no schedule are refused, and groups that came later") {
  optim::SGD optimizer({parameter()}, {.lr = 1});
  CHECK_THROWS_WITH_AS(optim::ReduceLROnPlateau(optimizer, {.factor = 1}),
                       "ReduceLROnPlateau: factor = 1 must be between 0 and 1", Error);
  CHECK_THROWS_WITH_AS(optim::ReduceLROnPlateau(optimizer, {.patience = -1}),
                       "ReduceLROnPlateau: patience = -1 and cooldown = 0 must not be negative",
                       Error);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(optim::ReduceLROnPlateau(optimizer, {.threshold = nan}), Error);

  optim::ReduceLROnPlateau plateau(optimizer);
  StateDict state = plateau.state_dict();
  state["best"] = Tensor<double>::scalar(nan);
  CHECK_THROWS_WITH_AS(plateau.load_state_dict(state),
                       "ReduceLROnPlateau: the state's best is no number", Error);
  state["best"] = Tensor<double>::scalar(1);
  state["cooldown"] = Tensor<std::int64_t>::scalar(-1);
  CHECK_THROWS_WITH_AS(plateau.load_state_dict(state),
                       "ReduceLROnPlateau: the state's cooldown is -1", Error);
  state["cooldown"] = Tensor<double>::scalar(1);
  CHECK_THROWS_WITH_AS(plateau.load_state_dict(state),
                       "ReduceLROnPlateau: the state's cooldown holds no integers", Error);
  optimizer.add_group({parameter()}, {});
  CHECK_THROWS_WITH_AS(
      plateau.step(1),
      "scheduler: made for 1 groups of parameters, the optimizer has 2 now; add the groups first",
      Error);
}
