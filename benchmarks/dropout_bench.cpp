#include "minnow/nn/dropout.hpp"

#include "norm_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Whether an element is kept is a function of its place and a key, so no mask is stored, and the backward
draws the same numbers again: the two are one function. One block of the counter-based generator Philox
4x32-10 gives eight decisions of 16 bits; 16 blocks are computed side by side in the lanes of registers,
and their words, one after the other, are the decisions in order. p is met to 1 part in 131072.
Minimal bytes of an element: 8 in each direction (read x, write y; read dy, write dx).
)";

void measure(Suite& suite, const ImageSize& s, double p) {
  const Index size = s.c * s.h * s.w;
  const auto x = normal(s.shape(), 1), dy = normal(s.shape(), 2);
  const RandomKey key{1, 0, 0};
  const kernels::DropoutRule rule(key, p);
  Tensor<float> y(s.shape()), dx(s.shape()), keep = Tensor<float>::ones(s.shape());
  Naive::dropout(keep.data(), keep.data(), s.n, size, rule);
  auto kept = keep.to<double>();
  for (double& k : kept.values()) k = k > 0 ? 1 : 0;
  const Oracle right =
      oracle([&](const auto& v) { return composed::dropout(v[0], kept, p); }, {x}, dy);
  const Variable<float> vx(x, true);
  const auto layer = [=] { return nn::dropout(vx, p, key); };
  const auto measure_one = [&](const char* direction, const Tensor<float>& to,
                               const Tensor<float>& from, const Tensor<double>& expected,
                               const Way& recorded) {
    Outputs outputs;
    outputs.expect(to, expected);
    const auto run = [=](auto kernel) {
      return [=, out = to]() mutable { kernel(out.data(), from.data(), s.n, size, rule); };
    };
    suite.measure({.layer = "dropout",
                   .direction = direction,
                   .shape = s.text(),
                   .set = s.set,
                   .elements = static_cast<double>(x.size()),
                   .bytes = 8.0 * static_cast<double>(x.size()),
                   .flops = static_cast<double>(x.size())},
                  outputs,
                  {{.name = "naive", .run = run(Naive::dropout), .serial = true},
                   {"minnow", run(kernels::dropout<float>)},
                   recorded},
                  {"dropout", direction, {x.size()}, "", p});
  };
  measure_one("forward", y, x, right.y, layer_forward(layer, y));
  measure_one("backward", dx, dy, right.gradients[0], layer_backward(layer(), dy, {{vx, dx}}));
}

}  // namespace

int main(int argc, char** argv) {
  return run("dropout", argc, argv, [](Suite& suite) {
    suite.about("Dropout", how_it_works);
    for (const ImageSize& s : image_sizes())
      if (s.set != "tiny" && suite.wants(s.set, s.text())) measure(suite, s, 0.05);
  });
}
