#include "minnow/data/transforms.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "minnow/testing/compare.hpp"
#include "temporary.hpp"

using namespace minnow;
using namespace minnow_test;
using data::Transform;
using testing::compare;
using testing::same_bits;

namespace {

/// Keys for the samples `first`, `first` + 1, ... of a data set.
struct Keys {
  std::vector<Index> samples;
  data::SampleKeys keys;

  explicit Keys(Index count, Index first = 0, std::uint32_t epoch = 0)
      : samples(static_cast<std::size_t>(count)), keys{{42, 2, epoch}, {}} {
    std::iota(samples.begin(), samples.end(), first);
    keys.samples = samples;
  }
};

/// Random pixels in [0, 1).
Tensor<float> pictures(const Shape& shape) {
  return Tensor<float>::uniform(shape, 0, 1, {5, 1, 1});
}

Tensor<float> transformed(const Transform& transform, const Tensor<float>& batch, Index first = 0,
                          std::uint32_t epoch = 0) {
  Tensor<float> result = batch.clone();
  const Keys keys(batch.size(0), first, epoch);
  transform(result, keys.keys);
  return result;
}

std::string error_with(const Transform& transform, const Shape& shape) {
  return error_of<ShapeError>([&] { transformed(transform, Tensor<float>::zeros(shape)); });
}

/// The affine map in double, written down anew: the four matrices are multiplied and inverted as
/// matrices, and each pixel sums over all pixels of the input with the weights of bilinear
/// interpolation.
Tensor<double> affine_oracle(const Tensor<float>& images, const data::Affine& affine, double fill) {
  const double radian = std::acos(-1.0) / 180, angle = affine.degrees * radian;
  using Matrix = std::array<double, 4>;
  const auto times = [](const Matrix& p, const Matrix& q) {
    return Matrix{p[0] * q[0] + p[1] * q[2], p[0] * q[1] + p[1] * q[3], p[2] * q[0] + p[3] * q[2],
                  p[2] * q[1] + p[3] * q[3]};
  };
  const Matrix rotation{std::cos(angle), -std::sin(angle), std::sin(angle), std::cos(angle)};
  const Matrix shear_y{1, 0, -std::tan(affine.shear[1] * radian), 1};
  const Matrix shear_x{1, -std::tan(affine.shear[0] * radian), 0, 1};
  const Matrix scaling{affine.scale, 0, 0, affine.scale};
  const Matrix forward = times(times(times(rotation, shear_y), shear_x), scaling);
  const double determinant = forward[0] * forward[3] - forward[1] * forward[2];
  const Matrix back{forward[3] / determinant, -forward[1] / determinant, -forward[2] / determinant,
                    forward[0] / determinant};

  const Index n = images.size(0), c = images.size(1), h = images.size(2), w = images.size(3);
  Tensor<double> result(images.shape());
  for (Index image = 0; image < n; ++image)
    for (Index channel = 0; channel < c; ++channel)
      for (Index y = 0; y < h; ++y)
        for (Index x = 0; x < w; ++x) {
          const double out_x =
              static_cast<double>(x) - static_cast<double>(w - 1) / 2 - affine.shift[0];
          const double out_y =
              static_cast<double>(y) - static_cast<double>(h - 1) / 2 - affine.shift[1];
          const double in_x = back[0] * out_x + back[1] * out_y + static_cast<double>(w - 1) / 2;
          const double in_y = back[2] * out_x + back[3] * out_y + static_cast<double>(h - 1) / 2;
          double sum = 0, weights = 0;
          for (Index v = 0; v < h; ++v)
            for (Index u = 0; u < w; ++u) {
              const double weight = std::max(0.0, 1 - std::abs(in_x - static_cast<double>(u))) *
                                    std::max(0.0, 1 - std::abs(in_y - static_cast<double>(v)));
              sum += weight * images(image, channel, v, u);
              weights += weight;
            }
          result(image, channel, y, x) = sum + (1 - weights) * fill;
        }
  return result;
}

}  // namespace

