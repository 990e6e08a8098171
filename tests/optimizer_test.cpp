#include "minnow/optim/optimizer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "minnow/kernels/optimizer.hpp"
#include "minnow/optim/adam.hpp"
#include "minnow/optim/rmsprop.hpp"
#include "minnow/optim/sgd.hpp"
#include "minnow/testing/compare.hpp"

using namespace minnow;

namespace {

Variable<float> parameter(const Shape& shape, float value = 1) {
  return Variable<float>(Tensor<float>::full(shape, value), true);
}

void set_grad(Variable<float> p, float value) {
  p.mutable_grad() = Tensor<float>::full(p.shape(), value);
}

// Random numbers at an address that is `offset` elements from an aligned one, with guards around.
template <class T>
struct Numbers {
  std::vector<T> memory;
  T* begin;
  Index size;

  Numbers(Index count, Index offset, std::uint32_t step, double low, double high)
      : memory(static_cast<std::size_t>(count + offset + 2), T(77)),
        begin(memory.data() + 1 + offset),
        size(count) {
    for (Index i = 0; i < count; ++i)
      begin[i] = static_cast<T>(
          low + (high - low) * random_uniform({5, 9, step}, static_cast<std::uint64_t>(i)));
  }
  Numbers(const Numbers& other)
      : memory(other.memory),
        begin(memory.data() + (other.begin - other.memory.data())),
        size(other.size) {}

  bool guards_intact() const {
    return std::all_of(memory.data(), const_cast<const T*>(begin), [](T x) { return x == 77; }) &&
           begin[size] == 77;
  }
};

template <class T>
constexpr double tolerance = std::is_same_v<T, float> ? 2e-6 : 1e-14;

template <class T>
bool close(const Numbers<T>& actual, const std::vector<double>& expected) {
  for (Index i = 0; i < actual.size; ++i) {
    const double e = expected[static_cast<std::size_t>(i)],
                 a = static_cast<double>(actual.begin[i]);
    if (!(std::abs(a - e) <= tolerance<T> * (1 + std::abs(e)))) return false;
  }
  return actual.guards_intact();
}

template <class T>
std::vector<Index> sizes() {
  constexpr Index width = Pack<T>::width;
  return {0, 1, 2, width - 1, width, width + 1, 3 * width + 1, 20011};
}

template <class T>
double d(T x) {
  return static_cast<double>(x);
}

}  // namespace

TEST_CASE_TEMPLATE("the SGD kernel follows its formula for every size, alignment and option", T,
                   float, double) {
  for (const Index size : sizes<T>()) {
    for (const bool with_velocity : {false, true}) {
      for (const bool nesterov : {false, true}) {
        const Index offset = size % 3;
        const Numbers<T> p(size, offset, 0, -1, 1), v(size, offset, 1, -1, 1),
            dp(size, offset, 2, -1, 1);
        const kernels::SgdStep<T> step{T(0.1), T(0.02), T(0.9), T(0.7), nesterov};
        std::vector<double> expected_p, expected_v;
        for (Index i = 0; i < size; ++i) {
          const double g = d(dp.begin[i]) + d(step.weight_decay) * d(p.begin[i]);
          const double velocity = d(step.momentum) * d(v.begin[i]) + d(step.gain) * g;
          const double direction = !with_velocity ? g
                                   : nesterov     ? g + d(step.momentum) * velocity
                                                  : velocity;
          expected_v.push_back(velocity);
          expected_p.push_back(d(p.begin[i]) - d(step.lr) * direction);
        }
        Numbers<T> new_p = p, new_v = v;
        kernels::sgd_step(new_p.begin, with_velocity ? new_v.begin : nullptr, dp.begin, size, step);
        CHECK(close(new_p, expected_p));
        CHECK((with_velocity ? close(new_v, expected_v) : new_v.memory == v.memory));
      }
    }
  }
}

