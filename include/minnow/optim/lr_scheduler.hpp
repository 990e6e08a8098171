#pragma once
/// @file
/// Schedules of the learning rate, as in PyTorch: each changes the options of an optimiser's
/// groups.

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <utility>
#include <vector>

#include "minnow/optim/per_group.hpp"

namespace minnow::inline MINNOW_ABI::optim {

/// A schedule that follows from the number of steps alone. The optimiser must outlive it and keep
/// its groups; several schedules of one optimiser act one after the other, as in PyTorch,
/// but each starts from the rates that it finds when it is made.
///
///     optim::StepLR scheduler(optimizer, {.step_size = 6, .gamma = 0.1});
///     for (int epoch = 0; epoch < epochs; ++epoch) {
///       train_one_epoch();  // calls optimizer.step()
///       scheduler.step();
///     }
class LRScheduler {
 public:
  virtual ~LRScheduler() = default;

  /// To be called after each epoch (OneCycleLR: after each batch), behind the optimiser's steps.
  /// Errors: Error if groups were added since the schedule was made. After an error the schedule is
  /// where it was.
  void step() {
    detail::check_group_count(*optimizer_, base_lrs_.size());
    ++last_epoch_;
    try {
      update();
    } catch (...) {
      --last_epoch_;
      throw;
    }
  }

  std::int64_t last_epoch() const { return last_epoch_; }

  /// How many steps were made, "last_epoch", and the groups' learning rates when the schedule was
  /// made, "base_lrs".
  StateDict state_dict() const {
    return {{"last_epoch", Tensor<std::int64_t>::scalar(last_epoch_)},
            {"base_lrs", Tensor<double>({std::ssize(base_lrs_)}, base_lrs_)}};
  }
  /// Goes on where `state` was taken; the optimiser's learning rates are to be restored beside it.
  /// Errors: Error for the state of another number of groups, or a negative epoch; nothing is
  /// changed then.
  void load_state_dict(const StateDict& state) {
    const auto epoch = minnow::detail::read_entry<std::int64_t>("scheduler", state, "last_epoch");
    const auto lrs = minnow::detail::read_entry<double>("scheduler", state, "base_lrs",
                                                        {optimizer_->group_count()});
    check(epoch >= 0, "scheduler: a state after ", epoch, " epochs");
    last_epoch_ = epoch;
    base_lrs_.assign(lrs.values().begin(), lrs.values().end());
  }

 protected:
  explicit LRScheduler(OptimizerBase& optimizer) : optimizer_(&optimizer) {
    for (Index group = 0; group < optimizer.group_count(); ++group)
      base_lrs_.push_back(optimizer.lr(group));
  }

  /// Sets every group's values for `last_epoch`: by default, its learning rate to `next_lr`.
  virtual void update() {
    for (Index group = 0; group < optimizer_->group_count(); ++group)
      optimizer_->set_lr(next_lr(optimizer_->lr(group), base_lr(group), group), group);
  }
  /// The learning rate for `last_epoch`, from the present one and the one at the start.
  virtual double next_lr(double lr, double /*base_lr*/, Index /*group*/) const { return lr; }

  OptimizerBase& optimizer() const { return *optimizer_; }

 private:
  double base_lr(Index group) const { return base_lrs_[static_cast<std::size_t>(group)]; }

  OptimizerBase* optimizer_;
  std::int64_t last_epoch_ = 0;
  std::vector<double> base_lrs_;
};

struct StepLROptions {
  Index step_size;
  double gamma = 0.1;
};

/// Times gamma every `step_size` epochs. Errors: Error unless step_size and gamma are positive.
class StepLR final : public LRScheduler {
 public:
  StepLR(OptimizerBase& optimizer, const StepLROptions& options)
      : LRScheduler(optimizer), options_(options) {
    check(options.step_size > 0, "StepLR: step_size = ", options.step_size, " must be positive");
    detail::check_option(options.gamma > 0, "StepLR", "gamma", options.gamma, "positive");
  }

 private:
  double next_lr(double lr, double, Index) const override {
    return last_epoch() % options_.step_size == 0 ? lr * options_.gamma : lr;
  }