TEST_CASE("Normalize subtracts the mean and divides by the deviation, of all channels or of each") {
  const Tensor<float> x = pictures({3, 2, 5, 7});
  const Tensor<float> one = transformed(data::Normalize(0.25, 0.5), x);
  const Tensor<float> each = transformed(data::Normalize({0.25, 0.5}, {0.5, 4}), x);
  for (Index i = 0; i < x.size(); ++i) {
    const bool second = i / 35 % 2 == 1;
    CHECK(one[i] == (x[i] - 0.25f) / 0.5f);
    CHECK(each[i] == (second ? (x[i] - 0.5f) / 4.0f : (x[i] - 0.25f) / 0.5f));
  }
}

TEST_CASE("an affine map without a change gives the same bits") {
  const Tensor<float> x = pictures({2, 3, 9, 11});
  Tensor<float> y = x.clone();
  data::detail::apply_affine(y, 0.5f, [](Index) { return data::Affine{}; });
  CHECK(same_bits(y, x));
}

TEST_CASE("affine maps turn clockwise, shift to the right and down, and enlarge") {
  // One bright pixel right of the centre of 5 x 5.
  Tensor<float> dot = Tensor<float>::zeros({1, 1, 5, 5});
  dot(0, 0, 2, 3) = 1;
  const auto where = [&](const data::Affine& affine) {
    Tensor<float> y = dot.clone();
    data::detail::apply_affine(y, 0, [&](Index) { return affine; });
    for (Index i = 0; i < 25; ++i)
      if (y[i] > 0.99f) return std::array{i / 5, i % 5};
    return std::array<Index, 2>{-1, -1};
  };
  CHECK(where({.degrees = 90}) == std::array<Index, 2>{3, 2});
  CHECK(where({.degrees = -90}) == std::array<Index, 2>{1, 2});
  CHECK(where({.shift = {1, 0}}) == std::array<Index, 2>{2, 4});
  CHECK(where({.shift = {-1, 2}}) == std::array<Index, 2>{4, 2});
  CHECK(where({.scale = 2}) == std::array<Index, 2>{2, 4});
  CHECK(where({.degrees = 90, .shift = {1, 0}}) == std::array<Index, 2>{3, 3});
}

TEST_CASE("affine maps agree with the oracle in double") {
  const data::Affine maps[] = {
      {.degrees = 30},      {.degrees = -8, .shift = {1.3, -2.6}, .scale = 0.9, .shear = {5, 0}},
      {.scale = 1.7},       {.scale = 0.3},
      {.shear = {20, -35}}, {.degrees = 200, .shift = {-4, 3}, .scale = 1.1, .shear = {-10, 15}},
      {.shift = {100, 0}},  {.shift = {0, -2.5}}};
  for (const Shape& shape : {Shape{1, 1, 28, 28}, Shape{2, 3, 17, 33}, Shape{1, 1, 1, 1},
                             Shape{1, 2, 1, 16}, Shape{1, 1, 15, 1}, Shape{2, 1, 3, 65}}) {
    const Tensor<float> x = pictures(shape);
    for (const data::Affine& map : maps) {
      for (const float fill : {0.0f, 0.75f}) {
        Tensor<float> y = x.clone();
        data::detail::apply_affine(y, fill, [&](Index) { return map; });
        const auto result = compare(y, affine_oracle(x, map, fill), 0, 3e-5);
        CHECK_MESSAGE(result, result);
      }
    }
  }
}

TEST_CASE("maps beyond all bounds stay within the image's memory") {
  Tensor<float> y = pictures({1, 1, 4, 4});
  for (const double scale : {1e-300, 1e300}) {
    data::detail::apply_affine(y, 0.5f, [&](Index) {
      return data::Affine{.degrees = 1, .shift = {1e30, -1e30}, .scale = scale};
    });
    for (const float value : y.values()) CHECK(std::isfinite(value));
  }
}

