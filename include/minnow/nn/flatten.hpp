#pragma once
/// @file
/// Modules that change no number: Flatten and Identity.

#include "minnow/nn/module.hpp"
#include "minnow/ops/shape.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Joins the axes from `start` to `end`, both included, into one; negative axes count from the
/// back. The defaults keep the samples apart: [N, C, H, W] to [N, C * H * W]. Shares memory with
/// its input. Errors: ShapeError where x lacks these axes, or start lies behind end.
///
///     nn::Sequential model{nn::AvgPool2d(5), nn::Flatten(), nn::Linear(50, 10)};
template <class T = float>
class Flatten : public Module<T> {
 public:
  explicit Flatten(Index start = 1, Index end = -1) : start_(start), end_(end) {}

  Index start() const { return start_; }
  Index end() const { return end_; }
  Variable<T> forward(const Variable<T>& x) override { return flatten(x, start_, end_); }
  std::string name() const override { return "Flatten"; }

 private:
  Index start_, end_;
};

/// Returns its input: a placeholder where a layer is expected.
template <class T = float>
class Identity : public Module<T> {
 public:
  Variable<T> forward(const Variable<T>& x) override { return x; }
  std::string name() const override { return "Identity"; }
};

}  // namespace minnow::inline MINNOW_ABI::nn
