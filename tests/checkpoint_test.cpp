#include "minnow/io/checkpoint.hpp"

#include <doctest/doctest.h>

#include <type_traits>

#include "minnow/nn/activations.hpp"
#include "minnow/nn/linear.hpp"
#include "minnow/nn/sequential.hpp"
#include "minnow/ops/elementwise.hpp"
#include "minnow/ops/loss.hpp"
#include "minnow/ops/reduce.hpp"
#include "minnow/optim/adam.hpp"
#include "minnow/optim/lr_scheduler.hpp"
#include "minnow/optim/rmsprop.hpp"
#include "minnow/optim/sgd.hpp"
#include "minnow/testing/compare.hpp"
#include "temporary.hpp"

using namespace minnow;
using namespace minnow_test;

namespace {

// A network, its optimiser and its schedule, and `steps` steps of them.
template <class Optimizer>
struct Training {
  nn::Sequential<float> net{nn::Linear(3, 8), nn::ReLU(), nn::Linear(8, 2)};
  Optimizer optimizer;
  optim::StepLR scheduler{optimizer, {.step_size = 2}};

  explicit Training(const auto& options) : optimizer(net.parameters(), options) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      optimizer.zero_grad();
      const auto x = Tensor<float>::normal({5, 3});
      mse_loss(net(x), Tensor<float>::normal({5, 2})).backward();
      optimizer.step();
      scheduler.step();
    }
  }
  io::Checkpoint state() const {
    return {{"net", net.state_dict()},
            {"optimizer", optimizer.state_dict()},
            {"scheduler", scheduler.state_dict()},
            {"random", state_dict(default_generator())}};
  }
};

}  // namespace

TEST_CASE("every optimiser goes on from a file as if it had never stopped, to the bit") {
  const TemporaryDirectory directory;
  const std::string path = directory / "run.safetensors";
  const auto check = [&]<class Optimizer>(std::type_identity<Optimizer>, const auto& options) {
    manual_seed(7);
    Training<Optimizer> whole(options);
    whole.run(3);
    io::save_checkpoint(path, whole.state(), {{"step", "3"}});
    whole.run(4);
    const RandomKey end = default_generator().state();

    manual_seed(8);
    Training<Optimizer> resumed(options);
    resumed.run(1);
    io::Checkpoint checkpoint = io::load_checkpoint(path);
    CHECK(checkpoint.size() == 4);
    resumed.net.load_state_dict(checkpoint["net"]);
    resumed.optimizer.load_state_dict(checkpoint["optimizer"]);
    resumed.scheduler.load_state_dict(checkpoint["scheduler"]);
    load_state_dict(default_generator(), checkpoint["random"]);
    CHECK(resumed.optimizer.lr() == doctest::Approx(0.01));
    resumed.run(4);
    CHECK(default_generator().state() == end);
    CHECK(resumed.optimizer.lr() == whole.optimizer.lr());
    for (std::size_t i = 0; i < 4; ++i)
      CHECK(testing::same_bits(resumed.net.parameters()[i].value(),
                               whole.net.parameters()[i].value()));
    CHECK(io::load_safetensors_metadata(path).at("step") == "3");
  };
  using optim::SGDOptions, optim::AdamOptions, optim::AdamWOptions, optim::RMSpropOptions;
  check(std::type_identity<optim::SGD<float>>(), SGDOptions{.lr = 0.1});
  check(std::type_identity<optim::SGD<float>>(),
        SGDOptions{.lr = 0.1, .momentum = 0.9, .nesterov = true});
  check(std::type_identity<optim::Adam<float>>(), AdamOptions{.lr = 0.1, .amsgrad = true});
  check(std::type_identity<optim::AdamW<float>>(), AdamWOptions{.lr = 0.1});
  check(std::type_identity<optim::RMSprop<float>>(),
        RMSpropOptions{.lr = 0.1, .momentum = 0.9, .centered = true});
}

