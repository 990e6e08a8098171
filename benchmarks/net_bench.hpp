#pragma once
/// @file
/// What the benchmarks of whole networks and of stages share.

#include "harness.hpp"
#include "minnow/nn/sequential.hpp"

namespace bench {

inline const char* norm_name(const std::string& norm) {
  return norm == "batch" ? "BatchNorm" : norm == "group" ? "GroupNorm" : "LayerNorm";
}

/// The same numbers in a network of the same shape.
template <class T, class U>
void copy_state(nn::Sequential<T>& to, const nn::Sequential<U>& from) {
  to.load_state_dict(from.state_dict());
}

/// Statistics as after some training, so that batch norm in evaluation has something to do.
inline void disturb(nn::Sequential<float>& net) {
  std::uint32_t step = 100;
  for (auto& [name, parameter] : net.named_parameters())
    if (parameter.rank() == 1) {
      const Tensor<float> noise = normal(parameter.shape(), ++step);
      for (Index i = 0; i < noise.size(); ++i) parameter.mutable_value()[i] += 0.2f * noise[i];
    }
}

}  // namespace bench
