#pragma once
/// @file
/// Adam and AdamW.

#include <array>

#include "minnow/kernels/optimizer.hpp"
#include "minnow/optim/optimizer.hpp"

namespace minnow::inline MINNOW_ABI::optim {

struct AdamOptions {
  static constexpr std::string_view name = "Adam";
  static constexpr bool decoupled = false;

  double lr = 1e-3;
  /// How much of the mean, and of the mean square, is kept.
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;  ///< times the parameter, added to its gradient
  bool amsgrad = false;     ///< divide by the largest mean square so far

  void verify() const;
};

struct AdamWOptions {
  static constexpr std::string_view name = "AdamW";
  static constexpr bool decoupled = true;

  double lr = 1e-3;
  /// How much of the mean, and of the mean square, is kept.
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 1e-2;  ///< times lr, the share of the parameter that each step takes away
  bool amsgrad = false;        ///< divide by the largest mean square so far

  void verify() const;
};

/// What Adam and AdamW remember of a parameter.
template <class T>
struct AdamState {
  std::int64_t step = 0;  ///< how many steps this parameter has made
  Tensor<T> exp_avg, exp_avg_sq;
  Tensor<T> max_exp_avg_sq;  ///< defined with amsgrad only

  /// Calls f(name, member) for all there is to save.
  template <class Self, class F>
  static void visit(Self& self, const F& f) {
    f("step", self.step);
    f("exp_avg", self.exp_avg);
    f("exp_avg_sq", self.exp_avg_sq);
    f("max_exp_avg_sq", self.max_exp_avg_sq);
  }
};

namespace detail {

template <class Options>
void verify_adam(const Options& options) {
  check_option(options.lr >= 0, Options::name, "lr", options.lr, "at least 0");
  for (const double beta : options.betas)
    check_option(beta >= 0 && beta < 1, Options::name, "beta", beta, "at least 0 and below 1");
  check_option(options.eps >= 0, Options::name, "eps", options.eps, "at least 0");
  check_option(options.weight_decay >= 0, Options::name, "weight_decay", options.weight_decay,
               "at least 0");
}

/// The two differ in what weight decay acts on, and in its default.
template <class T, class Options>
class AdamBase : public Optimizer<T, Options, AdamState<T>> {
 public:
  void step() override {
    this->for_each_gradient(
        [](Tensor<T>& p, const Tensor<T>& dp, AdamState<T>& state, const Options& options) {
          T* m = AdamBase::slot(state.exp_avg, p);
          T* s = AdamBase::slot(state.exp_avg_sq, p);
          T* largest = options.amsgrad ? AdamBase::slot(state.max_exp_avg_sq, p) : nullptr;
          const auto t = static_cast<double>(++state.step);
          const auto [beta1, beta2] = options.betas;
          const double decay = options.weight_decay;
          kernels::adam_step(
              p.data(), m, s, largest, dp.data(), p.size(),
              kernels::AdamStep<T>{
                  .step_size = static_cast<T>(options.lr / (1 - std::pow(beta1, t))),
                  .root_scale = static_cast<T>(1 / std::sqrt(1 - std::pow(beta2, t))),
                  .beta1 = static_cast<T>(beta1),
                  .beta2 = static_cast<T>(beta2),
                  .eps = static_cast<T>(options.eps),
                  .gain1 = static_cast<T>(1 - beta1),
                  .gain2 = static_cast<T>(1 - beta2),
                  .weight_decay = static_cast<T>(Options::decoupled ? 0 : decay),
                  .keep = static_cast<T>(Options::decoupled ? 1 - options.lr * decay : 1)});
        });
  }

 protected:
  AdamBase(std::vector<Variable<T>> parameters, const Options& options) {
    this->add_group(std::move(parameters), options);
  }
};

}  // namespace detail

inline void AdamOptions::verify() const { detail::verify_adam(*this); }
inline void AdamWOptions::verify() const { detail::verify_adam(*this); }

/// Adam, as in PyTorch: steps of about lr whatever the gradient's size; weight decay is added to
/// the gradient. Options: see AdamOptions. Errors: see `add_group`.
///
///     optim::Adam optimizer(model.parameters(), {.lr = 3e-3, .betas = {0.9, 0.99}});
template <class T>
class Adam final : public detail::AdamBase<T, AdamOptions> {
 public:
  explicit Adam(std::vector<Variable<T>> parameters, const AdamOptions& options = {})
      : detail::AdamBase<T, AdamOptions>(std::move(parameters), options) {}
};

/// Adam with decoupled weight decay, as in PyTorch: every step first takes lr * weight_decay of
/// each parameter away. Options: see AdamWOptions. Errors: see `add_group`.
///
///     optim::AdamW optimizer(model.parameters(), {.lr = 3e-3, .weight_decay = 0.05});
template <class T>
class AdamW final : public detail::AdamBase<T, AdamWOptions> {
 public:
  explicit AdamW(std::vector<Variable<T>> parameters, const AdamWOptions& options = {})
      : detail::AdamBase<T, AdamWOptions>(std::move(parameters), options) {}
};

template <class T>
Adam(std::initializer_list<Variable<T>>, const AdamOptions& = {}) -> Adam<T>;
template <class T>
AdamW(std::initializer_list<Variable<T>>, const AdamWOptions& = {}) -> AdamW<T>;

}  // namespace minnow::inline MINNOW_ABI::optim
