#include "minnow/core/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <thread>
#include <vector>

using namespace minnow;

namespace {

using Words = std::array<std::uint32_t, 4>;

/// The moments of `count` numbers of a sequence.
struct Moments {
  double mean = 0, variance = 0, skewness = 0, kurtosis = 0, neighbours = 0;

  template <class Draw>
  Moments(const Draw& draw, std::uint64_t count) {
    std::vector<double> x(count);
    for (std::uint64_t i = 0; i < count; ++i) x[i] = draw(i);
    const double n = static_cast<double>(count);
    for (const double v : x) mean += v / n;
    for (const double v : x) variance += (v - mean) * (v - mean) / n;
    for (std::uint64_t i = 0; i < count; ++i) {
      const double z = (x[i] - mean) / std::sqrt(variance);
      skewness += z * z * z / n;
      kurtosis += z * z * z * z / n;
      if (i > 0) neighbours += z * (x[i - 1] - mean) / std::sqrt(variance) / n;
    }
  }
};

}  // namespace

TEST_CASE("Philox gives the known answers of its authors") {
  // Counter words are {low, high, step, stream} of block and key.
  CHECK(philox({0, 0, 0}, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({0xffffffffffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x299f31d0a4093822, 0x03707344, 0x13198a2e}, 0x85a308d3243f6a88) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE_TEMPLATE("lanes of Philox are the blocks one by one", Lanes,
                   std::integral_constant<int, 1>, std::integral_constant<int, 4>,
                   std::integral_constant<int, 7>, std::integral_constant<int, 16>,
                   std::integral_constant<int, 32>, std::integral_constant<int, 33>) {
  constexpr int lanes = Lanes::value;
  const RandomKey key{0x123456789abcdef0, 17, 99};
  std::uint32_t low[lanes], high[lanes], out[4][lanes];
  for (int j = 0; j < lanes; ++j) {
    low[j] = 0xfffffff0u + static_cast<std::uint32_t>(j);
    high[j] = static_cast<std::uint32_t>(j) / 16;
  }
  philox<lanes>(out, key, low, high);
  for (int j = 0; j < lanes; ++j) {
    const Words words = philox(key, std::uint64_t{high[j]} << 32 | low[j]);
    for (std::size_t w = 0; w < 4; ++w) CHECK(out[w][j] == words[w]);
  }
}

TEST_CASE("every part of the key and the index changes the number") {
  std::set<double> numbers;
  std::size_t drawn = 0;
  for (const std::uint64_t seed : {0ull, 1ull, 1ull << 32})
    for (const std::uint32_t stream : {0u, 1u})
      for (const std::uint32_t step : {0u, 1u, 2u})
        for (const std::uint64_t index : {0ull, 1ull, 1ull << 32}) {
          numbers.insert(random_uniform({seed, stream, step}, index));
          ++drawn;
        }
  CHECK(numbers.size() == drawn);
}

TEST_CASE("uniform numbers have the moments of a uniform distribution") {
  const std::uint64_t count = 400000;
  const RandomKey key{2024, 0, 1};
  const auto draw = [&](std::uint64_t i) { return random_uniform(key, i); };
  const Moments m(draw, count);
  // Five standard errors each.
  const double error = 5 / std::sqrt(static_cast<double>(count));
  CHECK(std::abs(m.mean - 0.5) < error * std::sqrt(1.0 / 12));
  CHECK(std::abs(m.variance - 1.0 / 12) < error * std::sqrt(1.0 / 180));
  CHECK(std::abs(m.kurtosis - 1.8) < error * 2);
  CHECK(std::abs(m.skewness) < error * 2);
  CHECK(std::abs(m.neighbours) < error);
  double low = 1, high = 0;
  std::vector<int> tenths(10);
  for (std::uint64_t i = 0; i < count; ++i) {
    const double x = draw(i);
    REQUIRE((x >= 0 && x < 1));
    low = std::min(low, x);
    high = std::max(high, x);
    ++tenths[static_cast<std::size_t>(x * 10)];
  }
  CHECK(low < 1e-4);
  CHECK(high > 1 - 1e-4);
  for (const int tenth : tenths)
    CHECK(std::abs(tenth / (count / 10.0) - 1) < 5 * 3 / std::sqrt(count));
}

TEST_CASE("normal numbers have the moments of a normal distribution") {
  const std::uint64_t count = 400000;
  const RandomKey key{2024, 0, 2};
  const Moments m([&](std::uint64_t i) { return random_normal(key, i); }, count);
  const double error = 5 / std::sqrt(static_cast<double>(count));
  CHECK(std::abs(m.mean) < error);
  CHECK(std::abs(m.variance - 1) < error * std::sqrt(2));
  CHECK(std::abs(m.skewness) < error * std::sqrt(6));
  CHECK(std::abs(m.kurtosis - 3) < error * std::sqrt(24));
  CHECK(std::abs(m.neighbours) < error);
  int beyond_two = 0;
  for (std::uint64_t i = 0; i < count; ++i) beyond_two += std::abs(random_normal(key, i)) > 2;
  CHECK(beyond_two / static_cast<double>(count) == doctest::Approx(0.0455).epsilon(0.05));
}

TEST_CASE("random integers are even over their range and never reach the bound") {
  const RandomKey key{5, 6, 7};
  std::vector<int> counts(6);
  for (std::uint64_t i = 0; i < 60000; ++i) ++counts.at(random_integer(key, i, 6));
  for (const int count : counts) CHECK(std::abs(count - 10000) < 500);
  for (std::uint64_t i = 0; i < 100; ++i) CHECK(random_integer(key, i, 1) == 0);
  // Bounds of more than 32 bits: the high half of the product, here by the compiler's wide
  // integers.
  __extension__ using Wide = unsigned __int128;
  for (const std::uint64_t bound : {3ull, 1ull << 32, (1ull << 40) + 12345, ~0ull})
    for (std::uint64_t i = 0; i < 100; ++i) {
      const auto words = philox(key, i);
      const std::uint64_t bits = std::uint64_t{words[0]} << 32 | words[1];
      CHECK(random_integer(key, i, bound) == static_cast<std::uint64_t>(Wide{bits} * bound >> 64));
    }
}

TEST_CASE("a generator hands out keys that differ in their step, and resumes from its state") {
  Generator generator(7);
  CHECK(generator.next() == RandomKey{7, 0, 0});
  CHECK(generator.next() == RandomKey{7, 0, 1});
  const RandomKey state = generator.state();
  CHECK(state == RandomKey{7, 0, 2});
  const RandomKey next = generator.next();
  CHECK(next == state);
  Generator resumed(1);
  resumed.set_state(state);
  CHECK(resumed.next() == next);
}

TEST_CASE("manual_seed starts the default generator afresh") {
  manual_seed(11);
  const RandomKey first = default_generator().next();
  CHECK(first == RandomKey{11, 0, 0});
  default_generator().next();
  manual_seed(11);
  CHECK(default_generator().next() == first);
}

TEST_CASE("threads that share a generator get different keys") {
  Generator generator;
  std::vector<std::vector<std::uint32_t>> steps(4);
  std::vector<std::thread> threads;
  for (auto& mine : steps)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) mine.push_back(generator.next().step);
    });
  for (std::thread& thread : threads) thread.join();
  std::set<std::uint32_t> all;
  for (const auto& mine : steps) all.insert(mine.begin(), mine.end());
  CHECK(all.size() == 4000);
}
