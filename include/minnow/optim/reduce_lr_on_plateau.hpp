#pragma once
/// @file
/// The schedule that looks at a metric, as in PyTorch: `ReduceLROnPlateau`.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "minnow/optim/per_group.hpp"

namespace minnow::inline MINNOW_ABI::optim {

enum class PlateauMode { min, max };  ///< is the metric to fall (a loss) or to rise (an accuracy)?
enum class ThresholdMode { rel, abs };  ///< is the threshold a share of the best or a difference?

struct ReduceLROnPlateauOptions {
  PlateauMode mode = PlateauMode::min;
  double factor = 0.1;
  Index patience = 10;  ///< epochs without improvement that are borne
  double threshold = 1e-4;
  ThresholdMode threshold_mode = ThresholdMode::rel;
  Index cooldown = 0;  ///< epochs after a change in which nothing is counted
  PerGroup min_lr = 0;
  double eps = 1e-8;  ///< smaller changes are not made
};

/// Times `factor` whenever a metric has not improved for more than `patience` epochs. NaN is no
/// improvement.
///
///     optim::ReduceLROnPlateau scheduler(optimizer, {.patience = 3});
///     scheduler.step(test_loss);  // after each epoch
///
/// Errors: Error unless 0 < factor < 1 and the counts are not negative.
class ReduceLROnPlateau {
 public:
  /// What is saved to go on later, beside the optimiser's learning rates.
  struct State {
    double best;
    Index bad_epochs = 0, cooldown = 0;
    std::int64_t last_epoch = 0;
  };

  explicit ReduceLROnPlateau(OptimizerBase& optimizer, const ReduceLROnPlateauOptions& options = {})
      : optimizer_(&optimizer),
        options_(options),
        min_lr_(options.min_lr.expand(optimizer.group_count(), "ReduceLROnPlateau: min_lr")) {
    check(options.factor > 0 && options.factor < 1, "ReduceLROnPlateau: factor = ", options.factor,
          " must be between 0 and 1");
    check(options.patience >= 0 && options.cooldown >= 0,
          "ReduceLROnPlateau: patience = ", options.patience, " and cooldown = ", options.cooldown,
          " must not be negative");
    detail::check_option(true, "ReduceLROnPlateau", "threshold", options.threshold, "finite");
    state_.best =
        std::numeric_limits<double>::infinity() * (options.mode == PlateauMode::min ? 1 : -1);
  }

  /// To be called after each epoch with its metric. Errors: Error if groups were added since.
  void step(double metric) {
    detail::check_group_count(*optimizer_, min_lr_.size());
    ++state_.last_epoch;
    const bool better = improves(metric);
    if (better) state_.best = metric;
    state_.bad_epochs = better ? 0 : state_.bad_epochs + 1;
    if (state_.cooldown > 0) {
      --state_.cooldown;
      state_.bad_epochs = 0;
    }
    if (state_.bad_epochs <= options_.patience) return;
    reduce();
    state_.cooldown = options_.cooldown;
    state_.bad_epochs = 0;
  }

  const State& state() const { return state_; }
  /// Errors: Error for counts below zero, or a `best` that is NaN.
  void set_state(const State& state) {
    check(state.bad_epochs >= 0 && state.cooldown >= 0 && state.last_epoch >= 0 &&
              !std::isnan(state.best),
          "ReduceLROnPlateau: a state with best = ", state.best,
          ", bad_epochs = ", state.bad_epochs, ", cooldown = ", state.cooldown,
          ", last_epoch = ", state.last_epoch,
          "; best must be a number and none of the others negative");
    state_ = state;
  }

 private:
  bool improves(double metric) const {
    const bool falls = options_.mode == PlateauMode::min;
    const double threshold = falls ? -options_.threshold : options_.threshold;
    const double bar = options_.threshold_mode == ThresholdMode::rel ? state_.best * (1 + threshold)
                                                                     : state_.best + threshold;
    return falls ? metric < bar : metric > bar;
  }

  void reduce() {
    for (Index group = 0; group < optimizer_->group_count(); ++group) {
      const double lr = optimizer_->lr(group);
      const double lower = std::max(lr * options_.factor, min_lr_[static_cast<std::size_t>(group)]);
      if (lr - lower > options_.eps) optimizer_->set_lr(lower, group);
    }
  }

  OptimizerBase* optimizer_;
  ReduceLROnPlateauOptions options_;
  std::vector<double> min_lr_;
  State state_;
};

}  // namespace minnow::inline MINNOW_ABI::optim
