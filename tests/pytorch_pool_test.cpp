// Poolings against PyTorch's numbers.

#include <doctest/doctest.h>

#include "minnow/nn/pool2d.hpp"
#include "reference.hpp"

using namespace minnow;
using namespace minnow_test;

TEST_CASE_TEMPLATE("pooling gives PyTorch's outputs and gradients", T, float, double) {
  const Reference r("pool2d");
  check_layer(r, "max", nn::MaxPool2d<T>(2));
  check_layer(r, "max_odd", nn::MaxPool2d<T>(2));
  check_layer(r, "max_overlap", nn::MaxPool2d<T>(3, {.stride = 2, .padding = 1}));
  check_layer(r, "max_ceil", nn::MaxPool2d<T>(2, {.ceil_mode = true}));
  check_layer(r, "max_ceil_padding",
              nn::MaxPool2d<T>(3, {.stride = 2, .padding = 1, .ceil_mode = true}));
  check_layer(r, "max_oblong",
              nn::MaxPool2d<T>({2, 3}, {.stride = Size2(1, 2), .padding = {1, 0}}));
  check_layer(r, "max_dilation", nn::MaxPool2d<T>(2, {.stride = 1, .dilation = {2, 3}}));
  check_layer(r, "max_ties", nn::MaxPool2d<T>(3, {.stride = 1, .padding = 1}));

  check_layer(r, "average", nn::AvgPool2d<T>(5));
  check_layer(r, "average_odd", nn::AvgPool2d<T>(2));
  check_layer(r, "average_overlap", nn::AvgPool2d<T>(3, {.stride = 2, .padding = 1}));
  check_layer(r, "average_no_pad",
              nn::AvgPool2d<T>(3, {.stride = 2, .padding = 1, .count_include_pad = false}));
  check_layer(r, "average_ceil", nn::AvgPool2d<T>(2, {.ceil_mode = true}));
  check_layer(r, "average_ceil_padding",
              nn::AvgPool2d<T>(3, {.stride = 2, .padding = 1, .ceil_mode = true}));
  check_layer(r, "average_ceil_no_pad",
              nn::AvgPool2d<T>(
                  3, {.stride = 2, .padding = 1, .ceil_mode = true, .count_include_pad = false}));
  check_layer(r, "average_oblong",
              nn::AvgPool2d<T>({2, 3}, {.stride = Size2(1, 2), .padding = {1, 0}}));

  check_layer(r, "adaptive_one", nn::AdaptiveAvgPool2d<T>(1));
  check_layer(r, "adaptive_uneven", nn::AdaptiveAvgPool2d<T>({3, 4}));
  check_layer(r, "adaptive_grow", nn::AdaptiveAvgPool2d<T>({5, 3}));
  CHECK(r.unused() == "");
}
