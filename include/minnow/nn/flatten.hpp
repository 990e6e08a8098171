#pragma once
/// @file
/// Joining axes, as a module.

#include "minnow/nn/module.hpp"
#include "minnow/ops/shape.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Joins the axes from `start` to `end` into one: with the defaults [N, C, H, W] -> [N, C H W].
///
///     nn::Sequential model{nn::Flatten(), nn::Linear(784, 10)};
///
/// (Braces, because GCC takes `model(nn::Flatten()` for the beginning of a function.)
/// Negative axes count from the back. Errors: ShapeError for axes that x does not have.
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

/// Hands its input on.
template <class T = float>
class Identity : public Module<T> {
 public:
  Variable<T> forward(const Variable<T>& x) override { return x; }
  std::string name() const override { return "Identity"; }
};

}  // namespace minnow::inline MINNOW_ABI::nn
