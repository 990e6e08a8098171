#include "minnow/ops/activations.hpp"

#include "minnow/kernels/elementwise.hpp"
#include "norm_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Each activation is a pair of functions of registers, forward(x) and backward(saved, dy), where `saved` is
y wherever the derivative follows from it, so that the next layer's input is kept once. One loop runs
them over chunks of the array, in parallel. ReLU is a copy with a comparison; the others cost an
exponential or more, and are bound by arithmetic in the caches.
Minimal bytes of an element: forward 8 (read x, write y), backward 12 (read dy and y, write dx).
)";

/// `f` is the functor, `cost` what the library says an element of it is worth, `function` the
/// differentiable function, `formula` the oracle.
template <class F, class Function, class Formula>
void measure(Suite& suite, const std::string& name, const ImageSize& s, const F& f, Index cost,
             const Function& function, const Formula& formula) {
  const auto x = normal(s.shape(), 1), dy = normal(s.shape(), 2);
  Tensor<float> y(s.shape()), dx(s.shape());
  const Oracle right = oracle([&](const auto& v) { return formula(v[0]); }, {x}, dy);
  const Variable<float> vx(x, true);
  const auto layer = [=] { return function(vx); };
  const Index size = x.size();
  const auto forward = [=]() mutable {
    kernels::map([f](auto v) { return f.forward(v); }, y.data(), size, cost, x.data());
  };
  auto first = forward;
  first();
  const Tensor<float> saved = f.keeps_output() ? y.clone() : x;
  const auto backward = [=]() mutable {
    kernels::map([f](auto v, auto d) { return f.backward(v, d); }, dx.data(), size, cost,
                 saved.data(), dy.data());
  };
  std::vector<Way> forwards, backwards;
  if constexpr (std::is_same_v<F, kernels::Relu>) {
    forwards.push_back({.name = "naive",
                        .run = [=]() mutable { Naive::relu_forward(y.data(), x.data(), size); },
                        .serial = true});
    backwards.push_back(
        {.name = "naive",
         .run = [=]() mutable { Naive::relu_backward(dx.data(), dy.data(), saved.data(), size); },
         .serial = true});
  }
  forwards.push_back({"minnow", forward});
  backwards.push_back({"minnow", backward});
  forwards.push_back(layer_forward(layer, y));
  backwards.push_back(layer_backward(layer(), dy, {{vx, dx}}));
  Outputs of_forward, of_backward;
  of_forward.expect(y, right.y);
  of_backward.expect(dx, right.gradients[0]);
  const auto row = [&](const char* direction, double bytes) {
    return Row{.layer = name,
               .direction = direction,
               .shape = s.text(),
               .set = s.set,
               .elements = static_cast<double>(size),
               .bytes = bytes * static_cast<double>(size),
               .flops = static_cast<double>(size)};
  };
  suite.measure(row("forward", 8), of_forward, forwards, {name, "forward", {size}});
  suite.measure(row("backward", 12), of_backward, backwards, {name, "backward", {size}});
}

}  // namespace

int main(int argc, char** argv) {
  return run("activations", argc, argv, [](Suite& suite) {
    suite.about("Activations", how_it_works);
    for (const ImageSize& s : image_sizes()) {
      if (s.set == "tiny" || !suite.wants(s.set, s.text(), s.set == "wide" && s.quick)) continue;
      measure(
          suite, "relu", s, kernels::Relu(), 1, [](const auto& x) { return relu(x); },
          [](const auto& x) { return composed::relu(x); });
      if (s.set != "wide" || !s.quick) continue;
      measure(
          suite, "gelu", s, kernels::Gelu(), 4 * minnow::detail::function_cost,
          [](const auto& x) { return gelu(x); }, [](const auto& x) { return composed::gelu(x); });
      measure(
          suite, "silu", s, kernels::Silu(), minnow::detail::function_cost,
          [](const auto& x) { return silu(x); }, [](const auto& x) { return composed::silu(x); });
      measure(
          suite, "sigmoid", s, kernels::Sigmoid(), minnow::detail::function_cost,
          [](const auto& x) { return sigmoid(x); },
          [](const auto& x) { return composed::sigmoid(x); });
      measure(
          suite, "tanh", s, kernels::Tanh(), minnow::detail::function_cost,
          [](const auto& x) { return minnow::tanh(x); },
          [](const auto& x) { return composed::tanh(x); });
    }
  });
}
