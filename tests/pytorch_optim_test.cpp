// Optimisers, schedules and clipping against PyTorch's numbers.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "minnow/optim/adam.hpp"
#include "minnow/optim/clip.hpp"
#include "minnow/optim/lr_scheduler.hpp"
#include "minnow/optim/reduce_lr_on_plateau.hpp"
#include "minnow/optim/rmsprop.hpp"
#include "minnow/optim/sgd.hpp"
#include "reference.hpp"

using namespace minnow;
using namespace minnow_test;

namespace {

template <class T>
Variable<T> start() {
  return Variable<T>(Tensor<T>({5}, {T(0.5), T(-1.25), T(2), T(-0.125), T(0.75)}), true);
}

// What differs between the paths beside the options: a new lr from step 10 on, and a step without
// gradient.
struct Path {
  double lr_from_10 = 0;
  int skip = -1;
};

// generate.py takes the same steps.
template <template <class> class Optimizer, class T, class Options>
void check_path(const Reference& reference, const std::string& name, const Options& options,
                const Path& path = {}) {
  Variable<T> p = start<T>();
  Optimizer<T> optimizer({p}, options);
  Tensor<T> values(Shape{20, 5});
  for (int step = 0; step < 20; ++step) {
    if (path.lr_from_10 > 0 && step == 10) optimizer.groups()[0].options.lr = path.lr_from_10;
    optimizer.zero_grad();
    if (step != path.skip) {
      Tensor<T> dp({5});
      for (Index i = 0; i < 5; ++i)
        dp[i] = static_cast<T>(static_cast<double>(1 + i) * static_cast<double>(p.value()[i]) +
                               std::sin(0.7 * step + static_cast<double>(i)));
      p.mutable_grad() = dp;
    }
    optimizer.step();
    values.slice(step, step + 1).copy_from(p.value().reshape({1, 5}));
  }
  check_close(values, reference, name, 2e-5);
}

}  // namespace

TEST_CASE_TEMPLATE("the optimizers take PyTorch's steps", T, float, double) {
  const Reference r("optimizers");
  using optim::SGDOptions, optim::AdamOptions, optim::AdamWOptions, optim::RMSpropOptions;

  check_path<optim::SGD, T>(r, "sgd", SGDOptions{.lr = 0.1});
  check_path<optim::SGD, T>(r, "sgd_momentum", SGDOptions{.lr = 0.02, .momentum = 0.9},
                            {.lr_from_10 = 0.002});
  check_path<optim::SGD, T>(r, "sgd_dampening",
                            SGDOptions{.lr = 0.05, .momentum = 0.9, .dampening = 0.5});
  check_path<optim::SGD, T>(r, "sgd_nesterov",
                            SGDOptions{.lr = 0.02, .momentum = 0.8, .nesterov = true}, {.skip = 3});
  check_path<optim::SGD, T>(r, "sgd_decay", SGDOptions{.lr = 0.05, .weight_decay = 0.3});
  check_path<optim::SGD, T>(
      r, "sgd_all", SGDOptions{.lr = 0.02, .momentum = 0.7, .dampening = 0.2, .weight_decay = 0.1});

  check_path<optim::Adam, T>(r, "adam", AdamOptions{}, {.skip = 0});
  check_path<optim::Adam, T>(r, "adam_options",
                             AdamOptions{.lr = 0.1, .betas = {0.7, 0.95}, .eps = 1e-2},
                             {.lr_from_10 = 0.01, .skip = 4});
  check_path<optim::Adam, T>(r, "adam_decay", AdamOptions{.lr = 0.05, .weight_decay = 0.2});
  check_path<optim::Adam, T>(
      r, "adam_amsgrad",
      AdamOptions{.lr = 0.1, .betas = {0.8, 0.6}, .weight_decay = 0.05, .amsgrad = true},
      {.skip = 6});
  check_path<optim::AdamW, T>(r, "adamw", AdamWOptions{}, {.skip = 2});
  check_path<optim::AdamW, T>(
      r, "adamw_options",
      AdamWOptions{.lr = 0.1, .betas = {0.8, 0.9}, .eps = 1e-3, .weight_decay = 0.4});
  check_path<optim::AdamW, T>(r, "adamw_amsgrad",
                              AdamWOptions{.lr = 0.1, .betas = {0.8, 0.6}, .amsgrad = true});

  check_path<optim::RMSprop, T>(r, "rmsprop", RMSpropOptions{}, {.skip = 5});
  check_path<optim::RMSprop, T>(
      r, "rmsprop_options",
      RMSpropOptions{.lr = 0.05, .alpha = 0.8, .eps = 1e-2, .weight_decay = 0.2},
      {.lr_from_10 = 0.01});
  check_path<optim::RMSprop, T>(r, "rmsprop_momentum",
                                RMSpropOptions{.lr = 0.01, .alpha = 0.9, .momentum = 0.8});
  check_path<optim::RMSprop, T>(r, "rmsprop_centered",
                                RMSpropOptions{.lr = 0.02, .alpha = 0.9, .centered = true});
  check_path<optim::RMSprop, T>(
      r, "rmsprop_all",
      RMSpropOptions{
          .lr = 0.01, .alpha = 0.9, .weight_decay = 0.1, .momentum = 0.5, .centered = true});
  CHECK(r.unused() == "");
}