  StepLROptions options_;
};

struct MultiStepLROptions {
  std::vector<Index> milestones;
  double gamma = 0.1;
};

/// Times gamma at each of the given epochs; at one that is given twice, twice. Errors: Error unless
/// gamma is positive.
class MultiStepLR final : public LRScheduler {
 public:
  MultiStepLR(OptimizerBase& optimizer, MultiStepLROptions options)
      : LRScheduler(optimizer), options_(std::move(options)) {
    detail::check_option(options_.gamma > 0, "MultiStepLR", "gamma", options_.gamma, "positive");
    update();
  }

 private:
  double next_lr(double lr, double, Index) const override {
    const auto times = std::ranges::count(options_.milestones, last_epoch());
    return times == 0 ? lr : lr * std::pow(options_.gamma, static_cast<double>(times));
  }

  MultiStepLROptions options_;
};

struct ExponentialLROptions {
  double gamma;
};

/// Times gamma every epoch. Errors: Error unless gamma is positive.
class ExponentialLR final : public LRScheduler {
 public:
  ExponentialLR(OptimizerBase& optimizer, const ExponentialLROptions& options)
      : LRScheduler(optimizer), options_(options) {
    detail::check_option(options.gamma > 0, "ExponentialLR", "gamma", options.gamma, "positive");
  }

 private:
  double next_lr(double lr, double, Index) const override { return lr * options_.gamma; }

  ExponentialLROptions options_;
};

/// The first learning rate times any function of the epoch.
///
///     optim::LambdaLR warm_up(
///         optimizer, [](std::int64_t epoch) { return std::min(1.0, 0.1 * (epoch + 1)); });
///
/// Errors: Error unless there is one function, or one per group.
class LambdaLR final : public LRScheduler {
 public:
  using Function = std::function<double(std::int64_t epoch)>;

  LambdaLR(OptimizerBase& optimizer, Function all)
      : LambdaLR(optimizer, std::vector{std::move(all)}) {}
  LambdaLR(OptimizerBase& optimizer, std::vector<Function> lr_lambdas)
      : LRScheduler(optimizer), lr_lambdas_(std::move(lr_lambdas)) {
    check(lr_lambdas_.size() == 1 || std::ssize(lr_lambdas_) == optimizer.group_count(),
          "LambdaLR: ", lr_lambdas_.size(), " functions for ", optimizer.group_count(),
          " groups of parameters; give one, or one per group");
    for (const Function& function : lr_lambdas_)
      check(static_cast<bool>(function), "LambdaLR: a function is empty");
    update();
  }

 private:
  double next_lr(double, double base_lr, Index group) const override {
    const std::size_t which = lr_lambdas_.size() == 1 ? 0 : static_cast<std::size_t>(group);
    return base_lr * lr_lambdas_[which](last_epoch());
  }

  std::vector<Function> lr_lambdas_;
};

struct CosineAnnealingLROptions {
  Index T_max;  ///< epochs of half a wave, after which the lowest value is reached
  double eta_min = 0;
};

/// Half a cosine wave from the learning rate at the start down to `eta_min`, and up again if
/// stepped on. Errors: Error unless T_max is positive and eta_min at least 0.
///
/// Paper: Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
/// without the restarts.
class CosineAnnealingLR final : public LRScheduler {
 public:
  CosineAnnealingLR(OptimizerBase& optimizer, const CosineAnnealingLROptions& options)
      : LRScheduler(optimizer), options_(options) {
    check(options.T_max > 0, "CosineAnnealingLR: T_max = ", options.T_max, " must be positive");
    detail::check_option(options.eta_min >= 0, "CosineAnnealingLR", "eta_min", options.eta_min,
                         "at least 0");
  }

 private:
  // From step to step, so that other schedules of the same optimiser keep their effect.
  double next_lr(double lr, double base_lr, Index) const override {
    const double eta_min = options_.eta_min;
    const auto wave = [&](std::int64_t epoch) {
      return 1 + std::cos(std::numbers::pi * static_cast<double>(epoch) /
                          static_cast<double>(options_.T_max));
    };
    const std::int64_t before = last_epoch() - 1;
    // At the lowest point there is nothing to scale.
    if ((before - options_.T_max) % (2 * options_.T_max) == 0)
      return lr + (base_lr - eta_min) * (2 - wave(1)) / 2;
    return wave(last_epoch()) / wave(before) * (lr - eta_min) + eta_min;
  }

