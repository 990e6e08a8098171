#pragma once
/// @file
/// The three MNIST networks on which everything is measured, for any scalar type.

#include <string>

#include "minnow/nn/sequential.hpp"

namespace bench {

using namespace minnow;

/// [N, 1, 28, 28] -> [N, 10, 1, 1]: eight blocks Conv2d (no bias, no padding) - norm - Dropout -
/// ReLU, a max pool after the third, an average pool and a 1 x 1 convolution at the end. `norm` is
/// "batch", "group" (two groups) or "layer" (over the last axis); without dropout there are no such
/// layers.
template <class T>
nn::Sequential<T> seed_net(const std::string& norm, double dropout) {
  nn::Sequential<T> net;
  Index channels = 1, width = 28;
  const auto block = [&](Index out, Index kernel) {
    net.add(nn::Conv2d<T>(channels, out, kernel, {.bias = false}));
    channels = out;
    width -= kernel - 1;
    if (norm == "batch") net.add(nn::BatchNorm2d<T>(channels));
    if (norm == "group") net.add(nn::GroupNorm<T>(2, channels));
    if (norm == "layer") net.add(nn::LayerNorm<T>(width));
    if (dropout > 0) net.add(nn::Dropout<T>(dropout));
    net.add(nn::ReLU<T>());
  };
  block(8, 3);
  block(8, 3);
  block(8, 3);
  net.add(nn::MaxPool2d<T>(2));
  width /= 2;
  block(12, 3);
  block(14, 3);
  block(8, 1);
  block(26, 3);
  block(50, 1);
  net.add(nn::AvgPool2d<T>(width));
  net.add(nn::Conv2d<T>(channels, 10, 1, {.bias = false}));
  return net;
}

}  // namespace bench
