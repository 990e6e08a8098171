// libtorch on the benchmarks' work: forward with the graph recorded, backward through the engine,
// as a user of the library runs it.
#include <torch/torch.h>

#include "peer.hpp"

// BLAS has threads of its own, of which libtorch does not know; weak: not every BLAS is OpenBLAS.
extern "C" void openblas_set_num_threads(int) __attribute__((weak));
extern "C" char* openblas_get_config() __attribute__((weak));

namespace {

namespace F = torch::nn::functional;
namespace nn = torch::nn;
using torch::Tensor;

Tensor leaf(torch::IntArrayRef shape) { return torch::randn(shape).requires_grad_(); }

/// A function of leaves, both ways.
struct Function {
  std::function<Tensor()> f;
  std::vector<Tensor> leaves;  ///< whose gradients the backward takes
};

Function function_of(const bench::Work& work) {
  const auto& s = work.sizes;
  const std::string& layer = work.layer;
  if (layer == "conv2d") {
    const Tensor x = leaf({s[0], s[1], s[2], s[3]}), w = leaf({s[4], s[1] / s[7], s[5], s[5]});
    std::vector<Tensor> leaves{x, w};
    if (work.direction == "backward data") leaves = {x};
    if (work.direction == "backward weights") leaves = {w};
    return {[=, padding = s[6], groups = s[7]] {
              return torch::conv2d(x, w, {}, 1, padding, 1, groups);
            },
            leaves};
  }
  if (layer == "batch_norm" || layer == "group_norm" || layer == "instance_norm") {
    const Tensor x = leaf({s[0], s[1], s[2], s[3]}), g = leaf({s[1]}), b = leaf({s[1]});
    const Tensor mean = torch::zeros({s[1]}), var = torch::ones({s[1]});
    if (layer == "batch_norm")
      return {[=] { return torch::batch_norm(x, g, b, mean, var, true, 0.1, 1e-5, false); },
              {x, g, b}};
    if (layer == "instance_norm")
      return {[=] { return torch::instance_norm(x, g, b, {}, {}, true, 0.1, 1e-5, false); },
              {x, g, b}};
    return {[=, groups = s[4]] { return torch::group_norm(x, groups, g, b, 1e-5); }, {x, g, b}};
  }
  if (layer == "layer_norm") {
    const Tensor x = leaf({s[0], s[1]}), g = leaf({s[1]}), b = leaf({s[1]});
    return {[=, cols = s[1]] { return torch::layer_norm(x, {cols}, g, b, 1e-5); }, {x, g, b}};
  }
  if (layer == "rms_norm") {  // this version has none; what its users write
    const Tensor x = leaf({s[0], s[1]}), g = leaf({s[1]});
    return {[=] { return x * torch::rsqrt(x.pow(2).mean(-1, true) + 1e-5) * g; }, {x, g}};
  }
  if (layer == "max_pool2d" || layer == "avg_pool2d") {
    const Tensor x = leaf({s[0], s[1], s[2], s[3]});
    const long kernel = s[4];
    if (layer == "max_pool2d") return {[=] { return torch::max_pool2d(x, kernel); }, {x}};
    return {[=] { return torch::avg_pool2d(x, kernel); }, {x}};
  }
  if (layer == "dropout") {
    const Tensor x = leaf({s[0]});
    return {[=, p = work.dropout] { return torch::dropout(x, p, true); }, {x}};
  }
  if (layer == "softmax" || layer == "log_softmax") {
    const Tensor x = leaf({s[0], s[1]});
    if (layer == "softmax") return {[=] { return torch::softmax(x, 1); }, {x}};
    return {[=] { return torch::log_softmax(x, 1); }, {x}};
  }
  if (layer == "cross_entropy") {
    const Tensor x = leaf({s[0], s[1]}), y = torch::randint(0, s[1], {s[0]}, torch::kLong);
    return {[=] { return torch::cross_entropy_loss(x, y); }, {x}};
  }
  if (layer == "linear") {
    const Tensor x = leaf({s[0], s[1]}), w = leaf({s[2], s[1]}), b = leaf({s[2]});
    return {[=] { return torch::linear(x, w, b); }, {x, w, b}};
  }
  const auto unary = [&](Tensor (*f)(const Tensor&)) {
    const Tensor x = leaf({s[0]});
    return Function{[=] { return f(x); }, {x}};
  };
  if (layer == "relu") return unary([](const Tensor& x) { return torch::relu(x); });
  if (layer == "gelu") return unary([](const Tensor& x) { return torch::gelu(x); });
  if (layer == "silu") return unary([](const Tensor& x) { return torch::silu(x); });
  if (layer == "sigmoid") return unary([](const Tensor& x) { return torch::sigmoid(x); });
  if (layer == "tanh") return unary([](const Tensor& x) { return torch::tanh(x); });
  return {};
}

void add_norm(nn::Sequential& net, const std::string& norm, long channels, long width) {
  if (norm == "batch") net->push_back(nn::BatchNorm2d(channels));
  if (norm == "group") net->push_back(nn::GroupNorm(2, channels));
  if (norm == "layer") net->push_back(nn::LayerNorm(nn::LayerNormOptions({width})));
}

/// The network of seed_net.hpp.
nn::Sequential seed_net(const std::string& norm, double dropout) {
  nn::Sequential net;
  long channels = 1, width = 28;
  const auto conv = [&](long out, long kernel) {
    net->push_back(nn::Conv2d(nn::Conv2dOptions(channels, out, kernel).bias(false)));
    channels = out;
    width -= kernel - 1;
  };
  const auto block = [&](long out, long kernel) {
    conv(out, kernel);
    add_norm(net, norm, channels, width);
    if (dropout > 0) net->push_back(nn::Dropout(dropout));
    net->push_back(nn::ReLU());
  };
  block(8, 3);
  block(8, 3);
  block(8, 3);
  net->push_back(nn::MaxPool2d(2));
  width /= 2;
  block(12, 3);
  block(14, 3);
  block(8, 1);
  block(26, 3);
  block(50, 1);
  net->push_back(nn::AvgPool2d(width));
  conv(10, 1);
  return net;
}

std::function<void()> train_step(const bench::Work& work) {
  auto net = seed_net(work.norm, work.dropout);
  auto sgd = std::make_shared<torch::optim::SGD>(net->parameters(),
                                                 torch::optim::SGDOptions(1e-12).momentum(0.9));
  const long n = work.sizes[0];
  const Tensor x = torch::randn({n, 1, 28, 28}), y = torch::randint(0, 10, {n}, torch::kLong);
  return [=]() mutable {
    sgd->zero_grad();
    torch::cross_entropy_loss(net->forward(x).flatten(1), y).backward();
    sgd->step();
  };
}

std::function<void()> inference(const bench::Work& work) {
  auto net = seed_net(work.norm, work.dropout);
  net->eval();
  const Tensor x = torch::randn({work.sizes[0], 1, 28, 28});
  return [=]() mutable {
    const torch::InferenceMode guard;
    net->forward(x);
  };
}

Function stage(const bench::Work& work) {
  const auto& s = work.sizes;  // n, c, h, k, kernel
  nn::Sequential net;
  net->push_back(nn::Conv2d(nn::Conv2dOptions(s[1], s[3], s[4]).bias(false)));
  add_norm(net, work.norm, s[3], s[2] - s[4] + 1);
  if (work.norm != "none") {
    net->push_back(nn::Dropout(work.dropout));
    net->push_back(nn::ReLU());
  }
  const Tensor x = leaf({s[0], s[1], s[2], s[2]});
  std::vector<Tensor> leaves{x};
  for (const Tensor& parameter : net->parameters()) leaves.push_back(parameter);
  return {[=]() mutable { return net->forward(x); }, leaves};
}

std::function<void()> optimizer_step(const bench::Work& work) {
  std::vector<Tensor> parameters;
  for (const long size : work.sizes) {
    parameters.push_back(leaf({size}));
    parameters.back().mutable_grad() = torch::randn({size});
  }
  if (work.layer == "sgd") {
    auto sgd = std::make_shared<torch::optim::SGD>(parameters,
                                                   torch::optim::SGDOptions(1e-3).momentum(0.9));
    return [=] { sgd->step(); };
  }
  auto adam = std::make_shared<torch::optim::Adam>(parameters, torch::optim::AdamOptions(1e-3));
  return [=] { adam->step(); };
}

class Torch : public bench::Peer {
 public:
  std::string version() const override {
    std::string result = std::string("libtorch ") + TORCH_VERSION;
    // Debian's default, the reference BLAS, takes some thirty times as long as OpenBLAS.
    if (openblas_get_config)
      result += std::string(" with ") + openblas_get_config();
    else if (!at::hasMKL())
      result += " with neither OpenBLAS nor MKL: not what it can do (Debian: libopenblas0-pthread)";
    return result;
  }

