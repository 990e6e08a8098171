#include "minnow/nn/summary.hpp"

#include <doctest/doctest.h>

#include "../examples/mnist/model.hpp"
#include "minnow/nn/sequential.hpp"
#include "seed_summaries.hpp"

using namespace minnow;

namespace {

/// y = gain * x, with a parameter that is neither called weight nor bias, a statistic and a random
/// draw.
struct Gain : nn::Module<double> {
  explicit Gain(Index features)
      : gain(register_parameter("gain", Tensor<double>::ones({features}))),
        calls(register_buffer("calls", Tensor<std::int64_t>::zeros({}))) {}
  Variable<double> forward(const Variable<double>& x) override {
    default_generator().next();
    if (is_training()) ++calls[0];
    recorded_graph = recorded_graph || grad_enabled();
    return x.value().clone();
  }
  std::string name() const override { return "Gain"; }

  Variable<double> gain;
  Tensor<std::int64_t> calls;
  bool recorded_graph = false;
};

/// Calls its one layer twice.
struct Twice : nn::Module<double> {
  std::shared_ptr<Gain> inner = register_module("inner", Gain(1234));
  Variable<double> forward(const Variable<double>& x) override { return (*inner)((*inner)(x)); }
  std::string name() const override { return "Twice"; }
};

struct Failing : nn::Module<double> {
  Variable<double> forward(const Variable<double>&) override { throw ShapeError("too narrow"); }
  std::string name() const override { return "Failing"; }
};

}  // namespace

TEST_CASE("the three networks' summaries are torchsummary's, character by character") {
  for (const auto& [norm, expected] : {std::pair(mnist::Norm::batch, batch_norm_summary),
                                       std::pair(mnist::Norm::group, group_norm_summary),
                                       std::pair(mnist::Norm::layer, layer_norm_summary)}) {
    auto net = mnist::make_net(norm);
    CHECK(nn::summary(net, {1, 28, 28}).str() == expected);
  }
}

TEST_CASE("a summary's rows are the calls of layers, its totals count each parameter once") {
  nn::Sequential<double> inner(Gain(3), Gain(5));
  nn::Sequential<double> model(Gain(7), std::move(inner), Twice());
  const nn::Summary summary = nn::summary(model, {4, 6});
  std::string layers;
  for (const auto& row : summary.rows) {
    layers += text(row.layer, ':', row.parameters, ' ');
    CHECK(row.output == Shape{4, 6});
  }
  CHECK(layers == "Gain-1:7 Gain-2:3 Gain-3:5 Gain-4:1234 Gain-5:1234 Twice-6:0 ");
  CHECK(summary.totals.parameters == 7 + 3 + 5 + 1234);
  CHECK(summary.totals.trainable == 7 + 3 + 5 + 1234);
  CHECK(summary.totals.input_bytes == 24 * 8);
  CHECK(summary.totals.pass_bytes == 2 * 6 * 24 * 8);
  CHECK(summary.totals.parameter_bytes == (7 + 3 + 5 + 1234) * 8);
  CHECK(summary.totals.bytes() == 24 * 8 + 2 * 6 * 24 * 8 + (7 + 3 + 5 + 1234) * 8);
}

/// A Sequential and a list of which only the second is called.
struct Block : nn::Module<double> {
  std::shared_ptr<nn::Sequential<double>> shortcut =
      register_module("shortcut", nn::Sequential<double>());
  std::shared_ptr<nn::ModuleList<double>> list = register_module("list", [] {
    nn::ModuleList<double> two;
    two.add(Gain(2));
    return two;
  }());
  Variable<double> forward(const Variable<double>& x) override {
    return (*list)[0]((*shortcut)(x));
  }
  std::string name() const override { return "Block"; }
};

TEST_CASE("neither the model, nor a Sequential without layers, nor a list has a row") {
  Block block;
  const nn::Summary summary = nn::summary(block, {2});
  REQUIRE(summary.rows.size() == 1);
  CHECK(summary.rows[0].layer == "Gain-1");
  nn::Sequential<double> model(Block{}, Gain(3));
  const nn::Summary nested = nn::summary(model, {2});
  REQUIRE(nested.rows.size() == 3);
  CHECK(nested.rows[1].layer == "Block-2");
}

TEST_CASE("frozen parameters are not trainable, large numbers have commas") {
  Gain model(1234567);
  const auto line = "              Gain-1                    [-1, 2]       1,234,567\n";
  CHECK(nn::summary(model, {2}).str().find(line) != std::string::npos);
  model.gain.set_requires_grad(false);
  const nn::Summary summary = nn::summary(model, {2});
  CHECK(summary.totals.parameters == 1234567);
  CHECK(summary.totals.trainable == 0);
  CHECK(summary.str().find("Total params: 1,234,567\nTrainable params: 0\n"
                           "Non-trainable params: 1,234,567\n") != std::string::npos);
}

TEST_CASE("a summary leaves mode, statistics and random state as they were") {
  nn::Sequential<double> model(Gain(1), Twice(), Gain(1));
  model[1].eval();  // parts may be in different modes
  auto& first = dynamic_cast<Gain&>(model[0]);
  manual_seed(17);
  default_generator().next();
  const RandomKey before = default_generator().state();

  nn::summary(model, {3});
  CHECK(default_generator().state() == before);
  CHECK(first.calls[0] == 0);
  CHECK_FALSE(first.recorded_graph);
  CHECK(grad_enabled());
  CHECK(model.is_training());
  CHECK(model[0].is_training());
  CHECK_FALSE(model[1].is_training());
  CHECK_FALSE(model[1].children()[0].second->is_training());
  CHECK(model[2].is_training());

  model.add(Failing());
  CHECK_THROWS_WITH_AS(nn::summary(model, {3}), "3 (Failing): too narrow", ShapeError);
  CHECK(default_generator().state() == before);
  CHECK(grad_enabled());
  CHECK(model[0].is_training());
  CHECK_FALSE(model[1].is_training());
}

TEST_CASE("numbers and columns are formatted for people") {
  CHECK(thousands(0) == "0");
  CHECK(thousands(999) == "999");
  CHECK(thousands(1000) == "1,000");
  CHECK(thousands(-999) == "-999");
  CHECK(thousands(-1234567) == "-1,234,567");
  CHECK(fixed(0.5, 2) == "0.50");
  CHECK(fixed(-2.005, 1) == "-2.0");
  CHECK(fixed(1e300, 3).size() == 305);
  CHECK(align_right("ab", 4) == "  ab");
  CHECK(align_left("ab", 4) == "ab  ");
  CHECK(align_right("abcde", 4) == "abcde");
}
