#include "minnow/nn/sequential.hpp"

#include <doctest/doctest.h>

#include "minnow/nn/conv2d.hpp"
#include "minnow/nn/flatten.hpp"
#include "minnow/nn/linear.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;
using testing::same_bits;

namespace {

std::vector<std::string> keys(const auto& entries) {
  std::vector<std::string> result;
  for (const auto& [key, value] : entries) result.push_back(key);
  return result;
}

using Keys = std::vector<std::string>;

}  // namespace

TEST_CASE("children run in order and are named by their numbers") {
  // Braces: GCC takes `model(nn::Flatten()` for the beginning of a function's declaration.
  nn::Sequential model{nn::Flatten(), nn::Linear(6, 5), nn::Linear(5, 2, {.bias = false})};
  static_assert(std::is_same_v<decltype(model), nn::Sequential<float>>);
  static_assert(
      std::is_same_v<decltype(nn::Sequential(nn::Linear<double>(1, 1))), nn::Sequential<double>>);
  CHECK(model.name() == "Sequential");
  CHECK(model.size() == 3);
  CHECK(keys(model.named_parameters()) == Keys{"1.weight", "1.bias", "2.weight"});

  model.plan(false);
  const Variable<float> x(Tensor<float>::normal({40, 2, 3}));
  const Variable<float> expected = model[2](model[1](model[0](x)));
  CHECK(expected.shape() == Shape{40, 2});
  CHECK(same_bits(model(x).value(), expected.value()));
  CHECK(nn::Sequential<float>()(x).value().shares_memory_with(x.value()));
}

TEST_CASE("children are added under a number or a name") {
  nn::Sequential<float> model;
  model.add(nn::Linear(3, 4)).add("head", nn::Linear(4, 5)).add(nn::Linear(5, 1));
  CHECK(keys(model.children()) == Keys{"0", "head", "2"});
  CHECK(&model["head"] == &model[1]);
  CHECK(model(Tensor<float>::zeros({2, 3})).shape() == Shape{2, 1});
  CHECK_THROWS_WITH_AS(model.add("head", nn::Linear(1, 1)),
                       "Module: the name 'head' is registered already", Error);
  CHECK_THROWS_WITH_AS(model[3], "Sequential: no child 3 among 3", Error);
  CHECK_THROWS_WITH_AS(model[-1], "Sequential: no child -1 among 3", Error);
  CHECK_THROWS_WITH_AS(model["tail"], "Sequential: no child is named 'tail'", Error);
}

TEST_CASE("an error names the children on the way to it") {
  nn::Sequential model(nn::Linear(3, 4));
  model.add("deep", nn::Sequential{nn::Flatten(), nn::Linear(5, 2)});
  for (const Index n : {1, 40})
    CHECK_THROWS_WITH_AS(
        model(Tensor<float>::zeros({n, 3})),
        text("deep (Sequential): 1 (Linear): linear: x has shape [", n,
             ", 4], its last axis must have the 5 features of weight [2, 5]; Flatten joins the "
             "axes of an image")
            .c_str(),
        ShapeError);
}

TEST_CASE("an error in the middle of convolutions names the child") {
  nn::Sequential model(nn::Conv2d(1, 8, 3), nn::Conv2d(4, 2, 3));
  for (const Index n : {1, 40})
    CHECK_THROWS_WITH_AS(model(Tensor<float>::zeros({n, 1, 9, 9})),
                         text("1 (Conv2d): conv2d: x has shape [", n,
                              ", 8, 7, 7], so 8 channels, but weight [2, 4, 3, 3] with 1 group "
                              "takes 4")
                             .c_str(),
                         ShapeError);
}

TEST_CASE("gradients pass through all children") {
  nn::Sequential model(nn::Linear<double>(3, 4), nn::Linear<double>(4, 2));
  std::vector<Variable<double>> inputs = model.parameters();
  inputs.insert(inputs.begin(), Variable<double>(Tensor<double>::normal({5, 3}), true));
  const auto result =
      testing::gradcheck([&](const auto& in) { return model(in[0]); }, inputs, {.step = 1e-3});
  CHECK_MESSAGE(result, result.str());
}

TEST_CASE("train, eval and states pass through all children") {
  nn::Sequential model(nn::Linear(3, 4), nn::Sequential(nn::Linear(4, 2)));
  model.eval();
  CHECK_FALSE(model[0].is_training());
  CHECK_FALSE(model[1].children()[0].second->is_training());
  nn::Sequential other(nn::Linear(3, 4), nn::Sequential(nn::Linear(4, 2)));
  CHECK(keys(other.state_dict()) == Keys{"0.bias", "0.weight", "1.0.bias", "1.0.weight"});
  other.load_state_dict(model.state_dict());
  const Tensor<float> x = Tensor<float>::normal({5, 3});
  CHECK(same_bits(model(x).value(), other(x).value()));
}

TEST_CASE("a moved Sequential works on") {
  nn::Sequential first(nn::Linear(3, 4), nn::Linear(4, 2));
  const Tensor<float> x = Tensor<float>::normal({40, 3});
  const Tensor<float> expected = first(x).value();
  nn::Sequential<float> moved = std::move(first);
  CHECK(same_bits(moved(x).value(), expected));
  CHECK(moved.size() == 2);
}

TEST_CASE("a list registers its modules and leaves the calls to others") {
  nn::ModuleList<float> list;
  const std::shared_ptr<nn::Linear<float>> first = list.add(nn::Linear(3, 4));
  list.add(nn::Linear(4, 2));
  CHECK(list.size() == 2);
  CHECK(&list[0] == first.get());
  CHECK(keys(list.named_parameters()) == Keys{"0.weight", "0.bias", "1.weight", "1.bias"});
  CHECK(list.name() == "ModuleList");
  CHECK_THROWS_WITH_AS(list[2], "ModuleList: no child 2 among 2", Error);
  CHECK_THROWS_WITH_AS(list(Tensor<float>::zeros({1, 3})),
                       "ModuleList has no forward: call its modules, or use Sequential", Error);
}