TEST_CASE_TEMPLATE("the Adam kernel follows its formula for every size, alignment and option", T,
                   float, double) {
  for (const Index size : sizes<T>()) {
    for (const bool amsgrad : {false, true}) {
      const Index offset = size % 3;
      const Numbers<T> p(size, offset, 0, -1, 1), m(size, offset, 1, -1, 1),
          s(size, offset, 2, 0.1, 1), largest(size, offset, 3, 0.1, 1), dp(size, offset, 4, -1, 1);
      const kernels::AdamStep<T> step{.step_size = T(0.1),
                                      .root_scale = T(1.7),
                                      .beta1 = T(0.9),
                                      .beta2 = T(0.8),
                                      .eps = T(0.03),
                                      .gain1 = T(0.15),
                                      .gain2 = T(0.25),
                                      .weight_decay = T(0.04),
                                      .keep = T(0.95)};
      std::vector<double> expected_p, expected_m, expected_s, expected_largest;
      for (Index i = 0; i < size; ++i) {
        const double g = d(dp.begin[i]) + d(step.weight_decay) * d(p.begin[i]);
        expected_m.push_back(d(step.beta1) * d(m.begin[i]) + d(step.gain1) * g);
        expected_s.push_back(d(step.beta2) * d(s.begin[i]) + d(step.gain2) * g * g);
        expected_largest.push_back(std::max(d(largest.begin[i]), expected_s.back()));
        const double square = amsgrad ? expected_largest.back() : expected_s.back();
        expected_p.push_back(d(step.keep) * d(p.begin[i]) -
                             d(step.step_size) * expected_m.back() /
                                 (d(step.root_scale) * std::sqrt(square) + d(step.eps)));
      }
      Numbers<T> new_p = p, new_m = m, new_s = s, new_largest = largest;
      kernels::adam_step(new_p.begin, new_m.begin, new_s.begin,
                         amsgrad ? new_largest.begin : nullptr, dp.begin, size, step);
      CHECK(close(new_p, expected_p));
      CHECK(close(new_m, expected_m));
      CHECK(close(new_s, expected_s));
      CHECK(
          (amsgrad ? close(new_largest, expected_largest) : new_largest.memory == largest.memory));
    }
  }
}

TEST_CASE_TEMPLATE("the RMSprop kernel follows its formula for every size, alignment and option", T,
                   float, double) {
  for (const Index size : sizes<T>()) {
    for (const bool centered : {false, true}) {
      for (const bool with_velocity : {false, true}) {
        const Index offset = size % 3;
        const Numbers<T> p(size, offset, 0, -1, 1), s(size, offset, 1, 0.5, 1),
            mean(size, offset, 2, -0.3, 0.3), v(size, offset, 3, -1, 1), dp(size, offset, 4, -1, 1);
        const kernels::RmspropStep<T> step{.lr = T(0.1),
                                           .alpha = T(0.9),
                                           .eps = T(0.03),
                                           .weight_decay = T(0.04),
                                           .momentum = T(0.8),
                                           .gain = T(0.15)};
        std::vector<double> expected_p, expected_s, expected_mean, expected_v;
        for (Index i = 0; i < size; ++i) {
          const double g = d(dp.begin[i]) + d(step.weight_decay) * d(p.begin[i]);
          const double square = d(step.alpha) * d(s.begin[i]) + d(step.gain) * g * g;
          const double centre = d(step.alpha) * d(mean.begin[i]) + d(step.gain) * g;
          const double update =
              g / (std::sqrt(square - (centered ? centre * centre : 0)) + d(step.eps));
          const double velocity = d(step.momentum) * d(v.begin[i]) + update;
          expected_s.push_back(square);
          expected_mean.push_back(centre);
          expected_v.push_back(velocity);
          expected_p.push_back(d(p.begin[i]) - d(step.lr) * (with_velocity ? velocity : update));
        }
        Numbers<T> new_p = p, new_s = s, new_mean = mean, new_v = v;
        kernels::rmsprop_step(new_p.begin, new_s.begin, centered ? new_mean.begin : nullptr,
                              with_velocity ? new_v.begin : nullptr, dp.begin, size, step);
        CHECK(close(new_p, expected_p));
        CHECK(close(new_s, expected_s));
        CHECK((centered ? close(new_mean, expected_mean) : new_mean.memory == mean.memory));
        CHECK((with_velocity ? close(new_v, expected_v) : new_v.memory == v.memory));
      }
    }
  }
}

