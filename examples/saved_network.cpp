// Trains a network, saves its weights in a file, and predicts with another that loads them.
#include <cstdio>
#include <filesystem>
#include <minnow/io/safetensors.hpp>
#include <minnow/minnow.hpp>

using namespace minnow;

// Whoever loads weights builds the same network first.
nn::Sequential<float> make_net() {
  return nn::Sequential{nn::Linear(2, 16), nn::BatchNorm1d(16), nn::ReLU(), nn::Linear(16, 2)};
}

// Whether a point lies in the unit circle.
Tensor<std::int64_t> labels_of(const Tensor<float>& points) {
  Tensor<std::int64_t> labels({points.size(0)});
  for (Index i = 0; i < labels.size(); ++i)
    labels[i] = points(i, 0) * points(i, 0) + points(i, 1) * points(i, 1) < 1;
  return labels;
}

void train_and_save(const std::string& file) {
  auto net = make_net();
  const auto points = Tensor<float>::uniform({2000, 2}, -1.5, 1.5);
  data::DataLoader loader(points, labels_of(points), {.batch_size = 50, .shuffle = true});
  optim::Adam optimizer(net.parameters(), {.lr = 0.01});
  for (int epoch = 0; epoch < 10; ++epoch)
    for (const auto& [x, labels] : loader) {
      optimizer.zero_grad();
      cross_entropy(net(x), labels).backward();
      optimizer.step();
    }
  io::save_safetensors(file, net.state_dict(), {{"format", "pt"}, {"points", "2000"}});
}

double load_and_test(const std::string& file) {
  auto net = make_net();
  net.load_state_dict(io::load_safetensors(file));
  net.eval();
  const auto points = Tensor<float>::uniform({1000, 2}, -1.5, 1.5);
  const nn::Predictor<float> predictor(net, {1000, 2});
  train::ConfusionMatrix result(2);
  result.add(predictor(points), labels_of(points));
  return result.accuracy();
}

int main() {
  manual_seed(1);
  const std::string file =
      (std::filesystem::temp_directory_path() / "minnow-circle.safetensors").string();
  train_and_save(file);
  const double accuracy = load_and_test(file);
  std::filesystem::remove(file);
  std::printf("%.1f %% of 1000 new points are classified correctly\n", 100 * accuracy);
  return accuracy > 0.9 ? 0 : 1;
}