TEST_CASE("RandomAffine draws each range for each image, and nothing where no range is given") {
  // The place of a bright pixel in the middle tells the shift, others the rest: the draws are
  // repeated here.
  const data::RandomAffineOptions options{
      .degrees = 20, .translate = 0.2, .scale = {0.8, 1.3}, .shear = 10};
  const Tensor<float> x = pictures({6, 2, 12, 20});
  const Tensor<float> y = transformed(data::RandomAffine(options), x, 100, 3);
  const Keys keys(6, 100, 3);
  for (Index i = 0; i < 6; ++i) {
    const data::Affine map{
        .degrees = keys.keys.uniform(i, 0, -20, 20),
        .shift = {keys.keys.uniform(i, 1, -4, 4), keys.keys.uniform(i, 2, -2.4, 2.4)},
        .scale = keys.keys.uniform(i, 3, 0.8, 1.3),
        .shear = {keys.keys.uniform(i, 4, -10, 10), 0}};
    const auto result =
        compare(y.slice(i, i + 1), affine_oracle(x.slice(i, i + 1), map, 0), 0, 3e-5);
    CHECK_MESSAGE(result, result);
  }
  CHECK(same_bits(transformed(data::RandomAffine({}), x), x));
  CHECK_FALSE(same_bits(transformed(data::RandomAffine({.degrees = 1}), x), x));
  CHECK_FALSE(same_bits(transformed(data::RandomAffine({.translate = 0.1}), x), x));
  CHECK_FALSE(same_bits(transformed(data::RandomAffine({.scale = {1, 1.1}}), x), x));
  CHECK_FALSE(same_bits(transformed(data::RandomAffine({.shear = 1}), x), x));
  const Tensor<float> filled = transformed(data::RandomAffine({.scale = {0.2, 0.2}, .fill = 0.5f}),
                                           Tensor<float>::zeros({1, 1, 10, 10}));
  CHECK(filled[0] == 0.5f);
}

TEST_CASE("Pad puts a border on all sides") {
  const Tensor<float> x = pictures({2, 3, 4, 5});
  const Tensor<float> y = transformed(data::Pad({1, 2}, 9), x);
  REQUIRE(y.shape() == Shape{2, 3, 6, 9});
  for (Index n = 0; n < 2; ++n)
    for (Index c = 0; c < 3; ++c)
      for (Index h = 0; h < 6; ++h)
        for (Index w = 0; w < 9; ++w) {
          const bool inside = h >= 1 && h < 5 && w >= 2 && w < 7;
          CHECK(y(n, c, h, w) == (inside ? x(n, c, h - 1, w - 2) : 9));
        }
  CHECK(same_bits(transformed(data::Pad(0), x), x));
}

TEST_CASE("RandomCrop shows every window of the padded image, each about as often") {
  // Pixels tell their place; the border is -1.
  Tensor<float> x(Shape{3000, 1, 4, 4});
  for (Index i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 16);
  const Tensor<float> y = transformed(data::RandomCrop({3, 2}, {.padding = {1, 2}, .fill = -1}), x);
  REQUIRE(y.shape() == Shape{3000, 1, 3, 2});
  std::vector<int> seen(4 * 7);
  for (Index n = 0; n < 3000; ++n) {
    int matches = 0;
    for (Index top = -1; top <= 2; ++top)
      for (Index left = -2; left <= 4; ++left) {
        bool match = true;
        for (Index h = 0; h < 3; ++h)
          for (Index w = 0; w < 2; ++w) {
            const Index v = top + h, u = left + w;
            const bool inside = v >= 0 && v < 4 && u >= 0 && u < 4;
            match = match && y(n, 0, h, w) == (inside ? static_cast<float>(4 * v + u) : -1.0f);
          }
        // Windows in the border alone look the same: -2 and 4.
        if (match && ++matches == 1) ++seen[static_cast<std::size_t>(7 * (top + 1) + left + 2)];
      }
    CHECK(matches >= 1);
  }
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const bool left_border = i % 7 == 0, right_border = i % 7 == 6;
    if (right_border)
      CHECK(seen[i] == 0);  // counted with its twin on the left
    else if (left_border)
      CHECK((i > 6 || seen[i] > 600));  // all of them look like the first
    else
      CHECK((seen[i] > 60 && seen[i] < 160));  // 107 expected
  }
}

