#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "minnow/ops/loss.hpp"
#include "minnow/optim/sgd.hpp"
#include "net_bench.hpp"
#include "seed_net.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
A whole training step of the three MNIST networks: forward, cross entropy, backward and a step of SGD with
momentum, on a batch of 128 images of 28 x 28. 670 million operations, of which the convolutions with 8
channels hold 69 %; all activations together are 9 MB, one image's are 71 KB.
"minnow" is what a user writes: the Sequential runs by its plan, one image a lane, stages fused, a packet of
16 images through the whole chain in the second-level cache where the norm looks at each image alone.
"layer by layer" is the same model with plan(false): a kernel a layer, NCHW. Bytes are those of the
parameters and the images only: nothing else has to leave the caches.
)";

/// One model, its optimiser, and a batch.
struct Training {
  nn::Sequential<float> net;
  optim::SGD<float> optimizer;
  Tensor<float> x;
  Tensor<std::int64_t> labels;

  // The learning rate is too small to change a weight, so that every step is the same.
  Training(Index n, const std::string& norm, double dropout)
      : net(seed_net<float>(norm, dropout)),
        optimizer(net.parameters(), {.lr = 1e-12, .momentum = 0.9}),
        x(normal({n, 1, 28, 28}, 1)),
        labels(Shape{n}) {
    for (Index i = 0; i < n; ++i) labels[i] = i % 10;
  }
  void step() {
    optimizer.zero_grad();
    cross_entropy(reshape(net(x), {x.size(0), 10}), labels).backward();
    optimizer.step();
  }
};

void measure(Suite& suite, const std::string& norm, double dropout, Index n, bool plan_only) {
  Training planned(n, norm, dropout), layered(n, norm, dropout);
  disturb(planned.net);
  copy_state(layered.net, planned.net);
  layered.net.plan(false);
  auto exact = seed_net<double>(norm, dropout);
  copy_state(exact, planned.net);
  exact.plan(false);
  manual_seed(1);
  cross_entropy(reshape(exact(planned.x.to<double>()), {n, 10}), planned.labels).backward();

  Outputs outputs(Outputs::Measure::root_mean_square);
  std::vector<Tensor<float>> gradients;
  for (const auto& parameter : exact.parameters()) {
    gradients.emplace_back(parameter.shape());
    outputs.expect(gradients.back(), parameter.grad());
  }
  const auto way = [&](const char* name, Training& training) {
    return Way{.name = name,
               .run =
                   [&] {
                     manual_seed(1);  // the same masks every time
                     training.step();
                   },
               .finish =
                   [&] {
                     const auto parameters = training.net.parameters();
                     for (std::size_t i = 0; i < parameters.size(); ++i)
                       gradients[i].copy_from(parameters[i].grad());
                   },
               .tolerance = 1e-2};
  };
  std::vector<Way> ways{way("minnow", planned)};
  if (!plan_only) ways.push_back(way("layer by layer", layered));
  double parameters = 0;
  for (const auto& gradient : gradients) parameters += static_cast<double>(gradient.size());
  const double images = static_cast<double>(n);
  suite.measure(
      {.layer = "train_step",
       .direction = "step",
       .shape = text(norm_name(norm), ", batch ", n, dropout > 0 ? ", dropout" : ", no dropout"),
       .set = n == 128 ? "seed" : "odd",
       .elements = images,
       .bytes = 4 * (images * 784 + 5 * parameters),
       // Multiply-adds of the convolutions, forward and backward; c1 without dx.
       .flops = images * 2 * (3 * 888592 - 48672),
       .computes = true},
      outputs, ways, {"train_step", "step", {n}, norm, dropout});
}

// Peak memory is a process' own, so each library trains in a child.

/// VmHWM or VmRSS of this process, in MB.
double memory_of(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return std::stod(line.substr(line.find(':') + 1)) / 1024;
  return 0;
}

/// Prints by how many MB twenty steps raise the peak above what the program and its libraries hold.
int print_memory(const std::string& norm, const char* peer_file) {
  double before = 0;
  const auto train = [](const auto& step) {
    for (int i = 0; i < 20; ++i) step();
  };
  if (std::strcmp(peer_file, "minnow") == 0) {
    before = memory_of("VmRSS");
    Training training(128, norm, 0.05);
    train([&] { training.step(); });
  } else {
    Peer* const peer = load_peer(peer_file);
    if (!peer) return 1;
    peer->set_num_threads(2);
    before = memory_of("VmRSS");
    const auto ways = peer->ways({"train_step", "step", {128}, norm, 0.05});
    if (ways.empty()) return 1;
    train(ways.front().run);
  }
  std::printf("%f\n", memory_of("VmHWM") - before);
  return 0;
}

void note_memory(Suite& suite) {
  std::array<char, 4096> self{};
  if (readlink("/proc/self/exe", self.data(), self.size() - 1) < 0) return;
  std::vector<std::string> files{"minnow"};
  for (const std::string& file : suite.peer_files()) files.push_back(file);
  for (const char* norm : {"batch", "group", "layer"})
    for (const std::string& file : files) {
      const std::string command = text(self.data(), " --memory ", norm, ' ', file, " 2>/dev/null");
      FILE* const pipe = popen(command.c_str(), "r");
      double megabytes = 0;
      if (pipe && std::fscanf(pipe, "%lf", &megabytes) == 1)
        suite.note(text("peak memory, training step, ", norm_name(norm), ", ",
                        file == "minnow"                          ? file
                        : file.find("torch") != std::string::npos ? "libtorch"
                                                                  : "oneDNN"),
                   megabytes, "MB");
      if (pipe) pclose(pipe);
    }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--memory") == 0) return print_memory(argv[2], argv[3]);
  return run("train_step", argc, argv, [](Suite& suite) {
    suite.about("Training step", how_it_works);
    note_memory(suite);
    for (const char* norm : {"batch", "group", "layer"}) {
      for (const double dropout : {0.05, 0.0})
        if (suite.wants("seed", text(norm, dropout > 0 ? " dropout" : " plain")))
          measure(suite, norm, dropout, 128, false);
      if (suite.wants("odd", norm)) measure(suite, norm, 0, 100, true);
    }
  });
}
