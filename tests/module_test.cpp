#include "minnow/nn/module.hpp"

#include <doctest/doctest.h>

#include "minnow/ops/elementwise.hpp"
#include "minnow/testing/compare.hpp"

using namespace minnow;
using minnow::testing::same_bits;

namespace {

/// y = scale * x + shift, counting its calls.
template <class T = float>
class Affine : public nn::Module<T> {
 public:
  explicit Affine(T start = 1)
      : scale_(this->register_parameter("scale", Tensor<T>::full({2}, start))),
        shift_(this->register_parameter("shift", Tensor<T>::zeros({2}))),
        calls_(this->register_buffer("calls", Tensor<std::int64_t>::scalar(0))) {}

  Variable<T> forward(const Variable<T>& x) override {
    ++calls_[0];
    return x * scale_ + shift_;
  }
  std::string name() const override { return "Affine"; }

 private:
  Variable<T> scale_, shift_;
  Tensor<std::int64_t> calls_;
};

/// Two of them, one inside another module.
template <class T = float>
class Outer : public nn::Module<T> {
 public:
  Outer()
      : bias_(this->register_parameter("bias", Tensor<T>::ones({2}))),
        first_(this->register_module("first", Affine<T>(2))),
        second_(this->register_module("second", Affine<T>(3))) {}

  Variable<T> forward(const Variable<T>& x) override { return (*second_)((*first_)(x)) + bias_; }
  std::string name() const override { return "Outer"; }

 private:
  Variable<T> bias_;
  std::shared_ptr<Affine<T>> first_, second_;
};

template <class T>
std::vector<std::string> keys(const T& named) {
  std::vector<std::string> result;
  for (const auto& [key, value] : named) result.push_back(key);
  return result;
}

using Keys = std::vector<std::string>;

const Variable<float> ones = Tensor<float>::ones({2});

/// A module that registers what it is told to.
struct Registrar : nn::Module<float> {
  using Module::register_buffer;
  using Module::register_module;
  using Module::register_parameter;
  Variable<float> forward(const Variable<float>& x) override { return x; }
  std::string name() const override { return "Registrar"; }
};

}  // namespace

TEST_CASE("parameters, buffers and children are named by their path, in order of registration") {
  const Outer model;
  CHECK(keys(model.named_parameters()) ==
        Keys{"bias", "first.scale", "first.shift", "second.scale", "second.shift"});
  CHECK(keys(model.named_buffers()) == Keys{"first.calls", "second.calls"});
  CHECK(keys(model.children()) == Keys{"first", "second"});
  CHECK(keys(model.own_parameters()) == Keys{"bias"});
  CHECK(model.parameters().size() == 5);
  for (const auto& parameter : model.parameters()) {
    CHECK(parameter.requires_grad());
    CHECK(parameter.is_leaf());
  }
}

TEST_CASE("what two modules share is one parameter with two names") {
  Registrar model;
  const auto shared = std::make_shared<Outer<float>>();
  model.register_module("a", shared);
  model.register_module("b", shared);
  CHECK(model.parameters().size() == 5);
  CHECK(model.named_parameters().size() == 10);
  CHECK(model.state_dict().count("b.first.scale") == 1);
}

TEST_CASE("a module computes, and its parameters receive gradients until they are zeroed") {
  Outer model;
  const Variable<float> y = model(ones);
  CHECK(same_bits(y.value(), Tensor<float>({2}, {7, 7})));
  y.backward(Tensor<float>({2}, {1, 10}));
  for (const auto& parameter : model.parameters()) CHECK(parameter.grad().defined());
  CHECK(same_bits(model.parameters()[1].grad(), Tensor<float>({2}, {3, 30})));
  model.zero_grad();
  for (const auto& parameter : model.parameters()) CHECK_FALSE(parameter.grad().defined());
}

TEST_CASE("train and eval reach every module below") {
  Outer model;
  const auto all_training = [&] {
    bool all = model.is_training();
    for (const auto& [key, child] : model.children()) all = all && child->is_training();
    return all;
  };
  CHECK(all_training());
  model.eval();
  CHECK_FALSE(model.is_training());
  for (const auto& [key, child] : model.children()) CHECK_FALSE(child->is_training());
  model.train();
  CHECK(all_training());
  model.children()[0].second->train(false);
  CHECK(model.is_training());
  CHECK_FALSE(all_training());
}

TEST_CASE("a moved module works on with the same parameters") {
  Outer model;
  const auto weights = model.parameters();
  Outer moved = std::move(model);
  Variable<float>(weights[1]).mutable_value().fill(10);
  CHECK(same_bits(moved(ones).value(), Tensor<float>({2}, {31, 31})));
  CHECK(keys(moved.named_parameters()).size() == 5);
}

TEST_CASE("a state holds parameters and buffers by name, and shares their memory") {
  Outer model;
  const StateDict state = model.state_dict();
  CHECK(keys(state) == Keys{"bias", "first.calls", "first.scale", "first.shift", "second.calls",
                            "second.scale", "second.shift"});
  (void)model(ones);
  CHECK(std::get<Tensor<std::int64_t>>(state.at("first.calls")).item() == 1);
  const auto& scale = std::get<Tensor<float>>(state.at("second.scale"));
  CHECK(scale.shares_memory_with(model.parameters()[3].value()));

  const StateDict copy = clone(state);
  CHECK(keys(copy) == keys(state));
  (void)model(ones);
  CHECK(std::get<Tensor<std::int64_t>>(state.at("first.calls")).item() == 2);
  CHECK(std::get<Tensor<std::int64_t>>(copy.at("first.calls")).item() == 1);
}

