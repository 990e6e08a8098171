#include "minnow/nn/pool2d.hpp"

#include "oracle.hpp"
#include "textbook.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Max pooling of 2 x 2 windows side by side takes two rows at a time: a register of each, the larger of the
two rows, then its even and odd lanes apart. Which of the four won is one byte an output, kept for the
backward, which spreads dy by those bytes with whole registers. For other windows the columns of a plane are
split by the stride, so that each tap of a row's windows is a run of memory, and registers of windows
of four rows go through their taps together. Average pooling adds the even and odd lanes of 2 x 2
windows; sixteen windows that are whole planes are added up together, two steps each in place of a sum
across lanes. Other windows are added down the columns first, along the rows of memory.
Minimal bytes, of an input element and 2 x 2 windows: forward 4 + 1 + 1/4 (read x, write y and the
places), backward the same the other way round. Average pooling needs no places.
)";

struct PoolSize {
  std::string set;
  Index n, c, h, kernel;
  bool quick = false;
};

void measure(Suite& suite, const PoolSize& s, bool largest) {
  const Index out = s.h / s.kernel, planes = s.n * s.c;
  const Shape x_shape{s.n, s.c, s.h, s.h}, y_shape{s.n, s.c, out, out};
  const auto x = normal(x_shape, 1), dy = normal(y_shape, 2);
  Tensor<float> y(y_shape), dx(x_shape);
  Tensor<std::uint8_t> places(y_shape);
  const Oracle right = oracle(
      [&](const auto& v) {
        return largest ? composed::max_pool2d(v[0], s.kernel, s.kernel, 0)
                       : composed::avg_pool2d(v[0], s.kernel, s.kernel, 0);
      },
      {x}, dy);
  const kernels::PoolAxis axis{.size = s.h, .out = out, .kernel = s.kernel, .stride = s.kernel};
  const Variable<float> vx(x, true);
  const auto layer = [=] {
    return largest ? nn::max_pool2d(vx, s.kernel) : nn::avg_pool2d(vx, s.kernel);
  };
  const auto forward = [=]() mutable {
    if (largest)
      kernels::max_pool2d_forward(y.data(), {places.data()}, x.data(), planes, axis, axis);
    else
      kernels::avg_pool2d_forward(y.data(), x.data(), planes, axis, axis);
  };
  const auto backward = [=]() mutable {
    if (largest)
      kernels::max_pool2d_backward(dx.data(), dy.data(), {places.data()}, planes, axis, axis);
    else
      kernels::avg_pool2d_backward(dx.data(), dy.data(), planes, axis, axis);
  };
  const auto naive_forward = [=]() mutable {
    const auto pool = largest ? Naive::max_pool2d_forward : Naive::avg_pool2d_forward;
    pool(y.data(), x.data(), planes, s.h, s.h, s.kernel);
  };
  const auto naive_backward = [=]() mutable {
    if (largest)
      Naive::max_pool2d_backward(dx.data(), dy.data(), x.data(), planes, s.h, s.h, s.kernel);
    else
      Naive::avg_pool2d_backward(dx.data(), dy.data(), planes, s.h, s.h, s.kernel);
  };
  const double bytes =
      static_cast<double>(4 * x.size() + 4 * y.size() + (largest ? places.size() : 0));
  const std::string name = largest ? "max_pool2d" : "avg_pool2d";
  const auto row = [&](const char* direction) {
    return Row{.layer = name,
               .direction = direction,
               .shape = shape_text({s.n, s.c, s.h, s.h}) + ", " + shape_text({s.kernel, s.kernel}),
               .set = s.set,
               .elements = static_cast<double>(x.size()),
               .bytes = bytes,
               .flops = static_cast<double>(x.size())};
  };
  const auto textbook = [](std::function<void()> run) {
    return Way{.name = "naive", .run = std::move(run), .serial = true};
  };
  Outputs of_forward, of_backward;
  of_forward.expect(y, right.y);
  of_backward.expect(dx, right.gradients[0]);
  const std::vector<long> sizes{s.n, s.c, s.h, s.h, s.kernel};
  suite.measure(row("forward"), of_forward,
                {textbook(naive_forward), {"minnow", forward}, layer_forward(layer, y)},
                {name, "forward", sizes});
  auto first = forward;
  first();  // for the places
  suite.measure(
      row("backward"), of_backward,
      {textbook(naive_backward), {"minnow", backward}, layer_backward(layer(), dy, {{vx, dx}})},
      {name, "backward", sizes});
}

}  // namespace

int main(int argc, char** argv) {
  return run("pool2d", argc, argv, [](Suite& suite) {
    suite.about("Pooling", how_it_works);
    for (const PoolSize& s : {PoolSize{"seed", 128, 8, 22, 2}, PoolSize{"wide", 32, 64, 56, 2},
                              PoolSize{"odd", 32, 62, 31, 3}, PoolSize{"one", 1, 64, 56, 2}})
      if (suite.wants(s.set, "max")) measure(suite, s, true);
    for (const PoolSize& s : {PoolSize{"seed", 128, 50, 5, 5}, PoolSize{"wide", 32, 64, 56, 2}})
      if (suite.wants(s.set, "average")) measure(suite, s, false);
  });
}
