#pragma once
/// @file
/// RMSprop.

#include "minnow/kernels/optimizer.hpp"
#include "minnow/optim/optimizer.hpp"

namespace minnow::inline MINNOW_ABI::optim {

struct RMSpropOptions {
  static constexpr std::string_view name = "RMSprop";

  double lr = 1e-2;
  double alpha = 0.99;  ///< how much of the mean square is kept
  double eps = 1e-8;
  double weight_decay = 0;  ///< times the parameter, added to its gradient
  double momentum = 0;
  bool centered = false;  ///< divide by the deviation instead of the root of the mean square

  /// Errors: Error where a value makes no sense.
  void verify() const {
    detail::check_option(lr >= 0, name, "lr", lr, "at least 0");
    detail::check_option(alpha >= 0, name, "alpha", alpha, "at least 0");
    detail::check_option(eps >= 0, name, "eps", eps, "at least 0");
    detail::check_option(weight_decay >= 0, name, "weight_decay", weight_decay, "at least 0");
    detail::check_option(momentum >= 0, name, "momentum", momentum, "at least 0");
  }
};

/// What RMSprop remembers of a parameter.
template <class T>
struct RMSpropState {
  Tensor<T> square_avg;
  Tensor<T> momentum_buffer;  ///< defined with momentum only
  Tensor<T> grad_avg;         ///< defined with centered only

  /// Calls f(name, member) for all there is to save.
  template <class Self, class F>
  static void visit(Self& self, const F& f) {
    f("square_avg", self.square_avg);
    f("momentum_buffer", self.momentum_buffer);
    f("grad_avg", self.grad_avg);
  }
};

/// RMSprop, as in PyTorch: the gradient over the root of its running mean square. Options: see
/// RMSpropOptions. Errors: see `add_group`.
///
///     optim::RMSprop optimizer(model.parameters(),
///                              {.lr = 1e-3, .momentum = 0.9, .centered = true});
template <class T>
class RMSprop final : public Optimizer<T, RMSpropOptions, RMSpropState<T>> {
 public:
  explicit RMSprop(std::vector<Variable<T>> parameters, const RMSpropOptions& options = {}) {
    this->add_group(std::move(parameters), options);
  }

  void step() override {
    this->for_each_gradient([](Tensor<T>& p, const Tensor<T>& dp, RMSpropState<T>& state,
                               const RMSpropOptions& options) {
      T* s = RMSprop::slot(state.square_avg, p);
      T* mean = options.centered ? RMSprop::slot(state.grad_avg, p) : nullptr;
      T* v = options.momentum > 0 ? RMSprop::slot(state.momentum_buffer, p) : nullptr;
      kernels::rmsprop_step(
          p.data(), s, mean, v, dp.data(), p.size(),
          kernels::RmspropStep<T>{.lr = static_cast<T>(options.lr),
                                  .alpha = static_cast<T>(options.alpha),
                                  .eps = static_cast<T>(options.eps),
                                  .weight_decay = static_cast<T>(options.weight_decay),
                                  .momentum = static_cast<T>(options.momentum),
                                  .gain = static_cast<T>(1 - options.alpha)});
    });
  }
};

template <class T>
RMSprop(std::initializer_list<Variable<T>>, const RMSpropOptions& = {}) -> RMSprop<T>;

}  // namespace minnow::inline MINNOW_ABI::optim
