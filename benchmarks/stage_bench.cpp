#include "minnow/nn/sequential.hpp"
#include "net_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
A stage is a convolution and what follows it: here a normalisation, dropout and ReLU. "layer by layer" runs
a kernel for each, every one of them over the whole tensor; "minnow" is the plan that Sequential makes of
them: a packet of 16 images, one a lane, goes through all of it while it lies in the first and second-level
cache, and all packets wait for each other only where batch norm takes its statistics. The convolution
alone, by the plan, is there to be subtracted: what is left is the price of norm, dropout and ReLU when
they are fused. Backward runs the same way back: what dropout and ReLU let through is read off y.
Minimal bytes: forward the stage's input and output once; backward both, and both of their gradients.
)";

struct StageSize {
  std::string name;
  Index n, c, h, k, kernel;
};

constexpr double p = 0.05;

using Net = std::shared_ptr<nn::Sequential<float>>;

template <class T>
nn::Sequential<T> make_stage(const StageSize& s, const std::string& norm) {
  const Index out = s.h - s.kernel + 1;
  nn::Sequential<T> net;
  net.add(nn::Conv2d<T>(s.c, s.k, s.kernel, {.bias = false}));
  if (norm == "batch") net.add(nn::BatchNorm2d<T>(s.k));
  if (norm == "group") net.add(nn::GroupNorm<T>(2, s.k));
  if (norm == "layer") net.add(nn::LayerNorm<T>(out));
  if (norm != "none") net.add(nn::Dropout<T>(p)).add(nn::ReLU<T>());
  return net;
}

void measure(Suite& suite, const StageSize& s, const std::string& norm) {
  const Index out = s.h - s.kernel + 1;
  const Shape x_shape{s.n, s.c, s.h, s.h}, y_shape{s.n, s.k, out, out};
  const auto x = normal(x_shape, 1), dy = normal(y_shape, 2);
  const Net planned = std::make_shared<nn::Sequential<float>>(make_stage<float>(s, norm));
  const Net layered = std::make_shared<nn::Sequential<float>>(make_stage<float>(s, norm));
  auto exact = make_stage<double>(s, norm);
  disturb(*planned);
  copy_state(*layered, *planned);
  copy_state(exact, *planned);
  layered->plan(false);
  exact.plan(false);

  // Dropout's key is the generator's next: the same for all when it starts afresh.
  const Variable<double> exact_x(x.to<double>(), true);
  manual_seed(1);
  const Variable<double> exact_y = exact(exact_x);
  exact_y.backward(dy.to<double>());
  Tensor<float> y(y_shape), dx(x_shape);
  Outputs of_forward(Outputs::Measure::root_mean_square),
      of_backward(Outputs::Measure::root_mean_square);
  of_forward.expect(y, exact_y.value());
  of_backward.expect(dx, exact_x.grad());
  std::vector<Tensor<float>> gradients;
  for (const auto& parameter : exact.parameters()) {
    gradients.emplace_back(parameter.shape());
    of_backward.expect(gradients.back(), parameter.grad());
  }

  const Variable<float> vx(x, true);
  const auto call = [vx](const Net& net) {
    return [=] {
      manual_seed(1);
      return (*net)(vx);
    };
  };
  const auto forward = [&](const char* name, const Net& net) {
    Way way = layer_forward(call(net), y);
    way.name = name;
    return way;
  };
  const auto backward = [&](const char* name, const Net& net) {
    Gradients to{{vx, dx}};
    const auto parameters = net->parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i)
      to.emplace_back(parameters[i], gradients[i]);
    Way way = layer_backward(call(net)(), dy, to);
    way.name = name;
    return way;
  };
  const double elements = static_cast<double>(y.size()),
               ends = static_cast<double>(x.size() + y.size());
  const double flops = 2 * elements * static_cast<double>(s.c * s.kernel * s.kernel);
  const auto row = [&](const char* direction, double times) {
    return Row{.layer = "stage",
               .direction = direction,
               .shape = s.name + ": convolution" +
                        (norm == "none" ? std::string(" alone")
                                        : text(", ", norm_name(norm), ", dropout, ReLU")),
               .set = "seed",
               .elements = elements,
               .bytes = times * 4 * ends,
               .flops = times * flops,
               .computes = true};
  };
  const std::vector<long> sizes{s.n, s.c, s.h, s.k, s.kernel};
  const double dropout = norm == "none" ? 0 : p;
  suite.measure(row("forward", 1), of_forward,
                {forward("layer by layer", layered), forward("minnow", planned)},
                {"stage", "forward", sizes, norm, dropout});
  suite.measure(row("backward", 2), of_backward,
                {backward("layer by layer", layered), backward("minnow", planned)},
                {"stage", "backward", sizes, norm, dropout});
}

}  // namespace

int main(int argc, char** argv) {
  return run("stage", argc, argv, [](Suite& suite) {
    suite.about("Stages: what fusion saves", how_it_works);
    for (const StageSize& s : {StageSize{"c2, 128x8x26x26 > 8", 128, 8, 26, 8, 3},
                               StageSize{"c8, 128x26x5x5 > 50", 128, 26, 5, 50, 1}})
      for (const char* norm : {"none", "batch", "group", "layer"})
        if (suite.wants("seed", s.name + " " + norm)) measure(suite, s, norm);
  });
}
