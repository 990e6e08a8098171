#include "minnow/optim/clip.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace minnow;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T>
Variable<T> with_grad(std::initializer_list<T> gradient) {
  const Shape shape{std::ssize(gradient)};
  Variable<T> p(Tensor<T>::zeros(shape), true);
  p.mutable_grad() = Tensor<T>(shape, gradient);
  return p;
}

}  // namespace

TEST_CASE_TEMPLATE("the norm spans all gradients and skips parameters without one", T, float,
                   double) {
  const std::vector<Variable<T>> parameters = {
      with_grad<T>({3, -4}), Variable<T>(Tensor<T>::ones({5}), true), with_grad<T>({-12})};
  CHECK(optim::grad_norm(parameters) == doctest::Approx(13).epsilon(1e-14));
  CHECK(optim::grad_norm(parameters, 1) == doctest::Approx(19).epsilon(1e-14));
  CHECK(optim::grad_norm(parameters, 3) ==
        doctest::Approx(std::cbrt(27 + 64 + 1728)).epsilon(1e-14));
  CHECK(optim::grad_norm(parameters, infinity) == 12);
}

TEST_CASE_TEMPLATE("clipping by norm scales all gradients by one factor", T, float, double) {
  const std::vector<Variable<T>> parameters = {
      with_grad<T>({3, -4}), Variable<T>(Tensor<T>::ones({5}), true), with_grad<T>({-12})};
  CHECK(optim::clip_grad_norm(parameters, 2.6) == doctest::Approx(13).epsilon(1e-14));
  CHECK(parameters[0].grad()[0] == doctest::Approx(0.6).epsilon(1e-6));
  CHECK(parameters[0].grad()[1] == doctest::Approx(-0.8).epsilon(1e-6));
  CHECK(parameters[2].grad()[0] == doctest::Approx(-2.4).epsilon(1e-6));
  CHECK_FALSE(parameters[1].grad().defined());
  CHECK(optim::clip_grad_norm(parameters, 100.0, infinity) == doctest::Approx(2.4).epsilon(1e-6));
}

TEST_CASE("gradients within the limit keep their bits") {
  const std::vector<Variable<float>> parameters = {with_grad<float>({0.3f, -0.1f})};
  CHECK(optim::clip_grad_norm(parameters, 1.0) == doctest::Approx(std::sqrt(0.1)));
  CHECK(parameters[0].grad()[0] == 0.3f);
  CHECK(parameters[0].grad()[1] == -0.1f);
}

TEST_CASE("without any gradient the norm is zero") {
  const std::vector<Variable<float>> parameters = {Variable<float>(Tensor<float>::ones({5}), true)};
  CHECK(optim::clip_grad_norm(parameters, 1.0) == 0);
  CHECK(optim::clip_grad_norm(parameters, 1.0, infinity) == 0);
}

TEST_CASE("gradients of 1e30 have a finite norm and are clipped right") {
  const std::vector<Variable<float>> parameters = {with_grad<float>({3e30f, -4e30f})};
  CHECK(optim::clip_grad_norm(parameters, 1.0) == doctest::Approx(5e30));
  CHECK(parameters[0].grad()[1] == doctest::Approx(-0.8));
}

TEST_CASE("a norm that is not finite is reported, or refused on request") {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<Variable<float>> parameters = {with_grad<float>({1, bad}),
                                                     with_grad<float>({2})};
    for (const double type : {2.0, infinity}) {
      CHECK_THROWS_WITH_AS(optim::clip_grad_norm(parameters, 1.0, type, true),
                           text("clip_grad_norm: the norm of the gradients is ", bad,
                                "; the loss or one of its gradients has overflowed")
                               .c_str(),
                           Error);
      CHECK(parameters[1].grad()[0] == 2);
    }
    const double norm = optim::clip_grad_norm(parameters, 1.0);
    CHECK((std::isnan(bad) ? std::isnan(norm) : norm == infinity));
    CHECK_FALSE(parameters[1].grad()[0] == 2);
  }
}

TEST_CASE_TEMPLATE("clipping by value limits every element", T, float, double) {
  const T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
  const std::vector<Variable<T>> parameters = {with_grad<T>({T(0.25), -3, 3, T(-0.25), nan}),
                                               Variable<T>(Tensor<T>::ones({5}), true),
                                               with_grad<T>({inf, -inf})};
  optim::clip_grad_value(parameters, 0.5);
  CHECK(parameters[0].grad()[0] == T(0.25));
  CHECK(parameters[0].grad()[1] == T(-0.5));
  CHECK(parameters[0].grad()[2] == T(0.5));
  CHECK(parameters[0].grad()[3] == T(-0.25));
  CHECK(std::isnan(parameters[0].grad()[4]));
  CHECK(parameters[2].grad()[0] == T(0.5));
  CHECK(parameters[2].grad()[1] == T(-0.5));
}

TEST_CASE("limits that make no sense are refused by name") {
  const std::vector<Variable<float>> parameters = {with_grad<float>({1})};
  CHECK_THROWS_WITH_AS(optim::clip_grad_norm(parameters, 0.0),
                       "clip_grad_norm: max_norm = 0 must be positive", Error);
  CHECK_THROWS_WITH_AS(optim::clip_grad_norm(parameters, 1.0, 0.0),
                       "grad_norm: norm_type = 0 must be positive", Error);
  CHECK_THROWS_WITH_AS(optim::clip_grad_value(parameters, -1.0),
                       "clip_grad_value: limit = -1 must be positive", Error);
}