TEST_CASE("an optimiser's state has PyTorch's names, and only what there is") {
  const Variable<float> a(Tensor<float>({2}, {1, 2}), true), b(Tensor<float>({3}), true);
  optim::Adam optimizer({a}, {.lr = 0.5});
  optimizer.add_group({b}, {.lr = 0.25, .betas = {0.5, 0.75}});
  sum(a * a).backward();
  optimizer.step();  // b has no gradient
  const StateDict state = optimizer.state_dict();
  std::string names;
  for (const auto& [name, tensor] : state) names += name + ' ';
  CHECK(names ==
        "param_groups.0.lr param_groups.0.momentum param_groups.1.lr param_groups.1.momentum "
        "state.0.exp_avg state.0.exp_avg_sq state.0.step ");
  CHECK(std::get<Tensor<double>>(state.at("param_groups.1.lr")).item() == 0.25);
  CHECK(std::get<Tensor<double>>(state.at("param_groups.1.momentum")).item() == 0.5);
  CHECK(std::get<Tensor<std::int64_t>>(state.at("state.0.step")).item() == 1);

  optim::Adam fresh({a}, {.lr = 1});
  fresh.add_group({b}, {.lr = 1});
  fresh.load_state_dict(state);
  CHECK(fresh.lr(1) == 0.25);
  CHECK(fresh.momentum(1) == 0.5);
  CHECK(fresh.groups()[0].state[0].step == 1);
  CHECK_FALSE(fresh.groups()[1].state[0].exp_avg.defined());
  // The state is a copy's: the two go on by themselves.
  CHECK_FALSE(fresh.groups()[0].state[0].exp_avg.shares_memory_with(
      optimizer.groups()[0].state[0].exp_avg));
}

TEST_CASE("states that do not fit change nothing") {
  const Variable<float> a(Tensor<float>({2}, {1, 2}), true);
  optim::SGD optimizer({a}, {.lr = 0.5, .momentum = 0.9});
  const auto error = [&](const StateDict& state) {
    const std::string message = error_of([&] { optimizer.load_state_dict(state); });
    CHECK(optimizer.lr() == 0.5);
    CHECK_FALSE(optimizer.groups()[0].state[0].momentum_buffer.defined());
    return message;
  };
  StateDict state = optimizer.state_dict();
  CHECK(error({}) == "SGD: the state has no param_groups.0.lr");
  state["param_groups.0.lr"] = Tensor<double>::scalar(-1);
  CHECK(error(state) == "SGD: lr = -1 must be at least 0");
  state["param_groups.0.lr"] = Tensor<double>::scalar(0.25);
  state["state.0.momentum_buffer"] = Tensor<float>({3});
  CHECK(error(state) == "SGD: the state's state.0.momentum_buffer has shape [3], expected [2]");
  state["state.0.momentum_buffer"] = Tensor<std::int64_t>({2});
  CHECK(error(state) == "SGD: the state's state.0.momentum_buffer holds integers");
  state.erase("state.0.momentum_buffer");
  state["state.0.exp_avg"] = Tensor<float>({2});
  CHECK(error(state) ==
        "SGD: of the state's 3 entries 2 fit; it is another optimizer's, or one's "
        "for more parameters or groups");
  CHECK(error_of([&] { load_state_dict(default_generator(), state); }) ==
        "Generator: the state has no seed");
}

TEST_CASE("parts have names without a dot, and a file of one state is no checkpoint") {
  const TemporaryDirectory directory;
  const std::string path = directory / "file";
  const StateDict state{{"weight", Tensor<float>::ones({1})}};
  for (const std::string name : {"", "a.b"})
    CHECK(error_of([&] {
            io::save_checkpoint(path, {{name, state}});
          }) ==
          path + ": '" + name +
              "' is no name for a part of a checkpoint: it must not be empty or contain a dot");
  io::save_safetensors(path, state);
  CHECK(error_of<DataError>([&] { io::load_checkpoint(path); }) ==
        path +
            ": weight belongs to no part of a checkpoint; load_safetensors reads a single state");
}
