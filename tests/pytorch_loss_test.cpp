// Losses against PyTorch's numbers.

#include <doctest/doctest.h>

#include "minnow/ops/loss.hpp"
#include "reference.hpp"

using namespace minnow;
using namespace minnow_test;

TEST_CASE_TEMPLATE("losses give PyTorch's values and gradients for every reduction", T, float,
                   double) {
  const Reference r("losses");
  using V = Variable<T>;
  const auto labels = r.tensor<std::int64_t>("labels"),
             some = r.tensor<std::int64_t>("labels_some"),
             pixels = r.tensor<std::int64_t>("pixels");
  const auto weight = r.tensor<T>("weight"), shares = r.tensor<T>("shares");
  const auto bce_weight = r.tensor<T>("bce_weight"), bce_pos_weight = r.tensor<T>("bce_pos_weight");

  for (const auto& [name, reduction] :
       {std::pair("/mean", Reduction::mean), std::pair("/sum", Reduction::sum),
        std::pair("/none", Reduction::none)}) {
    const std::string suffix = name;
    const Reduction how = reduction;
    const auto loss = [&](const std::string& stem, const auto& f) {
      check_function<T>(r, stem + suffix, [&](const std::vector<V>& in) { return f(in[0]); },
                        {.output = "out"});
    };
    const auto cross_entropy_of = [&](const std::string& stem, const auto& target,
                                      CrossEntropyOptions<T> options) {
      options.reduction = how;
      loss(stem, [&](const V& x) { return cross_entropy(x, target, options); });
    };
    cross_entropy_of("cross_entropy", labels, {});
    cross_entropy_of("cross_entropy_weight", labels, {.weight = weight});
    cross_entropy_of("cross_entropy_ignore", some, {});
    cross_entropy_of("cross_entropy_smooth", labels, {.label_smoothing = 0.1});
    cross_entropy_of("cross_entropy_all", some, {.label_smoothing = 0.2, .weight = weight});
    cross_entropy_of("cross_entropy_shares", shares, {});
    cross_entropy_of("cross_entropy_shares_all", shares,
                     {.label_smoothing = 0.2, .weight = weight});
    cross_entropy_of("cross_entropy_pixels", pixels,
                     {.label_smoothing = 0.1, .weight = weight.slice(0, 3)});
    loss("nll", [&](const V& x) { return nll_loss(x, labels, {.reduction = how}); });
    loss("nll_weight",
         [&](const V& x) { return nll_loss(x, some, {.weight = weight, .reduction = how}); });
    loss("nll_pixels", [&](const V& x) { return nll_loss(x, pixels, {.reduction = how}); });

    check_function<T>(
        r, "mse" + suffix,
        [&](const std::vector<V>& in) { return mse_loss(in[0], in[1], {.reduction = how}); },
        {.inputs = {"x", "target"}, .output = "out"});
    const auto bce = [&](const std::string& stem, BinaryCrossEntropyOptions<T> options) {
      options.reduction = how;
      check_function<T>(r, stem + suffix,
                        [&](const std::vector<V>& in) {
                          return binary_cross_entropy_with_logits(in[0], in[1].value(), options);
                        },
                        {.inputs = {"x", "target"}, .output = "out", .constants = {"target"}});
    };
    bce("bce", {});
    bce("bce_all", {.weight = bce_weight, .pos_weight = bce_pos_weight});
    bce("bce_far", {});
  }
  CHECK(r.unused() == "");
}
