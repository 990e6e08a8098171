#pragma once
/// @file
/// Stochastic gradient descent.

#include <cmath>

#include "minnow/kernels/optimizer.hpp"
#include "minnow/optim/optimizer.hpp"

namespace minnow::inline MINNOW_ABI::optim {

struct SGDOptions {
  static constexpr std::string_view name = "SGD";

  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;     ///< share of a new gradient that is kept out of the velocity
  double weight_decay = 0;  ///< times the parameter, added to its gradient
  bool nesterov = false;    ///< look ahead along the velocity

  /// Errors: Error where a value makes no sense.
  void verify() const {
    detail::check_option(lr >= 0, name, "lr", lr, "at least 0");
    detail::check_option(momentum >= 0, name, "momentum", momentum, "at least 0");
    detail::check_option(std::isfinite(dampening), name, "dampening", dampening, "finite");
    detail::check_option(weight_decay >= 0, name, "weight_decay", weight_decay, "at least 0");
    check(!nesterov || (momentum > 0 && dampening == 0), name,
          ": nesterov needs momentum > 0 and dampening = 0, got momentum = ", momentum,
          " and dampening = ", dampening);
  }
};

/// What SGD remembers of a parameter.
template <class T>
struct SGDState {
  Tensor<T> momentum_buffer;  ///< undefined before the first step, and without momentum

  /// Calls f(name, member) for all there is to save.
  template <class Self, class F>
  static void visit(Self& self, const F& f) {
    f("momentum_buffer", self.momentum_buffer);
  }
};

/// Gradient descent with momentum, as in PyTorch: v = momentum * v + g; p = p - lr * v.
///
///     optim::SGD optimizer(model.parameters(), {.lr = 0.1, .momentum = 0.9});
///     optimizer.zero_grad();
///     loss.backward();
///     optimizer.step();
///
/// Options: see SGDOptions. Errors: see `add_group`. The first gradient enters the velocity
/// undamped.
template <class T>
class SGD final : public Optimizer<T, SGDOptions, SGDState<T>> {
 public:
  explicit SGD(std::vector<Variable<T>> parameters, const SGDOptions& options = {}) {
    this->add_group(std::move(parameters), options);
  }

  void step() override {
    this->for_each_gradient(
        [](Tensor<T>& p, const Tensor<T>& dp, SGDState<T>& state, const SGDOptions& options) {
          const bool first = !state.momentum_buffer.defined();
          T* v = options.momentum != 0 ? SGD::slot(state.momentum_buffer, p) : nullptr;
          kernels::sgd_step(
              p.data(), v, dp.data(), p.size(),
              kernels::SgdStep<T>{.lr = static_cast<T>(options.lr),
                                  .weight_decay = static_cast<T>(options.weight_decay),
                                  .momentum = static_cast<T>(options.momentum),
                                  .gain = static_cast<T>(first ? 1 : 1 - options.dampening),
                                  .nesterov = options.nesterov});
        });
  }
};

template <class T>
SGD(std::initializer_list<Variable<T>>, const SGDOptions& = {}) -> SGD<T>;

}  // namespace minnow::inline MINNOW_ABI::optim
