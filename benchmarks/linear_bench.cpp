#include "minnow/nn/linear.hpp"

#include "oracle.hpp"
#include "textbook.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
y = x W^T + b: a matrix product by register tiles. Both operands are packed into panels in the order in
which they are used; a tile of 8 rows by 3 registers of columns stays in registers over 'gemm_depth' terms
(Goto, van de Geijn). Blocks of y run in parallel. A single row is a matrix times a vector: the weights
are read once, as they lie, and their bandwidth is the limit.
Backward is three products: dx = dy W, dW = dy^T x, db = column sums of dy, in double.
Minimal bytes: x, W and y once; operations: 2 n in out forward, twice as many backward.
)";

void measure(Suite& suite, const std::string& set, Index n, Index in, Index out) {
  const auto x = normal({n, in}, 1), weight = normal({out, in}, 2), bias = normal(Shape{out}, 3),
             dy = normal({n, out}, 4);
  Tensor<float> y({n, out}), dx({n, in}), dweight({out, in}), dbias(Shape{out});
  const Oracle right = oracle([](const auto& v) { return composed::linear(v[0], v[1], v[2]); },
                              {x, weight, bias}, dy);
  const Variable<float> vx(x, true), vw(weight, true), vb(bias, true);
  const auto layer = [=] { return nn::linear(vx, vw, vb); };
  Outputs of_forward, of_backward;
  of_forward.expect(y, right.y);
  of_backward.expect(dx, right.gradients[0]);
  of_backward.expect(dweight, right.gradients[1]);
  of_backward.expect(dbias, right.gradients[2]);
  const double flops = 2.0 * static_cast<double>(n * in * out);
  const auto row = [&](const char* direction, double times) {
    return Row{.layer = "linear",
               .direction = direction,
               .shape = std::to_string(n) + ", " + shape_text({in, out}),
               .set = set,
               .elements = static_cast<double>(y.size()),
               .bytes = times * 4.0 * static_cast<double>(x.size() + y.size() + weight.size()),
               .flops = times * flops,
               .computes = true};
  };
  const auto book = [](const char* name, std::function<void()> run) {
    return Way{.name = name, .run = std::move(run), .serial = true, .tolerance = 1e-3};
  };
  const auto book_forward = [=](auto textbook) {
    return [=]() mutable {
      textbook.linear_forward(y.data(), x.data(), weight.data(), bias.data(), n, in, out);
    };
  };
  const auto book_backward = [=](auto textbook) {
    return [=]() mutable {
      textbook.linear_backward(dx.data(), dweight.data(), dbias.data(), dy.data(), x.data(),
                               weight.data(), n, in, out);
    };
  };
  std::vector<Way> forward, backward;
  if (flops < 2e9) {
    forward.push_back(book("naive", book_forward(Naive())));
    backward.push_back(book("naive", book_backward(Naive())));
  }
  forward.push_back(book("vectorised", book_forward(Vectorised())));
  backward.push_back(book("vectorised", book_backward(Vectorised())));
  forward.push_back({"minnow", [=]() mutable {
                       kernels::linear_forward(y.data(), x.data(), weight.data(), bias.data(), n,
                                               in, out);
                     }});
  backward.push_back(
      {"minnow", [=]() mutable {
         kernels::linear_backward_data(dx.data(), dy.data(), weight.data(), n, in, out);
         kernels::linear_backward_weight(dweight.data(), dy.data(), x.data(), n, in, out);
         kernels::linear_backward_bias(dbias.data(), dy.data(), n, out);
       }});
  forward.push_back(layer_forward(layer, y));
  backward.push_back(layer_backward(layer(), dy, {{vx, dx}, {vw, dweight}, {vb, dbias}}));
  suite.measure(row("forward", 1), of_forward, forward, {"linear", "forward", {n, in, out}});
  suite.measure(row("backward", 2), of_backward, backward, {"linear", "backward", {n, in, out}});
}

}  // namespace

int main(int argc, char** argv) {
  return run("linear", argc, argv, [](Suite& suite) {
    suite.about("Linear", how_it_works);
    for (const Index n : {1, 128, 1024})
      if (suite.wants("wide", std::to_string(n), n <= 128)) measure(suite, "wide", n, 1024, 1024);
    if (suite.wants("odd", "257")) measure(suite, "odd", 257, 301, 1023);
  });
}
