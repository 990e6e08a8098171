#pragma once
/// @file
/// For programs of many files: minnow's templates compiled once, for float and double.
///
/// Compile every file with MINNOW_COMPILED defined (`-DMINNOW_COMPILED`), and one more that holds
///
///     #define MINNOW_IMPLEMENTATION
///     #include <minnow/minnow.hpp>
///
/// with the same options. The one file then has the code; the others, where `minnow.hpp` includes
/// this list, compile several times faster. In CMake all of that is the target `minnow::compiled`.
/// Without MINNOW_COMPILED nothing changes: each file compiles what it uses.

#include "minnow/minnow.hpp"

#if defined(MINNOW_IMPLEMENTATION)
#define MINNOW_TEMPLATE template
#else
#define MINNOW_TEMPLATE extern template
#endif
#define MINNOW_CLASS(name)           \
  MINNOW_TEMPLATE class name<float>; \
  MINNOW_TEMPLATE class name<double>;
#define MINNOW_FUNCTION(name)                        \
  MINNOW_TEMPLATE decltype(name<float>) name<float>; \
  MINNOW_TEMPLATE decltype(name<double>) name<double>;
#define MINNOW_OPTIMIZER(name, state)                                           \
  MINNOW_TEMPLATE class Optimizer<float, name##Options, state##State<float>>;   \
  MINNOW_TEMPLATE class Optimizer<double, name##Options, state##State<double>>; \
  MINNOW_CLASS(name)

namespace minnow::inline MINNOW_ABI {

MINNOW_CLASS(Variable)

MINNOW_FUNCTION(relu)
MINNOW_FUNCTION(leaky_relu)
MINNOW_FUNCTION(elu)
MINNOW_FUNCTION(gelu)
MINNOW_FUNCTION(silu)
MINNOW_FUNCTION(sigmoid)
MINNOW_FUNCTION(tanh)
MINNOW_FUNCTION(softmax)
MINNOW_FUNCTION(log_softmax)
MINNOW_FUNCTION(sum)
MINNOW_FUNCTION(mean)
MINNOW_FUNCTION(variance)
MINNOW_FUNCTION(matmul)
MINNOW_FUNCTION(flatten)
MINNOW_FUNCTION(nll_loss)
MINNOW_FUNCTION(mse_loss)
MINNOW_FUNCTION(detail::sum_axes)

namespace kernels {

MINNOW_FUNCTION(gemm)
MINNOW_FUNCTION(linear_forward)
MINNOW_FUNCTION(linear_backward_data)
MINNOW_FUNCTION(linear_backward_weight)
MINNOW_FUNCTION(linear_backward_bias)
MINNOW_FUNCTION(conv2d_forward)
MINNOW_FUNCTION(conv2d_backward_data)
MINNOW_FUNCTION(conv2d_backward_weight)
MINNOW_FUNCTION(conv2d_backward_bias)
MINNOW_FUNCTION(batch_norm_forward)
MINNOW_FUNCTION(batch_norm_inference)
MINNOW_FUNCTION(batch_norm_backward)
MINNOW_FUNCTION(group_norm_forward)
MINNOW_FUNCTION(group_norm_backward)
MINNOW_FUNCTION(layer_norm_forward)
MINNOW_FUNCTION(layer_norm_backward)
MINNOW_FUNCTION(rms_norm_forward)
MINNOW_FUNCTION(rms_norm_backward)
MINNOW_FUNCTION(softmax_forward)
MINNOW_FUNCTION(softmax_backward)
MINNOW_FUNCTION(log_softmax_forward)
MINNOW_FUNCTION(log_softmax_backward)
MINNOW_FUNCTION(nll_forward)
MINNOW_FUNCTION(nll_backward)
MINNOW_FUNCTION(cross_entropy_backward)
MINNOW_CLASS(LaneConv2d)

}  // namespace kernels

namespace nn {

MINNOW_FUNCTION(batch_norm)
MINNOW_FUNCTION(group_norm)
MINNOW_FUNCTION(layer_norm)
MINNOW_FUNCTION(instance_norm)
MINNOW_FUNCTION(rms_norm)
MINNOW_FUNCTION(conv2d)
MINNOW_FUNCTION(linear)
MINNOW_FUNCTION(dropout)
MINNOW_FUNCTION(dropout2d)
MINNOW_FUNCTION(max_pool2d)
MINNOW_FUNCTION(avg_pool2d)
MINNOW_FUNCTION(adaptive_avg_pool2d)
MINNOW_FUNCTION(make_plan)
MINNOW_FUNCTION(run_plan)
MINNOW_FUNCTION(summary)

MINNOW_CLASS(Module)
MINNOW_CLASS(detail::PlanForward)
MINNOW_CLASS(detail::PlanBackward)
MINNOW_CLASS(Sequential)
MINNOW_CLASS(Predictor)
MINNOW_CLASS(Conv2d)
MINNOW_CLASS(Linear)
MINNOW_CLASS(BatchNorm)
MINNOW_CLASS(BatchNorm1d)
MINNOW_CLASS(BatchNorm2d)
MINNOW_CLASS(GroupNorm)
MINNOW_CLASS(LayerNorm)
MINNOW_CLASS(InstanceNorm2d)
MINNOW_CLASS(RMSNorm)
MINNOW_CLASS(Dropout)
MINNOW_CLASS(Dropout2d)
MINNOW_CLASS(MaxPool2d)
MINNOW_CLASS(AvgPool2d)
MINNOW_CLASS(AdaptiveAvgPool2d)
MINNOW_CLASS(Flatten)
MINNOW_CLASS(ReLU)
MINNOW_CLASS(LeakyReLU)
MINNOW_CLASS(ELU)
MINNOW_CLASS(GELU)
MINNOW_CLASS(SiLU)
MINNOW_CLASS(Sigmoid)
MINNOW_CLASS(Tanh)
MINNOW_CLASS(Softmax)
MINNOW_CLASS(LogSoftmax)

}  // namespace nn

namespace optim {

MINNOW_OPTIMIZER(SGD, SGD)
MINNOW_OPTIMIZER(Adam, Adam)
MINNOW_OPTIMIZER(AdamW, Adam)
MINNOW_OPTIMIZER(RMSprop, RMSprop)

}  // namespace optim

}  // namespace minnow::inline MINNOW_ABI

#undef MINNOW_OPTIMIZER
#undef MINNOW_FUNCTION
#undef MINNOW_CLASS
#undef MINNOW_TEMPLATE
