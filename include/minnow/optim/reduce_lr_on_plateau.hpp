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
    best_ = std::numeric_limits<double>::infinity() * (options.mode == PlateauMode::min ? 1 : -1);
  }

  /// To be called after each epoch with its metric. Errors: Error if groups were added since.
  void step(double metric) {
    detail::check_group_count(*optimizer_, min_lr_.size());
    ++last_epoch_;
    const bool better = improves(metric);
    if (better) best_ = metric;
    bad_epochs_ = better ? 0 : bad_epochs_ + 1;
    if (cooldown_ > 0) {
      --cooldown_;
      bad_epochs_ = 0;
    }
    if (bad_epochs_ <= options_.patience) return;
    reduce();
    cooldown_ = options_.cooldown;
    bad_epochs_ = 0;
  }

  /// The best metric so far, and how many steps have been made.
  double best() const { return best_; }
  std::int64_t last_epoch() const { return last_epoch_; }

  /// "best", and the counts "bad_epochs", "cooldown" and "last_epoch".
  StateDict state_dict() const {
    const auto count = [](std::int64_t number) { return Tensor<std::int64_t>::scalar(number); };
    return {{"best", Tensor<double>::scalar(best_)},
            {"bad_epochs", count(bad_epochs_)},
            {"cooldown", count(cooldown_)},
            {"last_epoch", count(last_epoch_)}};
  }
  /// Goes on where `state` was taken; the optimiser's learning rates are to be restored beside it.
  /// Errors: Error for counts below zero, or a best that is NaN; nothing is changed then.
  void load_state_dict(const StateDict& state) {
    constexpr const char* place = "ReduceLROnPlateau";
    const auto count = [&](const char* key) {
      const auto number = minnow::detail::read_entry<std::int64_t>(place, state, key);
      check(number >= 0, place, ": the state's ", key, " is ", number);
      return number;
    };
    const auto best = minnow::detail::read_entry<double>(place, state, "best");
    check(!std::isnan(best), place, ": the state's best is no number");
    const std::int64_t bad_epochs = count("bad_epochs"), cooldown = count("cooldown"),
                       last_epoch = count("last_epoch");
    best_ = best;
    bad_epochs_ = bad_epochs;
    cooldown_ = cooldown;
    last_epoch_ = last_epoch;
  }

 private:
  bool improves(double metric) const {
    const bool falls = options_.mode == PlateauMode::min;
    const double threshold = falls ? -options_.threshold : options_.threshold;
    const double bar =
        options_.threshold_mode == ThresholdMode::rel ? best_ * (1 + threshold) : best_ + threshold;
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
  double best_;
  std::int64_t bad_epochs_ = 0, cooldown_ = 0, last_epoch_ = 0;
};

}  // namespace minnow::inline MINNOW_ABI::optim
