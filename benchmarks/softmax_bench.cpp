#include "minnow/ops/softmax.hpp"

#include "minnow/ops/loss.hpp"
#include "oracle.hpp"
#include "textbook.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
A row's largest number, the sum of exp(x - largest), and y, each a pass of registers over the row while
it is in cache; sums in two stages, in the end in double. Along an axis that is not the last, lanes lie
across neighbouring columns instead. Cross entropy keeps the log-probabilities for its backward, which is
one pass: exp(log_p) minus the target, times the upstream gradient.
Minimal bytes of an element: softmax forward 8, backward 12; cross entropy 4 forward, 4 + 4 backward.
)";

struct RowsSize {
  std::string set;
  Index rows, cols;
};

Row row_of(const std::string& layer, const char* direction, const RowsSize& s, double bytes) {
  const double elements = static_cast<double>(s.rows * s.cols);
  return {.layer = layer,
          .direction = direction,
          .shape = shape_text({s.rows, s.cols}),
          .set = s.set,
          .elements = elements,
          .bytes = bytes * elements,
          .flops = 20 * elements,
          .computes = true};
}

void measure_softmax(Suite& suite, const RowsSize& s) {
  const Index rows = s.rows, cols = s.cols;
  const Shape shape{rows, cols};
  const auto x = normal(shape, 1), dy = normal(shape, 2);
  Tensor<float> y(shape), dx(shape);
  const Oracle right = oracle([](const auto& v) { return composed::softmax(v[0], 1); }, {x}, dy);
  const Variable<float> vx(x, true);
  const auto layer = [=] { return softmax(vx, 1); };
  const auto forward = [=]() mutable {
    kernels::softmax_forward(y.data(), x.data(), rows, cols, 1);
  };
  Outputs of_forward, of_backward;
  of_forward.expect(y, right.y);
  of_backward.expect(dx, right.gradients[0]);
  const auto book = [](const char* name, std::function<void()> run) {
    return Way{.name = name, .run = std::move(run), .serial = true, .tolerance = 1e-3};
  };
  const auto books_forward = [=](auto textbook) {
    return [=]() mutable { textbook.softmax_forward(y.data(), x.data(), rows, cols); };
  };
  suite.measure(row_of("softmax", "forward", s, 8), of_forward,
                {book("naive", books_forward(Naive())),
                 book("vectorised", books_forward(Vectorised())),
                 {"minnow", forward},
                 layer_forward(layer, y)},
                {"softmax", "forward", {rows, cols}});
  auto first = forward;
  first();
  const Tensor<float> saved = y.clone();
  const auto books_backward = [=](auto textbook) {
    return [=]() mutable {
      textbook.softmax_backward(dx.data(), dy.data(), saved.data(), rows, cols);
    };
  };
  suite.measure(row_of("softmax", "backward", s, 12), of_backward,
                {book("naive", books_backward(Naive())),
                 book("vectorised", books_backward(Vectorised())),
                 {"minnow",
                  [=]() mutable {
                    kernels::softmax_backward(dx.data(), dy.data(), saved.data(), rows, cols, 1);
                  }},
                 layer_backward(layer(), dy, {{vx, dx}})},
                {"softmax", "backward", {rows, cols}});
}

void measure_cross_entropy(Suite& suite, const RowsSize& s) {
  const Index rows = s.rows, cols = s.cols;
  const Shape shape{rows, cols};
  const auto x = normal(shape, 1);
  Tensor<std::int64_t> labels(Shape{rows});
  for (Index i = 0; i < rows; ++i) labels[i] = i * 7 % cols;
  const auto one = Tensor<float>::ones(Shape{});
  const Oracle right =
      oracle([&](const auto& v) { return composed::cross_entropy(v[0], labels); }, {x}, one);
  Tensor<float> loss(Shape{}), losses(Shape{rows}), log_p(shape), dx(shape);
  const kernels::LabelTargets<float> targets{labels.data(), nullptr, rows, cols, 1, -100};
  const auto forward = [=]() mutable {
    kernels::log_softmax_forward(log_p.data(), x.data(), rows, cols, 1);
    kernels::nll_forward(losses.data(), log_p.data(), targets);
    double sum = 0;
    for (Index i = 0; i < rows; ++i) sum += double{losses[i]};
    loss[0] = static_cast<float>(sum / static_cast<double>(rows));
  };
  const Variable<float> vx(x, true);
  const auto layer = [=] { return cross_entropy(vx, labels); };
  Outputs of_forward, of_backward;
  of_forward.expect(loss, right.y);
  of_backward.expect(dx, right.gradients[0]);
  suite.measure(row_of("cross_entropy", "forward", s, 4), of_forward,
                {{"minnow", forward}, layer_forward(layer, loss)},
                {"cross_entropy", "forward", {rows, cols}});
  auto first = forward;
  first();
  suite.measure(row_of("cross_entropy", "backward", s, 8), of_backward,
                {{"minnow",
                  [=]() mutable {
                    kernels::cross_entropy_backward(dx.data(), one.data(), 0, log_p.data(), targets,
                                                    1 / static_cast<double>(rows));
                  }},
                 layer_backward(layer(), one, {{vx, dx}})},
                {"cross_entropy", "backward", {rows, cols}});
}

}  // namespace

int main(int argc, char** argv) {
  return run("softmax", argc, argv, [](Suite& suite) {
    suite.about("Softmax and cross entropy", how_it_works);
    for (const RowsSize& s :
         {RowsSize{"seed", 128, 10}, RowsSize{"wide", 128, 1000}, RowsSize{"wide", 4096, 1024},
          RowsSize{"odd", 1023, 301}, RowsSize{"one", 1, 1000}})
      if (suite.wants(s.set, shape_text({s.rows, s.cols}), s.rows == 128)) {
        measure_softmax(suite, s);
        measure_cross_entropy(suite, s);
      }
  });
}