TEST_CASE("RandomCrop moves all channels of an image together") {
  Tensor<float> x(Shape{20, 2, 6, 6});
  for (Index i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 36 + 100 * (i / 36 % 2));
  const Tensor<float> y = transformed(data::RandomCrop(4), x);
  for (Index n = 0; n < 20; ++n)
    for (Index i = 0; i < 16; ++i) CHECK(y(n, 1, i / 4, i % 4) == y(n, 0, i / 4, i % 4) + 100);
}

TEST_CASE("RandomHorizontalFlip mirrors whole images, as often as asked") {
  const Tensor<float> x = pictures({2000, 2, 3, 5});
  const auto mirrored = [&](double probability) {
    const Tensor<float> y = transformed(data::RandomHorizontalFlip(probability), x);
    int count = 0;
    for (Index n = 0; n < 2000; ++n) {
      const bool flipped = y(n, 0, 0, 0) != x(n, 0, 0, 0);
      count += flipped;
      for (Index i = 0; i < 30; ++i) {
        const Index c = i / 15, h = i / 5 % 3, w = i % 5;
        REQUIRE(y(n, c, h, w) == x(n, c, h, flipped ? 4 - w : w));
      }
    }
    return count;
  };
  CHECK(mirrored(0) == 0);
  CHECK(mirrored(1) == 2000);
  CHECK(std::abs(mirrored(0.25) - 500) < 80);
}

TEST_CASE("RandomErasing overwrites one rectangle within the ranges, in all channels") {
  const Tensor<float> x = pictures({500, 2, 20, 30});
  const data::RandomErasingOptions options{
      .probability = 0.7, .area = {0.1, 0.2}, .ratio = {1.5, 3}, .value = 7};
  const Tensor<float> y = transformed(data::RandomErasing(options), x);
  int erased = 0;
  std::vector<std::array<double, 2>> corners;  // as shares of the places there are
  bool at_top = false, at_left = false, at_bottom = false, at_right = false;
  for (Index n = 0; n < 500; ++n) {
    Index top = 20, left = 30, bottom = -1, right = -1, count = 0;
    for (Index h = 0; h < 20; ++h)
      for (Index w = 0; w < 30; ++w) {
        const bool gone = y(n, 0, h, w) == 7;
        REQUIRE((y(n, 1, h, w) == 7) == gone);
        if (!gone) {
          REQUIRE(y(n, 0, h, w) == x(n, 0, h, w));
          continue;
        }
        top = std::min(top, h), bottom = std::max(bottom, h), left = std::min(left, w),
        right = std::max(right, w);
        ++count;
      }
    if (count == 0) continue;
    ++erased;
    const auto height = static_cast<double>(bottom - top + 1),
               width = static_cast<double>(right - left + 1);
    REQUIRE(count == static_cast<Index>(height * width));
    // The sides are rounded to whole pixels.
    CHECK(((height + 0.5) * (width + 0.5) > 60 && (height - 0.5) * (width - 0.5) < 120));
    CHECK(((height + 0.5) / (width - 0.5) > 1.5 && (height - 0.5) / (width + 0.5) < 3));
    at_top = at_top || top == 0, at_left = at_left || left == 0;
    at_bottom = at_bottom || bottom == 19, at_right = at_right || right == 29;
    corners.push_back(
        {static_cast<double>(top) / (20 - height), static_cast<double>(left) / (30 - width)});
  }
  CHECK(std::abs(erased - 350) < 50);
  CHECK((at_top && at_left && at_bottom && at_right));
  // Both places are even over what there is, and independent of each other: of 350 pairs, the
  // correlation's standard deviation is 0.05.
  double product = 0;
  for (const auto& [from_top, from_left] : corners)
    product += 12 * (from_top - 0.5) * (from_left - 0.5);
  CHECK(std::abs(product / static_cast<double>(corners.size())) < 0.2);
  // A rectangle that never fits: nothing happens.
  const Tensor<float> tiny = pictures({3, 1, 4, 4});
  CHECK(
      same_bits(transformed(data::RandomErasing({.probability = 1, .area = {1, 1}}), tiny), tiny));
  CHECK(same_bits(transformed(data::RandomErasing({.probability = 0}), x), x));
  CHECK(same_bits(transformed(data::RandomErasing({.ratio = {1e-300, 1e-299}}), x), x));
}

