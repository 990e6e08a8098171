#include "minnow/nn/predictor.hpp"

#include "net_bench.hpp"
#include "seed_net.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Inference of the three MNIST networks. "minnow" is nn::Predictor: batch norm folded into the convolutions,
memory planned once, nothing recorded and nothing allocated per call. From half a register of images on
it runs one image a lane, fewer images run one by one, neighbouring positions in lanes. Rows of three
taps take half the multiplications (Winograd's F(4, 3)) in both where that pays.
"model" is the network itself in evaluation, under NoGrad. 889,000 multiply-adds an image.
)";

void measure(Suite& suite, const std::string& norm, Index n) {
  auto net = seed_net<float>(norm, 0.05);
  disturb(net);
  net.eval();
  auto exact = seed_net<double>(norm, 0.05);
  copy_state(exact, net);
  exact.eval();
  exact.plan(false);
  const Shape x_shape{n, 1, 28, 28};
  const auto x = normal(x_shape, 1);
  Tensor<float> y({n, 10, 1, 1});
  Outputs outputs;
  {
    const NoGrad no_grad;
    outputs.expect(y, exact(x.to<double>()).value());
  }
  const nn::Predictor<float> predictor(net, x_shape);
  auto workspace = predictor.workspace();
  Variable<float> result;
  const double images = static_cast<double>(n);
  suite.measure({.layer = "inference",
                 .direction = "forward",
                 .shape = text(norm_name(norm), n == 1 ? ", one image" : text(", batch ", n)),
                 .set = n == 1     ? "one"
                        : n == 128 ? "seed"
                                   : "odd",
                 .elements = images,
                 .bytes = 4 * (images * 794 + 7652),
                 .flops = images * 2 * 888592,
                 .computes = true},
                outputs,
                {{"minnow", [&] { predictor.predict(y.data(), x.data(), n, workspace); }},
                 {.name = "model",
                  .run =
                      [&] {
                        const NoGrad no_grad;
                        result = net(x);
                      },
                  .finish = [&] { y.copy_from(result.value()); }}},
                {"inference", "forward", {n}, norm, 0.05});
}

}  // namespace

int main(int argc, char** argv) {
  return run("predictor", argc, argv, [](Suite& suite) {
    suite.about("Inference", how_it_works);
    for (const char* norm : {"batch", "group", "layer"}) {
      if (suite.wants("seed", norm)) measure(suite, norm, 128);
      if (suite.wants("one", norm, true)) measure(suite, norm, 1);
      if (suite.wants("odd", norm)) measure(suite, norm, 37);
    }
  });
}
