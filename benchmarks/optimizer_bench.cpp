#include "minnow/kernels/optimizer.hpp"

#include <cmath>

#include "harness.hpp"
#include "minnow/optim/adam.hpp"
#include "minnow/optim/sgd.hpp"
#include "seed_net.hpp"
#include "textbook.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
One pass over each parameter with all of its state in registers: parameter, gradient and moments are read
once and written once. A network's parameters are many small tensors, so what a step costs is the
overhead of each: here a few dozen nanoseconds, no allocation, no dispatch, and no second thread.
Minimal bytes of a parameter: SGD with momentum 20 (read p, v, dp, write p, v), Adam 28.
)";

/// The parameters of a network, and numbers that stand for its gradients and an optimiser's state.
struct Parameters {
  std::vector<Variable<float>> p;
  std::vector<Tensor<float>> start, m, s;

  Parameters() : p(seed_net<float>("batch", 0).parameters()) {
    for (Variable<float>& parameter : p) {
      const auto step = static_cast<std::uint32_t>(4 * start.size());
      start.push_back(parameter.value().clone());
      parameter.mutable_grad() = normal(parameter.shape(), step);
      m.push_back(normal(parameter.shape(), step + 1));
      s.push_back(normal(parameter.shape(), step + 2));
      for (float& value : s.back().values()) value *= value;
    }
  }
  void restart() {
    for (std::size_t i = 0; i < p.size(); ++i) p[i].mutable_value().copy_from(start[i]);
  }
};

constexpr double lr = 1e-3, momentum = 0.9;
constexpr int steps_before = 9;

/// `reset(state, i)` gives an optimiser's parameter number i a state to start from, `formula(p, dp,
/// m, s)` is what the step makes of a number, `naive(p, m, s, dp, size)` the textbook's step.
template <class Optimizer, class Reset, class Formula, class Book>
void measure(Suite& suite, const std::string& name, Optimizer& optimizer, Parameters& own,
             double bytes, const Reset& reset, const Formula& formula, const Book& naive) {
  Parameters others;
  std::vector<Tensor<float>> m, s;
  Outputs outputs;
  double elements = 0;
  std::vector<Tensor<float>> results;
  std::vector<long> sizes;
  for (std::size_t i = 0; i < own.p.size(); ++i) {
    const Tensor<float>& dp = own.p[i].grad();
    results.emplace_back(dp.shape());
    Tensor<double> expected(dp.shape());
    for (Index j = 0; j < dp.size(); ++j)
      expected[j] =
          formula(double{own.start[i][j]}, double{dp[j]}, double{own.m[i][j]}, double{own.s[i][j]});
    outputs.expect(results.back(), expected);
    elements += static_cast<double>(dp.size());
    sizes.push_back(dp.size());
    m.push_back(own.m[i].clone());
    s.push_back(own.s[i].clone());
  }
  const auto collect = [&](Parameters& parameters) {
    for (std::size_t i = 0; i < results.size(); ++i) results[i].copy_from(parameters.p[i].value());
  };
  const auto restart = [&] {
    own.restart();
    auto& group = optimizer.groups()[0];
    for (std::size_t i = 0; i < group.state.size(); ++i) reset(group.state[i], i);
  };
  suite.measure({.layer = name,
                 .direction = "step",
                 .shape = std::to_string(sizes.size()) + " tensors, " +
                          std::to_string(static_cast<int>(elements)) + " numbers",
                 .set = "seed",
                 .elements = elements,
                 .bytes = bytes * elements,
                 .flops = 10 * elements},
                outputs,
                {{.name = "naive",
                  .run =
                      [&] {
                        for (std::size_t i = 0; i < others.p.size(); ++i)
                          naive(others.p[i].mutable_value().data(), m[i].data(), s[i].data(),
                                others.p[i].grad().data(), results[i].size());
                      },
                  .finish = [&] { collect(others); },
                  .prepare =
                      [&] {
                        for (std::size_t i = 0; i < m.size(); ++i) {
                          others.p[i].mutable_value().copy_from(own.start[i]);
                          m[i].copy_from(own.m[i]);
                          s[i].copy_from(own.s[i]);
                        }
                      },
                  .serial = true},
                 {.name = "minnow",
                  .run = [&] { optimizer.step(); },
                  .finish = [&] { collect(own); },
                  .prepare = restart}},
                {name, "step", sizes});
}

}  // namespace

int main(int argc, char** argv) {
  return run("optimizer", argc, argv, [](Suite& suite) {
    suite.about("Optimisers", how_it_works);
    {
      Parameters own;
      optim::SGD<float> sgd(own.p, {.lr = lr, .momentum = momentum});
      measure(
          suite, "sgd", sgd, own, 20,
          [&](auto& state, std::size_t i) { state.momentum_buffer = own.m[i].clone(); },
          [](double p, double dp, double m, double) { return p - lr * (momentum * m + dp); },
          [](float* p, float* m, float*, const float* dp, Index size) {
            Naive::sgd_step(p, m, dp, size, static_cast<float>(lr), static_cast<float>(momentum));
          });
    }
    {
      Parameters own;
      optim::Adam<float> adam(own.p, {.lr = lr});
      const double t = steps_before + 1, step_size = lr / (1 - std::pow(0.9, t)),
                   root_scale = 1 / std::sqrt(1 - std::pow(0.999, t));
      measure(
          suite, "adam", adam, own, 28,
          [&](auto& state, std::size_t i) {
            state.step = steps_before;
            state.exp_avg = own.m[i].clone();
            state.exp_avg_sq = own.s[i].clone();
          },
          [=](double p, double dp, double m, double s) {
            const double mean = 0.9 * m + 0.1 * dp, square = 0.999 * s + 0.001 * dp * dp;
            return p - step_size * mean / (root_scale * std::sqrt(square) + 1e-8);
          },
          [=](float* p, float* m, float* s, const float* dp, Index size) {
            Naive::adam_step(p, m, s, dp, size, static_cast<float>(step_size),
                             static_cast<float>(root_scale), 0.9f, 0.999f, 1e-8f);
          });
    }
  });
}