TEST_CASE(
    "what happens to a sample depends on the key and its place in the data set, not on its "
    "company") {
  const Transform transforms[] = {
      data::RandomAffine({.degrees = 10, .translate = 0.1, .scale = {0.9, 1.1}, .shear = 5}),
      data::RandomCrop(20, {.padding = 2}), data::RandomHorizontalFlip(), data::RandomErasing()};
  const Tensor<float> x = pictures({40, 1, 24, 24});
  for (const Transform& transform : transforms) {
    const Tensor<float> all = transformed(transform, x, 100);
    for (const Index size : {1, 7, 16}) {
      for (Index begin = 0; begin < 40; begin += size) {
        const Index end = std::min<Index>(begin + size, 40);
        CHECK(same_bits(transformed(transform, x.slice(begin, end), 100 + begin),
                        all.slice(begin, end)));
      }
    }
    CHECK_FALSE(same_bits(transformed(transform, x, 101), all));
    CHECK_FALSE(same_bits(transformed(transform, x, 100, 1), all));
    for (const int threads : {1, 2, 4}) {
      set_num_threads(threads);
      CHECK(same_bits(transformed(transform, x, 100), all));
    }
    set_num_threads(0);
  }
}

TEST_CASE("transforms of nothing are nothing") {
  for (const Transform& transform :
       {Transform(data::RandomAffine({.degrees = 10})), Transform(data::RandomCrop(3)),
        Transform(data::Normalize(0, 1)), Transform(data::RandomErasing()),
        Transform(data::RandomHorizontalFlip()), Transform(data::Pad(0))})
    CHECK(transformed(transform, Tensor<float>(Shape{0, 1, 5, 5})).size(0) == 0);
}

TEST_CASE("the random numbers of samples differ by sample, draw and key, and are spread evenly") {
  const Keys keys(1000);
  double sum = 0;
  for (Index i = 0; i < 1000; ++i) {
    const double number = keys.keys.uniform(i, 3, -2, 4);
    CHECK((number >= -2 && number < 4));
    sum += number;
    CHECK(number != keys.keys.uniform(i, 4, -2, 4));
    CHECK(number != keys.keys.uniform((i + 1) % 1000, 3, -2, 4));
    CHECK(number != keys.keys.uniform((i + 1) % 1000, 2, -2, 4));
    const Index integer = keys.keys.integer(i, 5, 3);
    CHECK((integer >= 0 && integer < 3));
  }
  CHECK(std::abs(sum / 1000 - 1) < 0.2);
}

TEST_CASE("wrong batches are refused") {
  const std::pair<Transform, const char*> transforms[] = {
      {data::Normalize(0, 1), "Normalize"},
      {data::RandomAffine({}), "RandomAffine"},
      {data::Pad(1), "Pad"},
      {data::RandomCrop(1), "RandomCrop"},
      {data::RandomHorizontalFlip(), "RandomHorizontalFlip"},
      {data::RandomErasing(), "RandomErasing"}};
  for (const auto& entry : transforms) {
    const auto& [transform, name] = entry;
    CHECK(error_with(transform, {2, 28, 28}) ==
          text(name, ": batch of shape [2, 28, 28], expected [N, C, H, W]"));
    Tensor<float> batch = Tensor<float>::zeros({3, 1, 2, 2});
    const Keys keys(2);
    CHECK(error_of<ShapeError>([&] { entry.first(batch, keys.keys); }) ==
          text(name, ": a batch of 3 images, but keys for 2"));
  }
  CHECK(error_with(data::Normalize({1, 2}, {1, 1}), {1, 3, 2, 2}) ==
        "Normalize: batch of shape [1, 3, 2, 2] has 3 channels, means and deviations are for 2");
  CHECK(error_with(data::RandomCrop(32, {.padding = 1}), {1, 1, 28, 28}) ==
        "RandomCrop: a window of 32 in images of shape [1, 1, 28, 28] with padding 1; make the "
        "window smaller or "
        "the padding wider");
}

