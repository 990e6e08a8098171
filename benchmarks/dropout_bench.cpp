#include "minnow/nn/dropout.hpp"

#include "norm_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Whether an element is kept is a function of its place and a key: the same for any number of threads. One
block of the counter-based generator Philox 4x32-10 gives eight decisions of 16 bits; 16 blocks are computed
side by side in the lanes of registers, and their words, one after the other, are the decisions in order. p is
met to 1 part in 131072. A byte an element tells the backward what was kept.
Minimal bytes of an element: 9 in each direction (read x, write y and the byte; read dy and the byte, write dx).
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
  Tensor<std::uint8_t> kept_bytes(s.shape());
  for (Index i = 0; i < kept.size(); ++i) kept_bytes[i] = kept[i] > 0;
  const auto measure_one = [&](const char* direction, const Tensor<float>& to,
                               const Tensor<float>& from, const Tensor<double>& expected,
                               const Way& minnow, const Way& recorded) {
    Outputs outputs;
    outputs.expect(to, expected);
    const auto naive = [=, out = to]() mutable {
      Naive::dropout(out.data(), from.data(), s.n, size, rule);
    };
    suite.measure({.layer = "dropout",
                   .direction = direction,
                   .shape = s.text(),
                   .set = s.set,
                   .elements = static_cast<double>(x.size()),
                   .bytes = 9.0 * static_cast<double>(x.size()),
                   .flops = static_cast<double>(x.size())},
                  outputs, {{.name = "naive", .run = naive, .serial = true}, minnow, recorded},
                  {"dropout", direction, {x.size()}, "", p});
  };
  const auto forward = [=, out = y, bytes = kept_bytes]() mutable {
    kernels::dropout_forward(out.data(), bytes.data(), x.data(), s.n, size, rule);
  };
  const auto backward = [=, out = dx]() mutable {
    kernels::dropout_backward(out.data(), dy.data(), kept_bytes.data(), out.size(), rule.scale);
  };
  measure_one("forward", y, x, right.y, {"minnow", forward}, layer_forward(layer, y));
  measure_one("backward", dx, dy, right.gradients[0], {"minnow", backward},
              layer_backward(layer(), dy, {{vx, dx}}));
}

}  // namespace

int main(int argc, char** argv) {
  return run("dropout", argc, argv, [](Suite& suite) {
    suite.about("Dropout", how_it_works);
    for (const ImageSize& s : image_sizes())
      if (s.set != "tiny" && suite.wants(s.set, s.text())) measure(suite, s, 0.05);
  });
}
