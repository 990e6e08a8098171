// Normalisations against PyTorch's numbers.

#include <doctest/doctest.h>

#include <optional>

#include "minnow/nn/batch_norm.hpp"
#include "minnow/nn/group_norm.hpp"
#include "minnow/nn/instance_norm.hpp"
#include "minnow/nn/layer_norm.hpp"
#include "minnow/nn/rms_norm.hpp"
#include "reference.hpp"

using namespace minnow;
using namespace minnow_test;

TEST_CASE_TEMPLATE("batch norm gives PyTorch's outputs, gradients and running statistics", T, float,
                   double) {
  const Reference r("batch_norm");
  const auto sequence = [&](const std::string& name, nn::Module<T>&& module) {
    load_parameters(r, name, module);
    check_pass(r, name + "/first", module);
    check_pass(r, name + "/second", module);
    module.eval();
    check_pass(r, name + "/eval", module);
  };
  sequence("two_d", nn::BatchNorm2d<T>(3));
  sequence("one_d", nn::BatchNorm1d<T>(4));
  sequence("one_d_length", nn::BatchNorm1d<T>(3));
  sequence("options", nn::BatchNorm2d<T>(2, {.eps = 0.1, .momentum = 0.3}));
  sequence("cumulative", nn::BatchNorm2d<T>(2, {.momentum = std::nullopt}));
  sequence("no_affine", nn::BatchNorm2d<T>(2, {.affine = false}));
  sequence("no_tracking", nn::BatchNorm2d<T>(2, {.track_running_stats = false}));
  CHECK(r.unused() == "");
}

TEST_CASE_TEMPLATE("group, layer, instance and RMS norm give PyTorch's outputs and gradients", T,
                   float, double) {
  const Reference r("norms");
  check_layer(r, "group", nn::GroupNorm<T>(2, 4));
  check_layer(r, "group_one", nn::GroupNorm<T>(1, 3, {.eps = 0.1}));
  check_layer(r, "group_each", nn::GroupNorm<T>(3, 3));
  check_layer(r, "group_flat", nn::GroupNorm<T>(2, 6));
  check_layer(r, "group_no_affine", nn::GroupNorm<T>(2, 4, {.affine = false}));
  check_layer(r, "layer_last", nn::LayerNorm<T>(7));
  check_layer(r, "layer_image", nn::LayerNorm<T>({3, 2, 4}, {.eps = 0.1}));
  check_layer(r, "layer_no_affine", nn::LayerNorm<T>(5, {.elementwise_affine = false}));

  check_layer(r, "instance", nn::InstanceNorm2d<T>(3));
  check_layer(r, "instance_affine", nn::InstanceNorm2d<T>(2, {.eps = 0.1, .affine = true}));
  nn::InstanceNorm2d<T> tracking(2, {.momentum = 0.3, .affine = true, .track_running_stats = true});
  load_parameters(r, "instance_tracking", tracking);
  check_pass(r, "instance_tracking/first", tracking);
  tracking.eval();
  check_pass(r, "instance_tracking/eval", tracking);

  check_layer(r, "rms_last", nn::RMSNorm<T>(6, {.eps = 1e-5}));
  check_layer(r, "rms_image", nn::RMSNorm<T>({3, 4}, {.eps = 0.1}));
  check_layer(r, "rms_no_affine", nn::RMSNorm<T>(5, {.eps = 1e-5, .elementwise_affine = false}));
  CHECK(r.unused() == "");
}
