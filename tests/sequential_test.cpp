#include "minnow/nn/sequential.hpp"

#include <doctest/doctest.h>

#include "minnow/nn/module_list.hpp"
#include "minnow/ops/elementwise.hpp"
#include "minnow/testing/compare.hpp"

using namespace minnow;
using minnow::testing::same_bits;

namespace {

/// y = x * factor; refuses inputs of another size than its factor's.
template <class T = float>
class Scale : public nn::Module<T> {
 public:
  explicit Scale(double factor, Index size = 2)
      : factor_(
            this->register_parameter("factor", Tensor<T>::full({size}, static_cast<T>(factor)))) {}

  Variable<T> forward(const Variable<T>& x) override {
    check<ShapeError>(x.size(-1) == factor_.size(), "Scale: ", x.shape(), ", expected ",
                      factor_.size(), " columns");
    return x * factor_;
  }
  std::string name() const override { return "Scale"; }

 private:
  Variable<T> factor_;
};

/// y = x + 1.
template <class T = float>
class Increment : public nn::Module<T> {
 public:
  Variable<T> forward(const Variable<T>& x) override { return x + 1; }
  std::string name() const override { return "Increment"; }
};

/// The variable 1, 2 as one row.
template <class T>
Variable<T> row() {
  return Tensor<T>({1, 2}, {1, 2});
}

std::vector<std::string> keys(const nn::Module<float>& module) {
  std::vector<std::string> result;
  for (const auto& [key, parameter] : module.named_parameters()) result.push_back(key);
  return result;
}

}  // namespace

TEST_CASE_TEMPLATE("children run one after the other", T, float, double) {
  nn::Sequential<T> model(Scale<T>(2), Increment<T>(), Scale<T>(10));
  CHECK(model.size() == 3);
  CHECK(same_bits(model(row<T>()).value(), Tensor<T>({1, 2}, {30, 50})));
  model.add(Increment<T>()).add(Scale<T>(-1));
  CHECK(same_bits(model(row<T>()).value(), Tensor<T>({1, 2}, {-31, -51})));
}

TEST_CASE("the scalar type follows from the children's, an empty model returns its input") {
  nn::Sequential doubles(Scale<double>(2));
  static_assert(std::is_same_v<decltype(doubles), nn::Sequential<double>>);
  nn::Sequential<float> empty;
  CHECK(empty.size() == 0);
  CHECK(same_bits(empty(row<float>()).value(), row<float>().value()));
}

TEST_CASE("children are named by their number, or by a name of their own") {
  nn::Sequential model(Scale(1), Increment());
  model.add("head", Scale(5)).add(Scale(7));
  CHECK(keys(model) == std::vector<std::string>{"0.factor", "head.factor", "3.factor"});
  CHECK(model[0].name() == "Scale");
  CHECK(model[1].name() == "Increment");
  CHECK(model["head"].parameters()[0].value()[0] == 5);
  CHECK(model["3"].parameters()[0].value()[0] == 7);
  CHECK(model.name() == "Sequential");
  CHECK_THROWS_WITH_AS((void)model[4], "Sequential: there is no child 4; it has 4, numbered from 0",
                       Error);
  CHECK_THROWS_WITH_AS((void)model[-1],
                       "Sequential: there is no child -1; it has 4, numbered from 0", Error);
  CHECK_THROWS_WITH_AS((void)model["tail"],
                       "Sequential: no child is named 'tail'; there are '0', '1', 'head', '3'",
                       Error);
  CHECK_THROWS_WITH_AS(model.add("head", Increment()),
                       "Module: the name 'head' is registered already", Error);
}

TEST_CASE("a module that is pointed to may stand in several places") {
  const std::shared_ptr<nn::Module<float>> shared = std::make_shared<Scale<float>>(Scale(2));
  nn::Sequential<float> model;
  model.add(shared).add(Increment()).add("again", shared);
  CHECK(keys(model) == std::vector<std::string>{"0.factor", "again.factor"});
  CHECK(model.parameters().size() == 1);
  CHECK(same_bits(model(row<float>()).value(), Tensor<float>({1, 2}, {6, 10})));
  CHECK_THROWS_AS(model.add(std::shared_ptr<nn::Module<float>>()), Error);
  nn::ModuleList<float> list;
  list.add(shared);
  CHECK(&list[0] == shared.get());
}

TEST_CASE("models nest, and paths of names with them") {
  nn::Sequential model(nn::Sequential(Scale(2), Increment()), Scale(3));
  CHECK(keys(model) == std::vector<std::string>{"0.0.factor", "1.factor"});
  CHECK(same_bits(model(row<float>()).value(), Tensor<float>({1, 2}, {9, 15})));
  model.eval();
  CHECK_FALSE(dynamic_cast<nn::Sequential<float>&>(model[0])[1].is_training());
}

TEST_CASE("a shape that a child refuses is reported with the child's path and class") {
  nn::Sequential model(Scale(1), nn::Sequential(Increment(), Scale(1, 3)));
  CHECK_THROWS_WITH_AS((void)model(row<float>()),
                       "1 (Sequential): 1 (Scale): Scale: [1, 2], expected 3 columns", ShapeError);
}

TEST_CASE("gradients flow through to every child and to the input") {
  nn::Sequential model(Scale(2), Increment(), Scale(3));
  const Variable<float> x(Tensor<float>({1, 2}, {1, 2}), true);
  model(x).backward(Tensor<float>({1, 2}, {1, 10}));
  CHECK(same_bits(x.grad(), Tensor<float>({1, 2}, {6, 60})));
  CHECK(same_bits(model.parameters()[0].grad(), Tensor<float>({2}, {3, 60})));
  CHECK(same_bits(model.parameters()[1].grad(), Tensor<float>({2}, {3, 50})));
}

TEST_CASE("a state goes from one model to another, and a moved model keeps working") {
  nn::Sequential source(Scale(2), Scale(3)), target(Scale(0), Scale(0));
  target.load_state_dict(source.state_dict());
  nn::Sequential moved = std::move(target);
  CHECK(same_bits(moved(row<float>()).value(), Tensor<float>({1, 2}, {6, 12})));
}

TEST_CASE("a list registers modules and leaves calling them to its owner") {
  nn::ModuleList<float> list;
  const auto first = list.add(Scale(2));
  list.add(Scale(3));
  CHECK(list.size() == 2);
  CHECK(keys(list) == std::vector<std::string>{"0.factor", "1.factor"});
  CHECK(&list[0] == first.get());
  CHECK(same_bits(list[1](row<float>()).value(), Tensor<float>({1, 2}, {3, 6})));
  CHECK_THROWS_WITH_AS((void)list[2], "ModuleList: there is no child 2; it has 2, numbered from 0",
                       Error);
  CHECK_THROWS_WITH_AS((void)list(row<float>()),
                       "ModuleList has no forward: call its modules, or use Sequential", Error);
}