TEST_CASE_TEMPLATE("clipping by norm gives PyTorch's norms and gradients", T, float, double) {
  const Reference r("clipping");
  const auto check_clip = [&](const std::string& name, double norm_type) {
    Variable<T> p(Tensor<T>({3, 2}), true), q(Tensor<T>({5}), true);
    p.mutable_grad() = r.tensor<T>(name + "/p");
    q.mutable_grad() = r.tensor<T>(name + "/q");
    const double norm = optim::clip_grad_norm(std::vector{p, q}, 1.5, norm_type);
    check_close(Tensor<T>::scalar(static_cast<T>(norm)), r, name + "/norm", 1e-6);
    check_close(p.grad(), r, name + "/clipped_p", 1e-6);
    check_close(q.grad(), r, name + "/clipped_q", 1e-6);
  };
  check_clip("two", 2);
  check_clip("one", 1);
  check_clip("three", 3);
  check_clip("half", 0.5);
  check_clip("largest", std::numeric_limits<double>::infinity());
  CHECK(r.unused() == "");
}

namespace {

void check_curve(const Tensor<double>& actual, const Reference& reference,
                 const std::string& name) {
  // The files hold twelve digits; a learning rate of zero may be a rounding error.
  const auto comparison = minnow::testing::compare(actual, reference.tensor(name), 1e-10, 1e-16);
  CHECK_MESSAGE(comparison.close, name, ": ", comparison.message);
}

// The learning rate, and on request the momentum, at the start and after each step.
template <class MakeSchedules>
void check_schedule(const Reference& reference, const std::string& name,
                    optim::OptimizerBase& optimizer, bool momentum, const MakeSchedules& make) {
  auto schedules = make(optimizer);
  const Index columns = momentum ? 2 : 1;
  const Index rows = reference.tensor(name).size(0);
  Tensor<double> values = momentum ? Tensor<double>({rows, 2}) : Tensor<double>({rows});
  for (Index step = 0; step < rows; ++step) {
    if (step > 0) std::apply([](auto&... schedule) { (schedule.step(), ...); }, schedules);
    values[step * columns] = optimizer.lr();
    if (momentum) values[step * columns + 1] = optimizer.momentum();
  }
  check_curve(values, reference, name);
}

}  // namespace