  CosineAnnealingLROptions options_;
};

/// How a value moves from one end of a phase to the other.
enum class Anneal { cos, linear };

struct OneCycleLROptions {
  PerGroup max_lr;
  std::int64_t total_steps;  ///< batches of the whole training
  double pct_start = 0.3;    ///< share of the steps that rise to max_lr
  Anneal anneal = Anneal::cos;
  bool cycle_momentum = true;  ///< lower the momentum (Adam: the first beta) while lr is high
  PerGroup base_momentum = 0.85;
  PerGroup max_momentum = 0.95;
  double div_factor = 25;         ///< max_lr over the first learning rate
  double final_div_factor = 1e4;  ///< the first learning rate over the last
  bool three_phase = false;       ///< fall as fast as rise, then on to the last value
};

/// One rise of the learning rate to `max_lr` and one long fall, while the momentum does the
/// reverse. `step` is to be called after every batch.
///
///     optim::OneCycleLR scheduler(optimizer, {.max_lr = 0.1, .total_steps = epochs * batches});
///
/// Errors: Error for counts, shares or divisors that make no sense, for a number of values other
/// than one or one per group, and for more than `total_steps` steps.
///
/// Paper: Smith, Topin, "Super-convergence: very fast training of neural networks using large
/// learning rates", 2018.
class OneCycleLR final : public LRScheduler {
 public:
  OneCycleLR(OptimizerBase& optimizer, const OneCycleLROptions& options)
      : LRScheduler(optimizer),
        options_(options),
        max_lr_(options.max_lr.expand(optimizer.group_count(), "OneCycleLR: max_lr")),
        base_momentum_(
            options.base_momentum.expand(optimizer.group_count(), "OneCycleLR: base_momentum")),
        max_momentum_(
            options.max_momentum.expand(optimizer.group_count(), "OneCycleLR: max_momentum")) {
    check(options.total_steps > 0, "OneCycleLR: total_steps = ", options.total_steps,
          " must be positive");
    check(options.pct_start >= 0 && options.pct_start <= 1,
          "OneCycleLR: pct_start = ", options.pct_start,
          " must be in [0, 1]: it is a share, not a percentage");
    check(options.div_factor > 0 && options.final_div_factor > 0,
          "OneCycleLR: div_factor = ", options.div_factor,
          " and final_div_factor = ", options.final_div_factor, " must be positive");
    for (const double lr : max_lr_)
      detail::check_option(lr > 0, "OneCycleLR", "max_lr", lr, "positive");
    update();
  }

 private:
  /// A corner of the cycle: where it lies, lr as a multiple of max_lr, and the momentum as a place
  /// between base (0) and max (1).
  struct Corner {
    double step, lr, momentum;
  };

  void update() override {
    check(last_epoch() <= options_.total_steps, "OneCycleLR: step ", last_epoch(),
          " of total_steps = ", options_.total_steps,
          "; call step() once per batch, and count the batches of all epochs");
    const auto total = static_cast<double>(options_.total_steps);
    const double rise = options_.pct_start * total;
    const double first = 1 / options_.div_factor;
    std::vector<Corner> corners = {{0, first, 1}, {rise - 1, 1, 0}};
    if (options_.three_phase) corners.push_back({2 * rise - 2, first, 1});
    corners.push_back({total - 1, first / options_.final_div_factor, 1});

    const auto step = static_cast<double>(last_epoch());
    std::size_t i = 1;
    while (i + 1 < corners.size() && step > corners[i].step) ++i;
    const Corner &from = corners[i - 1], &to = corners[i];
    // A phase of no length has passed.
    const double share = to.step == from.step ? 1 : (step - from.step) / (to.step - from.step);
    const double lr = anneal(from.lr, to.lr, share);
    const double momentum = anneal(from.momentum, to.momentum, share);
    for (Index group = 0; group < optimizer().group_count(); ++group) {
      const auto g = static_cast<std::size_t>(group);
      optimizer().set_lr(lr * max_lr_[g], group);
      if (options_.cycle_momentum)
        optimizer().set_momentum(
            base_momentum_[g] + momentum * (max_momentum_[g] - base_momentum_[g]), group);
    }
  }

  double anneal(double from, double to, double share) const {
    if (options_.anneal == Anneal::linear) return (to - from) * share + from;
    return to + (from - to) / 2 * (std::cos(std::numbers::pi * share) + 1);
  }

  OneCycleLROptions options_;
  std::vector<double> max_lr_, base_momentum_, max_momentum_;
};

}  // namespace minnow::inline MINNOW_ABI::optim
