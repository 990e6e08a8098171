// A function of your own with its derivative, a layer of your own with its parameter, and the check
// that the derivatives are right.
#include <cmath>
#include <cstdio>
#include <minnow/minnow.hpp>
#include <minnow/testing/gradcheck.hpp>

using namespace minnow;

/// A smooth relu, whose bend b is learnt: y = (x + r) / 2 with r = sqrt(x^2 + b^2). b has one
/// element.
///
/// dy/dx = (1 + x / r) / 2 and dy/db = b / (2 r). Paper: Barron, "Squareplus: a softplus-like
/// algebraic rectifier", 2021.
template <class T>
Variable<T> squareplus(const Variable<T>& x, const Variable<T>& b) {
  const auto root = [](T x_i, T b_0) { return std::sqrt(x_i * x_i + b_0 * b_0); };
  const T bend = b.item();
  Tensor<T> y(x.shape());
  for (Index i = 0; i < x.size(); ++i) y[i] = (x.value()[i] + root(x.value()[i], bend)) / 2;

  // `record` ties the output to its inputs. The lambda maps dy to one gradient for each input; what
  // it captures lives until the gradient has been taken.
  return record<T>("squareplus", y, {x, b},
                   [=, x = x.value(), shape = b.shape()](const Tensor<T>& dy) {
                     Tensor<T> dx(x.shape());
                     T db = 0;
                     for (Index i = 0; i < x.size(); ++i) {
                       const T r = root(x[i], bend);
                       dx[i] = dy[i] * (1 + x[i] / r) / 2;
                       db += dy[i] * bend / (2 * r);
                     }
                     return std::vector{dx, Tensor<T>::full(shape, db)};
                   });
}

/// The layer: it owns b, under the name that the state dictionary will have.
template <class T = float>
class Squareplus : public nn::Module<T> {
 public:
  explicit Squareplus(double bend = 1)
      : bend_(this->register_parameter("bend", Tensor<T>::full({1}, static_cast<T>(bend)))) {}
  Variable<T> forward(const Variable<T>& x) override { return squareplus(x, bend_); }
  std::string name() const override { return "Squareplus"; }

 private:
  Variable<T> bend_;
};

int main() {
  manual_seed(1);
  const Variable<double> x(Tensor<double>::normal({4, 3}), true),
      b(Tensor<double>::full({1}, 0.7), true);
  const auto gradients =
      testing::gradcheck([](const auto& v) { return squareplus(v[0], v[1]); }, {x, b});
  std::printf("gradients of squareplus: %s\n", gradients ? "right" : gradients.str().c_str());

  // It works like any other layer: here it bends a line until that is |x|.
  nn::Sequential model{nn::Linear(1, 16), Squareplus(), nn::Linear(16, 1)};
  optim::Adam optimizer(model.parameters(), {.lr = 0.02});
  const auto inputs = Tensor<float>::uniform({256, 1}, -2, 2);
  auto targets = inputs.clone();
  for (Index i = 0; i < targets.size(); ++i) targets[i] = std::abs(targets[i]);
  float loss = 0;
  for (int step = 0; step < 500; ++step) {
    const auto error = mse_loss(model(inputs), Variable<float>(targets));
    optimizer.zero_grad();
    error.backward();
    optimizer.step();
    loss = error.item();
  }
  std::puts(nn::summary(model, {1}).str().c_str());
  std::printf("mean square error of |x|: %.5f\n", static_cast<double>(loss));
  return gradients && loss < 0.01f ? 0 : 1;
}