TEST_CASE("the schedules follow PyTorch's curves") {
  const Reference r("schedulers");
  using optim::OptimizerBase;
  const auto curve = [&](const std::string& name, const auto& make) {
    optim::SGD optimizer({start<float>()}, {.lr = 0.3, .momentum = 0.9});
    check_schedule(r, name, optimizer, false, make);
  };
  curve("step", [](OptimizerBase& o) {
    return std::tuple(optim::StepLR(o, {.step_size = 7, .gamma = 0.3}));
  });
  curve("multi_step", [](OptimizerBase& o) {
    return std::tuple(optim::MultiStepLR(o, {.milestones = {0, 3, 5, 5, 20}, .gamma = 0.5}));
  });
  curve("exponential",
        [](OptimizerBase& o) { return std::tuple(optim::ExponentialLR(o, {.gamma = 0.93})); });
  curve("lambda", [](OptimizerBase& o) {
    return std::tuple(optim::LambdaLR(
        o, [](std::int64_t epoch) { return 1 / (1 + 0.5 * static_cast<double>(epoch)); }));
  });
  curve("cosine",
        [](OptimizerBase& o) { return std::tuple(optim::CosineAnnealingLR(o, {.T_max = 12})); });
  curve("cosine_eta_min", [](OptimizerBase& o) {
    return std::tuple(optim::CosineAnnealingLR(o, {.T_max = 25, .eta_min = 0.01}));
  });
  curve("cosine_long", [](OptimizerBase& o) {
    return std::tuple(optim::CosineAnnealingLR(o, {.T_max = 200, .eta_min = 1e-5}));
  });
  curve("exponential_and_cosine", [](OptimizerBase& o) {
    return std::tuple(optim::ExponentialLR(o, {.gamma = 0.95}),
                      optim::CosineAnnealingLR(o, {.T_max = 9, .eta_min = 0.02}));
  });

  const auto one_cycle = [&](const std::string& name, const optim::OneCycleLROptions& options) {
    const auto make = [&](OptimizerBase& o) { return std::tuple(optim::OneCycleLR(o, options)); };
    optim::SGD sgd({start<float>()}, {.lr = 0.3, .momentum = 0.9});
    optim::Adam adam({start<float>()}, {.lr = 0.3});
    OptimizerBase& optimizer = name.ends_with("adam") ? static_cast<OptimizerBase&>(adam) : sgd;
    check_schedule(r, name, optimizer, true, make);
  };
  one_cycle("one_cycle", {.max_lr = 0.1, .total_steps = 60});
  one_cycle("one_cycle_adam", {.max_lr = 0.01, .total_steps = 41});
  one_cycle("one_cycle_linear",
            {.max_lr = 0.5, .total_steps = 50, .pct_start = 0.45, .anneal = optim::Anneal::linear});
  one_cycle("one_cycle_three_phase",
            {.max_lr = 0.2, .total_steps = 57, .pct_start = 0.4, .three_phase = true});
  one_cycle("one_cycle_options", {.max_lr = 1,
                                  .total_steps = 33,
                                  .pct_start = 0.21,
                                  .anneal = optim::Anneal::linear,
                                  .base_momentum = 0.7,
                                  .max_momentum = 0.99,
                                  .div_factor = 7,
                                  .final_div_factor = 300,
                                  .three_phase = true});
  one_cycle("one_cycle_fixed_momentum",
            {.max_lr = 0.1, .total_steps = 25, .cycle_momentum = false});
  one_cycle("one_cycle_no_rise", {.max_lr = 0.1, .total_steps = 20, .pct_start = 0});

  const auto plateau = [&](const std::string& name, double sign,
                           const optim::ReduceLROnPlateauOptions& options) {
    optim::SGD optimizer({start<float>()}, {.lr = 0.3, .momentum = 0.9});
    optim::ReduceLROnPlateau scheduler(optimizer, options);
    const Tensor<double> metric = r.tensor("metric");
    Tensor<double> values(metric.shape());
    for (Index i = 0; i < metric.size(); ++i) {
      scheduler.step(sign * metric[i]);
      values[i] = optimizer.lr();
    }
    check_curve(values, r, name);
  };
  using optim::PlateauMode, optim::ThresholdMode;
  plateau("plateau", 1, {.patience = 2});
  plateau("plateau_default", 1, {});
  plateau("plateau_abs", 1,
          {.factor = 0.5,
           .patience = 1,
           .threshold = 0.05,
           .threshold_mode = ThresholdMode::abs,
           .cooldown = 2});
  plateau("plateau_max", -1,
          {.mode = PlateauMode::max,
           .factor = 0.3,
           .patience = 2,
           .threshold = 0.01,
           .threshold_mode = ThresholdMode::abs});
  plateau("plateau_max_rel", 1,
          {.mode = PlateauMode::max, .factor = 0.3, .patience = 3, .threshold = 0.05});
  plateau("plateau_min_lr", 1,
          {.factor = 0.2, .patience = 0, .cooldown = 1, .min_lr = 1e-3, .eps = 1e-3});
  CHECK(r.unused() == "");
}