TEST_CASE_TEMPLATE("clamp and scale touch every element and no other", T, float, double) {
  for (const Index size : sizes<T>()) {
    Numbers<T> p(size, 1, 0, -1, 1), q = p;
    std::vector<double> clamped, scaled;
    for (Index i = 0; i < size; ++i) {
      clamped.push_back(std::clamp(d(p.begin[i]), -0.25, 0.25));
      scaled.push_back(d(p.begin[i]) * 1.5);
    }
    kernels::clamp(p.begin, size, T(0.25));
    kernels::scale(q.begin, size, T(1.5));
    CHECK(close(p, clamped));
    CHECK(close(q, scaled));
  }
}

TEST_CASE_TEMPLATE("sums of powers are right for every size and power", T, float, double) {
  for (const Index size : sizes<T>()) {
    const Numbers<T> x(size, 1, 0, -1, 1);
    for (const double power : {1.0, 2.0, 3.0, 0.5}) {
      double expected = 0;
      for (Index i = 0; i < size; ++i) expected += std::pow(std::abs(d(x.begin[i])), power);
      CHECK(kernels::sum_abs_power(x.begin, size, power) ==
            doctest::Approx(expected).epsilon(1e-12));
    }
    double largest = 0;
    for (Index i = 0; i < size; ++i) largest = std::max(largest, std::abs(d(x.begin[i])));
    CHECK(kernels::sum_abs_power(x.begin, size, std::numeric_limits<double>::infinity()) ==
          largest);
  }
}

TEST_CASE("NaN anywhere makes every norm NaN") {
  for (const Index at : {0, 7, 8, 100, 16999, 17000}) {
    std::vector<float> x(17001, 1.0f);
    x[static_cast<std::size_t>(at)] = std::numeric_limits<float>::quiet_NaN();
    for (const double power : {1.0, 2.0, 2.5, std::numeric_limits<double>::infinity()})
      CHECK(std::isnan(kernels::sum_abs_power(x.data(), std::ssize(x), power)));
  }
}

TEST_CASE("steps and norms have the same bits for any number of threads") {
  const Index size = 100003;
  const auto run = [&](int threads) {
    set_num_threads(threads);
    Variable<float> p(Tensor<float>::normal({size}, 0, 1, {1, 0, 0}), true);
    optim::Adam adam({p}, {.weight_decay = 0.1, .amsgrad = true});
    optim::SGD sgd({p}, {.momentum = 0.9, .nesterov = true});
    optim::RMSprop rmsprop({p}, {.momentum = 0.9, .centered = true});
    for (std::uint32_t i = 0; i < 3; ++i) {
      p.mutable_grad() = Tensor<float>::normal({size}, 0, 1, {2, 0, i});
      adam.step();
      sgd.step();
      rmsprop.step();
    }
    const double norm = kernels::sum_abs_power(p.value().data(), size, 2);
    set_num_threads(0);
    return std::pair(p.value(), norm);
  };
  const auto [expected, norm] = run(1);
  for (const int threads : {2, 4}) {
    const auto [actual, its_norm] = run(threads);
    CHECK(testing::same_bits(actual, expected));
    CHECK(its_norm == norm);
  }
}

