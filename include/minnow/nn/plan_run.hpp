#pragma once
/// @file
/// Carries out a `Plan`: forward and backward of all its stages as one differentiable function.

#include "minnow/nn/plan_backward.hpp"
#include "minnow/nn/plan_forward.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// The result of a plan's stages for images x [N, plan->x], recorded as one function of x and of
/// the stages' parameters.
template <class T>
Variable<T> run_plan(const std::shared_ptr<const Plan<T>>& plan, const Variable<T>& x) {
  auto state = std::make_shared<detail::PlanState<T>>(plan, x.size(0));
  Tensor<T> y = detail::PlanForward<T>(*state).run(x.value());
  std::vector<Variable<T>> inputs{x};
  for (const PlanStage<T>& s : plan->stages)
    for (const auto* parameter : {&s.weight, &s.bias, &s.gamma, &s.beta})
      if (parameter->defined()) inputs.push_back(*parameter);
  return record<T>("plan", std::move(y), std::move(inputs),
                   [state, dx_wanted = x.requires_grad()](const Tensor<T>& dy) {
                     return detail::PlanBackward<T>(*state).run(dy, dx_wanted);
                   });
}

}  // namespace minnow::inline MINNOW_ABI::nn
