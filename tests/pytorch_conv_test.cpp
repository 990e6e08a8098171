// Convolutions and linear layers against PyTorch's numbers.

#include <doctest/doctest.h>

#include "minnow/nn/conv2d.hpp"
#include "minnow/nn/linear.hpp"
#include "reference.hpp"

using namespace minnow;
using namespace minnow_test;

TEST_CASE_TEMPLATE("Conv2d gives PyTorch's outputs and gradients", T, float, double) {
  const Reference r("conv2d");
  check_layer(r, "plain", nn::Conv2d<T>(3, 4, 3));
  check_layer(r, "no_bias", nn::Conv2d<T>(2, 3, 3, {.bias = false}));
  check_layer(r, "padding", nn::Conv2d<T>(2, 3, 3, {.padding = 1}));
  check_layer(r, "stride", nn::Conv2d<T>(2, 3, 3, {.stride = 2, .padding = 1}));
  check_layer(r, "dilation", nn::Conv2d<T>(2, 3, 3, {.padding = 2, .dilation = 2}));
  check_layer(r, "groups", nn::Conv2d<T>(4, 6, 3, {.groups = 2}));
  check_layer(r, "depthwise", nn::Conv2d<T>(3, 6, 3, {.padding = 1, .groups = 3}));
  check_layer(r, "pointwise", nn::Conv2d<T>(5, 4, 1));
  check_layer(
      r, "all",
      nn::Conv2d<T>(4, 2, {2, 3},
                    {.stride = {2, 1}, .padding = {1, 2}, .dilation = {2, 1}, .groups = 2}));
  check_layer(r, "whole_image", nn::Conv2d<T>(3, 5, 4));
  CHECK(r.unused() == "");
}

TEST_CASE_TEMPLATE("Linear gives PyTorch's outputs and gradients", T, float, double) {
  const Reference r("linear");
  check_layer(r, "plain", nn::Linear<T>(7, 5));
  check_layer(r, "no_bias", nn::Linear<T>(3, 6, {.bias = false}));
  check_layer(r, "three_axes", nn::Linear<T>(5, 3));
  check_layer(r, "one", nn::Linear<T>(1, 1));
  CHECK(r.unused() == "");
}