TEST_CASE("parameters without a gradient, and their state, stay as they are") {
  const auto a = parameter({3}), b = parameter({2});
  optim::Adam optimizer({a, b}, {.lr = 0.5});
  set_grad(a, 1);
  optimizer.step();
  CHECK(a.value()[0] == doctest::Approx(0.5));
  CHECK(b.value()[0] == 1);
  CHECK(optimizer.groups()[0].state[0].step == 1);
  CHECK(optimizer.groups()[0].state[1].step == 0);
  CHECK_FALSE(optimizer.groups()[0].state[1].exp_avg.defined());
}

TEST_CASE("zero_grad drops the gradients of all groups") {
  const auto a = parameter({3}), b = parameter({2});
  optim::SGD optimizer({a}, {});
  optimizer.add_group({b}, {});
  set_grad(a, 1);
  set_grad(b, 1);
  optimizer.zero_grad();
  CHECK_FALSE(a.grad().defined());
  CHECK_FALSE(b.grad().defined());
  optimizer.step();
  CHECK(a.value()[0] == 1);
}

TEST_CASE("an optimizer changes the very parameters whose loss went backward") {
  const auto w = parameter({}, 3);
  optim::SGD optimizer({w}, {.lr = 0.1});
  for (int i = 0; i < 100; ++i) {
    optimizer.zero_grad();
    const auto loss = record<float>(
        "square", Tensor<float>::scalar(w.item() * w.item()), {w}, [w](const Tensor<float>& dy) {
          return std::vector{Tensor<float>::scalar(2 * w.item() * dy.item())};
        });
    loss.backward();
    optimizer.step();
  }
  CHECK(w.item() == doctest::Approx(3 * std::pow(0.8, 100)).epsilon(1e-4));
}

TEST_CASE("groups have options of their own, readable and writable by all") {
  const auto a = parameter({1}), b = parameter({1});
  const std::unique_ptr<optim::OptimizerBase> optimizer =
      std::make_unique<optim::SGD<float>>(std::vector{a}, optim::SGDOptions{.lr = 0.1});
  auto& sgd = dynamic_cast<optim::SGD<float>&>(*optimizer);
  sgd.add_group({b}, {.lr = 0.01, .momentum = 0.5});
  CHECK(optimizer->group_count() == 2);
  CHECK(optimizer->lr() == 0.1);
  CHECK(optimizer->lr(1) == 0.01);
  CHECK(optimizer->momentum(1) == 0.5);
  optimizer->set_lr(0.25, 1);
  optimizer->set_momentum(0, 1);
  CHECK(sgd.groups()[1].options.lr == 0.25);
  CHECK(sgd.groups()[1].options.momentum == 0);
  sgd.groups()[0].options.lr = 0.5;
  set_grad(a, 1);
  set_grad(b, 1);
  optimizer->step();
  CHECK(a.value()[0] == 0.5f);
  CHECK(b.value()[0] == 0.75f);
}

TEST_CASE("the momentum of Adam is its first beta") {
  optim::Adam optimizer({parameter({1})}, {});
  optimizer.set_momentum(0.85, 0);
  CHECK(optimizer.momentum() == 0.85);
  CHECK(optimizer.groups()[0].options.betas == std::array{0.85, 0.999});
}

TEST_CASE("state can be read and put back") {
  const auto run = [](int stop_at) {
    Variable<double> p(Tensor<double>({2}, {1.0, -2.0}), true);
    auto optimizer =
        std::make_unique<optim::Adam<double>>(std::vector{p}, optim::AdamOptions{.lr = 0.1});
    for (int i = 0; i < 6; ++i) {
      if (i == stop_at) {
        const auto state = optimizer->groups()[0].state;
        optimizer =
            std::make_unique<optim::Adam<double>>(std::vector{p}, optim::AdamOptions{.lr = 0.1});
        optimizer->groups()[0].state[0] = {
            state[0].step, state[0].exp_avg.clone(), state[0].exp_avg_sq.clone(), {}};
      }
      p.mutable_grad() = Tensor<double>({2}, {p.value()[0] * i, 0.3});
      optimizer->step();
    }
    return p.value();
  };
  CHECK(testing::same_bits(run(3), run(100)));
}