  void set_num_threads(int threads) override { threads_ = threads; }

  std::vector<bench::PeerWay> ways(const bench::Work& work) override {
    // The linear layers run on BLAS's threads; two teams at once would fight for the cores.
    const bool blas = work.layer == "linear" && openblas_set_num_threads;
    torch::set_num_threads(blas ? 1 : threads_);
    if (openblas_set_num_threads) openblas_set_num_threads(blas ? threads_ : 1);
    std::function<void()> run;
    if (work.layer == "train_step")
      run = train_step(work);
    else if (work.layer == "inference")
      run = inference(work);
    else if (work.layer == "sgd" || work.layer == "adam")
      run = optimizer_step(work);
    else
      run = both_ways(work.layer == "stage" ? stage(work) : function_of(work), work);
    if (!run) return {};
    return {{"libtorch", run}};
  }

 private:
  static std::function<void()> both_ways(const Function& function, const bench::Work& work) {
    if (!function.f) return {};
    if (work.direction == "forward") return [f = function.f, y = Tensor()]() mutable { y = f(); };
    const Tensor y = function.f();
    const Tensor dy = y.dim() == 0 ? torch::ones_like(y) : torch::randn_like(y.detach());
    return [y, dy, leaves = function.leaves] {
      torch::autograd::grad({y}, leaves, {dy}, /*retain_graph=*/true);
    };
  }

  int threads_ = 1;
};

}  // namespace

extern "C" bench::Peer* minnow_bench_peer() { return new Torch; }