TEST_CASE("wrong options are refused") {
  const auto error = [](const auto& make) { return error_of<Error>(make); };
  CHECK(error([] { data::Normalize(0.5, 0); }) ==
        "Normalize: deviation 0, expected a positive number");
  CHECK(error([] { data::Normalize(0.5, 1e-50); }).find("positive") != std::string::npos);
  CHECK(error([] { data::Normalize(NAN, 1); }) == "Normalize: mean nan, expected a finite number");
  CHECK(error([] { data::RandomAffine({.degrees = INFINITY}); }) ==
        "RandomAffine: degrees inf, expected a finite number");
  CHECK(error([] { data::RandomAffine({.translate = 1.5}); }) ==
        "RandomAffine: translate 1.5, expected a share of the size, at most 1");
  CHECK(error([] {
          data::RandomAffine({.scale = {1, INFINITY}});
        }).find("from 1 to inf") != std::string::npos);
  CHECK(error([] {
          data::RandomErasing({.ratio = {1, INFINITY}});
        }).find("from 1 to inf") != std::string::npos);
  CHECK(error([] {
          data::Normalize({0.5, 0.5}, {1});
        }) == "Normalize: 2 means and 1 deviations, expected one of each per channel");
  CHECK(error([] { data::RandomAffine({.degrees = -1}); }) ==
        "RandomAffine: degrees -1, translate 0, shear 0; each is how far to go either way, so none "
        "can be negative");
  CHECK(error([] { data::RandomAffine({.translate = -1}); }).find("translate -1") !=
        std::string::npos);
  CHECK(error([] { data::RandomAffine({.shear = -1}); }).find("shear -1") != std::string::npos);
  CHECK(error([] { data::RandomAffine({.shear = 90}); }) ==
        "RandomAffine: shear 90, expected less than 90 degrees");
  CHECK(error([] { data::RandomAffine({.fill = NAN}); }) ==
        "RandomAffine: fill nan, expected a finite number: it blends into the edges");
  CHECK(error([] {
          data::RandomAffine({.scale = {0, 1}});
        }) == "RandomAffine: scale from 0 to 1, expected two positive factors, the least first");
  CHECK(error([] {
          data::RandomAffine({.scale = {1.1, 0.9}});
        }).find("from 1.1 to 0.9") != std::string::npos);
  CHECK(error([] { data::Pad(-1); }) == "Pad: padding -1, expected 0 to 1073741824");
  CHECK(error([] { data::Pad(Index{1} << 62); }).find("expected 0 to") != std::string::npos);
  CHECK(error([] { data::RandomCrop(0); }) == "RandomCrop: size 0, expected 1 to 1073741824");
  CHECK(error([] { data::RandomCrop(1, {.padding = -1}); }).find("padding -1") !=
        std::string::npos);
  CHECK(error([] { data::RandomHorizontalFlip(1.5); }) ==
        "RandomHorizontalFlip: probability 1.5, expected 0 to 1");
  CHECK(error([] { data::RandomErasing({.probability = -0.5}); }) ==
        "RandomErasing: probability -0.5, expected 0 to 1");
  CHECK(error([] {
          data::RandomErasing({.area = {0.5, 0.1}});
        }) == "RandomErasing: area from 0.5 to 0.1, expected shares of the image, the least first");
  CHECK(error([] {
          data::RandomErasing({.ratio = {0, 1}});
        }) == "RandomErasing: ratio from 0 to 1, expected two positive numbers, the least first");
}

TEST_CASE("no two samples share a random number, however many are drawn") {
  const Keys keys(3, 7, 0);
  std::set<double> numbers;
  for (Index i = 0; i < 3; ++i)
    for (std::uint64_t draw = 0; draw < 1000; ++draw) numbers.insert(keys.keys.uniform(i, draw));
  CHECK(numbers.size() == 3000);
}
