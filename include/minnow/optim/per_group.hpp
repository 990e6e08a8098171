#pragma once
/// @file
/// What schedules know of an optimiser's groups.

#include <initializer_list>
#include <string_view>
#include <vector>

#include "minnow/optim/optimizer.hpp"

namespace minnow::inline MINNOW_ABI::optim {

/// One number for all groups of an optimiser, or one for each: `0.1` or `{0.1, 0.01}`.
class PerGroup {
 public:
  PerGroup(double all) : values_{all} {}  // NOLINT: .max_lr = 0.1 is meant to work
  PerGroup(std::initializer_list<double> each) : values_(each) {}

  /// Errors: Error unless there is one number, or one per group.
  std::vector<double> expand(Index groups, std::string_view name) const {
    if (values_.size() == 1)
      return std::vector<double>(static_cast<std::size_t>(groups), values_[0]);
    check(std::ssize(values_) == groups, name, " has ", values_.size(), " values for ", groups,
          " groups of parameters; give one, or one per group");
    return values_;
  }

 private:
  std::vector<double> values_;
};

namespace detail {

/// Throws Error where groups were added to an optimiser after a schedule had been made for it.
inline void check_group_count(const OptimizerBase& optimizer, std::size_t made_for) {
  check(optimizer.group_count() == static_cast<Index>(made_for), "scheduler: made for ", made_for,
        " groups of parameters, the optimizer has ", optimizer.group_count(),
        " now; add the groups first");
}

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::optim
