#pragma once
/// @file
/// The three networks: one convolutional network, and a choice of what normalises it.

#include <array>
#include <string_view>

#include "minnow/core/error.hpp"
#include "minnow/nn/activations.hpp"
#include "minnow/nn/batch_norm.hpp"
#include "minnow/nn/conv2d.hpp"
#include "minnow/nn/dropout.hpp"
#include "minnow/nn/group_norm.hpp"
#include "minnow/nn/layer_norm.hpp"
#include "minnow/nn/pool2d.hpp"
#include "minnow/nn/sequential.hpp"

namespace mnist {

using namespace minnow;

enum class Norm { batch, group, layer };

inline constexpr std::array all_norms{Norm::batch, Norm::group, Norm::layer};

/// The word on the command line and in history.json.
inline std::string_view name(Norm norm) {
  constexpr std::array<std::string_view, 3> names{"batch", "group", "layer"};
  return names[static_cast<std::size_t>(norm)];
}

struct NetOptions {
  double dropout = 0.01;
  Index groups = 2;  ///< of GroupNorm; must divide 8, 12, 14, 26 and 50, so 1 or 2
};

/// [N, 1, 28, 28] -> [N, 10, 1, 1]: eight blocks Conv2d (no bias, no padding) - norm - Dropout -
/// ReLU with a max pool after the third; then the mean over each 5 x 5 map, and a 1 x 1 convolution
/// to the ten classes. 7,652 parameters with batch or group norm. Layer norm runs over each row of
/// each map (PyTorch's LayerNorm(width)): 7,594.
inline nn::Sequential<float> make_net(Norm norm, const NetOptions& options = {}) {
  nn::Sequential<float> net;
  Index channels = 1, width = 28;

  const auto conv = [&](Index out, Index kernel) {
    net.add(nn::Conv2d(channels, out, kernel, {.bias = false}));
    channels = out;
    width -= kernel - 1;
  };
  const auto block = [&](Index out, Index kernel) {
    conv(out, kernel);
    switch (norm) {
      case Norm::batch:
        net.add(nn::BatchNorm2d(channels));
        break;
      case Norm::group:
        net.add(nn::GroupNorm(options.groups, channels));
        break;
      case Norm::layer:
        net.add(nn::LayerNorm(width));
        break;
    }
    net.add(nn::Dropout(options.dropout)).add(nn::ReLU());
  };

  block(8, 3);
  block(8, 3);
  block(8, 3);
  net.add(nn::MaxPool2d(2));
  width /= 2;
  block(12, 3);
  block(14, 3);
  block(8, 1);
  block(26, 3);
  block(50, 1);
  net.add(nn::AvgPool2d(width));
  conv(10, 1);
  return net;
}

}  // namespace mnist