TEST_CASE("after the first step no further step allocates") {
  std::vector<Variable<float>> parameters;
  for (const Index size : {72, 8, 8, 576, 1872, 50}) {
    parameters.push_back(parameter({size}));
    set_grad(parameters.back(), 1);
  }
  optim::SGD sgd(parameters, {.momentum = 0.9});
  optim::Adam adam(parameters, {});
  optim::RMSprop rmsprop(parameters, {.momentum = 0.9, .centered = true});
  const auto step = [&] {
    sgd.step();
    adam.step();
    rmsprop.step();
  };
  step();
  reset_peak_memory();
  const MemoryStats before = memory_stats();
  for (int i = 0; i < 10; ++i) step();
  CHECK(memory_stats().peak_bytes_in_use == before.bytes_in_use);
  CHECK(memory_stats().system_allocations == before.system_allocations);
}

TEST_CASE("errors name the optimizer, the parameter and the way out") {
  const auto a = parameter({3}), b = parameter({2, 2});
  CHECK_THROWS_WITH_AS(optim::SGD(std::vector<Variable<float>>{}, {}),
                       "SGD: the list of parameters is empty", Error);
  CHECK_THROWS_WITH_AS(optim::Adam({a, Variable<float>()}, {}), "Adam: parameter 1 is undefined",
                       Error);
  CHECK_THROWS_WITH_AS(optim::SGD({a, Variable<float>(Tensor<float>({2, 2}))}, {}),
                       "SGD: parameter 1 of shape [2, 2] has requires_grad false and will never "
                       "get a gradient; call "
                       "set_requires_grad(true), or leave it out",
                       Error);
  const auto computed = record<float>("f", Tensor<float>({3}), {a},
                                      [](const Tensor<float>& dy) { return std::vector{dy}; });
  CHECK_THROWS_WITH_AS(
      optim::RMSprop({computed}, {}),
      "RMSprop: parameter 0 of shape [3] is the result of a function; only leaves can be optimised",
      Error);
  CHECK_THROWS_WITH_AS(optim::SGD({a, b, a}, {}),
                       "SGD: parameter 0 of shape [3] is in this optimizer twice", Error);

  optim::SGD optimizer({a}, {});
  CHECK_THROWS_WITH_AS(optimizer.add_group({b, a}, {}),
                       "SGD: parameter 1 of shape [3] is in this optimizer twice", Error);
  CHECK(optimizer.group_count() == 1);
  CHECK_THROWS_WITH_AS(optimizer.lr(1), "SGD: there is no group 1; it has 1, numbered from 0",
                       Error);
  CHECK_THROWS_WITH_AS(optimizer.set_momentum(0.5, -1),
                       "SGD: there is no group -1; it has 1, numbered from 0", Error);

  Variable<float>(a).mutable_grad() = Tensor<float>::ones({4});
  CHECK_THROWS_WITH_AS(optimizer.step(), "SGD: parameter 0 has shape [3], its gradient has [4]",
                       ShapeError);
  set_grad(a, 1);
  optim::Adam adam({a}, {});
  adam.groups()[0].state[0].exp_avg = Tensor<float>::zeros({2});
  CHECK_THROWS_WITH_AS(adam.step(), "Adam: the state has shape [2], its parameter has [3]",
                       ShapeError);
}

TEST_CASE("a state that was restored for fewer parameters is refused") {
  const Variable<float> a(Tensor<float>({3}), true), b(Tensor<float>({2}), true);
  set_grad(a, 1);
  set_grad(b, 1);
  optim::SGD optimizer({a, b}, {.momentum = 0.9});
  optimizer.groups()[0].state.resize(1);
  CHECK_THROWS_WITH_AS(optimizer.step(),
                       "SGD: 1 states for a group of 2 parameters; a saved state has one for each",
                       Error);
}