TEST_CASE_TEMPLATE("a state goes over into another module, also of another type", T, float,
                   double) {
  Outer<float> source;
  (void)source(ones);
  (void)source(ones);
  for (auto& parameter : source.parameters())
    parameter.mutable_value().copy_from(Tensor<float>::uniform(parameter.shape()));
  Outer<T> target;
  const auto parameter = target.parameters()[2];
  target.load_state_dict(source.state_dict());
  for (std::size_t i = 0; i < 5; ++i) {
    const auto copied = target.parameters()[i].value(),
               original = source.parameters()[i].value().template to<T>();
    CHECK(same_bits(copied, original));
  }
  // In place: handles from before see the new numbers.
  CHECK(same_bits(parameter.value(), target.parameters()[2].value()));
  CHECK(std::get<Tensor<std::int64_t>>(target.state_dict().at("first.calls")).item() == 2);
  // A copy: the source's further changes do not show.
  source.parameters()[0].mutable_value().fill(-1);
  CHECK(target.parameters()[0].value()[0] != -1);
}

TEST_CASE(
    "a state that does not fit is refused with everything that is wrong, and nothing changes") {
  Outer model;
  StateDict state;
  state["bias"] = Tensor<float>::zeros({3});
  state["first.scale"] = Tensor<float>::full({2}, 9);
  state["second.weight"] = Tensor<float>::zeros({2});
  CHECK_THROWS_WITH_AS(model.load_state_dict(state),
                       "Outer: the state does not fit:\n"
                       "  bias has shape [3], expected [2]\n"
                       "  missing: first.calls\n"
                       "  missing: first.shift\n"
                       "  missing: second.calls\n"
                       "  missing: second.scale\n"
                       "  missing: second.shift\n"
                       "  unexpected: second.weight",
                       Error);
  CHECK(model.parameters()[1].value()[0] == 2);
  // Not strict: shapes must still fit.
  CHECK_THROWS_WITH_AS(model.load_state_dict(state, false),
                       "Outer: the state does not fit:\n  bias has shape [3], expected [2]", Error);
  state.erase("bias");
  model.load_state_dict(state, false);
  CHECK(model.parameters()[1].value()[0] == 9);
  CHECK(model.parameters()[3].value()[0] == 3);
}

TEST_CASE("names are registered once, and must be names") {
  Registrar module;
  module.register_parameter("weight", Tensor<float>::zeros({1}));
  const std::string taken = "Module: the name 'weight' is registered already";
  CHECK_THROWS_WITH_AS(module.register_parameter("weight", Tensor<float>::zeros({1})),
                       taken.c_str(), Error);
  CHECK_THROWS_WITH_AS(module.register_buffer("weight", Tensor<float>::zeros({1})), taken.c_str(),
                       Error);
  CHECK_THROWS_WITH_AS(module.register_module("weight", Affine()), taken.c_str(), Error);
  CHECK_THROWS_WITH_AS(module.register_parameter("a.b", Tensor<float>::zeros({1})),
                       "Module: 'a.b' is no name for a part: it must not be empty or contain a dot",
                       Error);
  CHECK_THROWS_AS(module.register_module("", Affine()), Error);
  CHECK(keys(module.named_parameters()) == Keys{"weight"});
}

TEST_CASE("an observer sees every call in order, and the one before it returns afterwards") {
  Outer model;
  std::vector<std::string> seen, inner_seen;
  {
    const nn::ModuleObserver<float> observer([&](const nn::Module<float>& module, const auto& y) {
      seen.push_back(module.name() + ' ' + y.shape().str());
    });
    (void)model(ones);
    {
      const nn::ModuleObserver<float> inner([&](const nn::Module<float>& module, const auto&) {
        inner_seen.push_back(module.name());
      });
      (void)model(ones);
    }
    (void)model(ones);
  }
  (void)model(ones);
  const Keys once{"Affine [2]", "Affine [2]", "Outer [2]"};
  CHECK(seen == Keys{once[0], once[1], once[2], once[0], once[1], once[2]});
  CHECK(inner_seen == Keys{"Affine", "Affine", "Outer"});
}

TEST_CASE("a state that is undefined or of other numbers changes nothing") {
  Affine module;
  const auto before = module.named_parameters()[0].second.value().clone();
  StateDict state = module.state_dict();
  state["scale"] = Tensor<std::int64_t>::full(before.shape(), 9);
  CHECK_THROWS_WITH_AS(module.load_state_dict(state), doctest::Contains("scale holds integers"),
                       Error);
  state["scale"] = Tensor<float>::full(before.shape(), 9);
  state["calls"] = Tensor<std::int64_t>();  // as a scalar, it has no sizes
  CHECK_THROWS_WITH_AS(module.load_state_dict(state), doctest::Contains("calls is undefined"),
                       Error);
  CHECK(same_bits(module.named_parameters()[0].second.value(), before));
  struct Null : Affine<float> {
    Null() { nn::Module<float>::register_module("x", std::shared_ptr<nn::Module<float>>()); }
  };
  CHECK_THROWS_WITH_AS(Null(), "register_module: x is null", Error);
}
