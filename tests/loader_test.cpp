#include "minnow/data/loader.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "minnow/data/transforms.hpp"
#include "minnow/testing/compare.hpp"
#include "temporary.hpp"

using namespace minnow;
using namespace minnow_test;
using data::Batch;
using data::DataLoader;
using testing::same_bits;

namespace {

/// Images whose pixels, and labels whose value, tell which sample they are (of up to 250).
Tensor<std::uint8_t> images(Index count, Index h = 4, Index w = 6) {
  Tensor<std::uint8_t> result(Shape{count, h, w});
  for (Index i = 0; i < result.size(); ++i) result[i] = static_cast<std::uint8_t>(i / (h * w));
  return result;
}
Tensor<std::int64_t> labels(Index count) { return Tensor<std::int64_t>::arange(count); }

std::vector<Batch> batches(DataLoader& loader) {
  std::vector<Batch> result;
  for (Batch& batch : loader) result.push_back(batch);
  return result;
}

/// The labels of one epoch in their order.
std::vector<Index> order(DataLoader& loader) {
  std::vector<Index> result;
  for (const auto& [x, y] : loader)
    result.insert(result.end(), y.values().begin(), y.values().end());
  return result;
}

bool same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  return std::ranges::equal(a, b, [](const Batch& p, const Batch& q) {
    return same_bits(p.x, q.x) && same_bits(p.labels, q.labels);
  });
}

}  // namespace

TEST_CASE("bytes arrive as fractions of 255, in order and with a channel") {
  Tensor<std::uint8_t> bytes(Shape{256, 1, 3});
  for (Index i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i / 3);
  DataLoader loader(bytes, labels(256), {.batch_size = 100});
  CHECK(loader.size() == 3);
  CHECK(loader.samples() == 256);
  Index sample = 0;
  for (auto& [x, y] : loader) {
    const Index count = std::min<Index>(100, 256 - sample);
    REQUIRE(x.shape() == Shape{count, 1, 1, 3});
    REQUIRE(y.shape() == Shape{count});
    for (Index i = 0; i < count; ++i, ++sample) {
      CHECK(y[i] == sample);
      for (Index j = 0; j < 3; ++j) CHECK(x[3 * i + j] == static_cast<float>(sample) / 255.0f);
    }
  }
  CHECK(sample == 256);
}

TEST_CASE("images with channels, and floats of any shape, keep their shape") {
  DataLoader colours(Tensor<std::uint8_t>::zeros({5, 3, 2, 2}), labels(5), {.batch_size = 5});
  for (auto& [x, y] : colours) CHECK(x.shape() == Shape{5, 3, 2, 2});
  const Tensor<float> features = Tensor<float>::normal({10, 7});
  DataLoader loader(features, labels(10), {.batch_size = 4});
  std::vector<Batch> all = batches(loader);
  REQUIRE(all.size() == 3);
  CHECK(same_bits(all[0].x, features.slice(0, 4)));
  CHECK(same_bits(all[2].x, features.slice(8, 10)));
  CHECK_FALSE(all[0].x.shares_memory_with(features));
  DataLoader flat(Tensor<std::uint8_t>::full({3, 2}, 255), labels(3));
  for (auto& [x, y] : flat) {
    CHECK(x.shape() == Shape{1, 2});
    CHECK(x[0] == 1.0f);
  }
}

TEST_CASE("a data set with images and labels needs no more words") {
  struct {
    Tensor<std::uint8_t> images() const { return ::images(9); }
    Tensor<std::int64_t> labels() const { return ::labels(9); }
  } const dataset;
  DataLoader loader(dataset, {.batch_size = 4, .drop_last = true});
  CHECK(loader.size() == 2);
  CHECK(loader.samples() == 9);
}

TEST_CASE("drop_last leaves out what does not fill a batch") {
  for (const Index count : {1, 7, 8, 9, 24}) {
    DataLoader all(images(count), labels(count), {.batch_size = 8});
    CHECK(all.size() == (count + 7) / 8);
    CHECK(std::ssize(order(all)) == count);
    if (count < 8) continue;
    DataLoader full(images(count), labels(count), {.batch_size = 8, .drop_last = true});
    CHECK(full.size() == count / 8);
    CHECK(std::ssize(order(full)) == count / 8 * 8);
    CHECK(std::ssize(batches(full)) == full.size());
  }
}

TEST_CASE("a batch larger than the data holds all of them") {
  DataLoader all(images(5), labels(5), {.batch_size = std::numeric_limits<Index>::max()});
  CHECK(all.size() == 1);
  CHECK(std::ssize(order(all)) == 5);
}

TEST_CASE("shuffling takes every sample once, in an order of seed and epoch alone") {
  const auto loader = [](std::uint64_t seed, Index batch_size) {
    return DataLoader(images(200), labels(200),
                      {.batch_size = batch_size, .shuffle = true, .seed = seed});
  };
  DataLoader a = loader(1, 7), b = loader(1, 64), c = loader(2, 7);
  const std::vector<Index> first = order(a), second = order(a);
  std::vector<Index> sorted = first;
  std::ranges::sort(sorted);
  std::vector<Index> all(200);
  std::iota(all.begin(), all.end(), Index{0});
  CHECK(sorted == all);
  CHECK(first != all);
  CHECK(first != second);
  CHECK(order(b) == first);
  CHECK(order(b) == second);
  CHECK(order(c) != first);
  // Images travel with their labels.
  for (auto& [x, y] : a)
    for (Index i = 0; i < y.size(); ++i) CHECK(x(i, 0, 3, 5) == static_cast<float>(y[i]) / 255.0f);

  b.set_epoch(0);
  CHECK(order(b) == first);
  CHECK(b.epoch() == 1);
  CHECK(a.epoch() == 3);
}

TEST_CASE("every order is about equally likely") {
  // Of three samples there are six orders.
  std::vector<int> seen(27);
  for (std::uint32_t epoch = 0; epoch < 6000; ++epoch) {
    const std::vector<Index> three = data::detail::shuffled(3, 5, epoch);
    ++seen[static_cast<std::size_t>(9 * three[0] + 3 * three[1] + three[2])];
  }
  for (const int place : {5, 7, 11, 15, 19, 21}) {
    const int count = seen[static_cast<std::size_t>(place)];
    CHECK_MESSAGE((count > 870 && count < 1130), place, " ", count);
  }
}

TEST_CASE("the shuffle is this one, on every machine") {
  CHECK(data::detail::shuffled(8, 0, 0) == std::vector<Index>{5, 1, 6, 2, 0, 7, 4, 3});
  CHECK(data::detail::shuffled(8, 123456789012345, 7) ==
        std::vector<Index>{0, 4, 5, 6, 2, 1, 3, 7});
}

TEST_CASE("prefetching, threads and batch sizes change nothing in the results") {
  const auto run = [](Index prefetch, Index batch_size, int threads) {
    set_num_threads(threads);
    DataLoader loader(images(100, 28, 28), labels(100),
                      {.batch_size = batch_size,
                       .shuffle = true,
                       .seed = 3,
                       .transforms = {data::RandomAffine({.degrees = 10, .translate = 0.1}),
                                      data::RandomErasing(), data::Normalize(0.2, 0.3)},
                       .prefetch = prefetch});
    std::vector<Batch> all = batches(loader);
    for (Batch& batch : batches(loader)) all.push_back(batch);
    set_num_threads(0);
    return all;
  };
  const std::vector<Batch> expected = run(0, 32, 1);
  REQUIRE(expected.size() == 8);
  for (const Index prefetch : {0, 1, 3, 100})
    for (const int threads : {1, 2, 4}) CHECK(same(run(prefetch, 32, threads), expected));
  // All samples in one batch: the same images.
  const std::vector<Batch> whole = run(2, 100, 2);
  REQUIRE(whole.size() == 2);
  for (int epoch = 0; epoch < 2; ++epoch)
    for (int i = 0; i < 4; ++i) {
      const Batch& part = expected[static_cast<std::size_t>(4 * epoch + i)];
      const Batch& all = whole[static_cast<std::size_t>(epoch)];
      CHECK(same_bits(part.x, all.x.slice(32 * i, std::min(100, 32 * i + 32))));
    }
}

TEST_CASE("transforms act in their order, each with numbers of its own, on the samples' places") {
  std::vector<RandomKey> keys;
  std::vector<std::vector<Index>> places;
  const auto transform = [&](Tensor<float>& batch, const data::SampleKeys& given) {
    keys.push_back(given.key);
    places.emplace_back(given.samples.begin(), given.samples.end());
    batch = Tensor<float>::full({batch.size(0), 2}, batch[0] + 1);
  };
  DataLoader loader(
      Tensor<float>::zeros({5, 1}), labels(5),
      {.batch_size = 3, .shuffle = true, .seed = 9, .transforms = {transform, transform}});
  loader.set_epoch(4);
  std::vector<std::vector<Index>> expected;
  for (auto& [x, y] : loader) {
    CHECK(x.shape() == Shape{y.size(), 2});
    CHECK(x[0] == 2.0f);
    for (int twice = 0; twice < 2; ++twice)
      expected.emplace_back(y.values().begin(), y.values().end());
  }
  CHECK(places == expected);
  REQUIRE(keys.size() == 4);
  CHECK(keys[0] == RandomKey{9, 2, 4});
  CHECK(keys[1] == RandomKey{9, 3, 4});
  CHECK(keys[2] == keys[0]);
}

TEST_CASE("a loop that is left early stops the thread, and the next loop is the next epoch") {
  for (const Index prefetch : {0, 1, 4}) {
    DataLoader loader(images(200), labels(200),
                      {.batch_size = 2, .shuffle = true, .prefetch = prefetch});
    for (int i = 0; i < 20; ++i)
      for (auto& [x, y] : loader) {
        if (y.size() == 2) break;
      }
    CHECK(loader.epoch() == 20);
    DataLoader other(images(200), labels(200), {.batch_size = 2, .shuffle = true});
    other.set_epoch(20);
    CHECK(order(loader) == order(other));
  }
}

TEST_CASE("a running epoch outlives its loader") {
  auto loader = std::make_unique<DataLoader>(
      images(50), labels(50), data::DataLoaderOptions{.batch_size = 5, .prefetch = 2});
  auto it = loader->begin();
  loader.reset();
  int count = 0;
  for (; it != std::default_sentinel; ++it) ++count;
  CHECK(count == 10);
}

TEST_CASE("what a transform throws arrives in the loop, after the batches before it") {
  for (const Index prefetch : {0, 1, 8}) {
    std::atomic<int> calls{0};
    const auto fails = [&](Tensor<float>&, const data::SampleKeys&) {
      if (++calls == 4) throw DataError("the fourth batch");
    };
    DataLoader loader(images(100), labels(100),
                      {.batch_size = 10, .transforms = {fails}, .prefetch = prefetch});
    int arrived = 0;
    CHECK(error_of<DataError>([&] {
            for (auto& [x, y] : loader) CHECK(y[0] == 10 * arrived++);
          }) == "the fourth batch");
    CHECK(arrived == 3);
    CHECK(std::ssize(batches(loader)) == 10);  // the next epoch runs

    calls = 0;
    auto it = loader.begin();
    for (int i = 0; i < 2; ++i) ++it;
    CHECK(error_of<DataError>([&] { ++it; }) == "the fourth batch");
    ++it;  // there is no way on
    CHECK(it == loader.end());
  }
}

TEST_CASE("transforms that change the number of samples are found out") {
  const auto error = [](const data::Transform& transform) {
    DataLoader loader(images(10), labels(10),
                      {.batch_size = 4, .transforms = {data::Normalize(0, 1), transform}});
    return error_of<ShapeError>([&] { loader.begin(); });
  };
  CHECK(error([](Tensor<float>& batch, const data::SampleKeys&) { batch = batch.slice(0, 1); }) ==
        "DataLoader: transform 1 left a batch of shape [1, 1, 4, 6], expected [4, ...] as before");
  CHECK(error([](Tensor<float>& batch, const data::SampleKeys&) {
          batch = {};
        }).find("transform 1 left a batch of shape []") != std::string::npos);
}

static_assert(std::ranges::input_range<DataLoader>);

TEST_CASE("a thread prepares batches ahead, but no more than asked for") {
  std::atomic<int> prepared{0};
  const auto count = [&](Tensor<float>&, const data::SampleKeys&) { ++prepared; };
  DataLoader loader(images(100), labels(100),
                    {.batch_size = 5, .transforms = {count}, .prefetch = 3});
  auto it = loader.begin();
  // One is in our hands, three wait, and one more may be in the making.
  for (int i = 0; i < 500 && prepared < 4; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(prepared >= 4);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(prepared == 4);
  ++it;
  for (int i = 0; i < 500 && prepared < 5; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(prepared == 5);
}

TEST_CASE("the thread that prepares starts no others") {
  std::set<std::thread::id> threads;
  std::atomic<Index> workers{0};
  const auto look = [&](Tensor<float>&, const data::SampleKeys&) {
    threads.insert(std::this_thread::get_id());
    workers = std::max(workers.load(), worker_count(1000));
  };
  set_num_threads(4);
  DataLoader loader(images(100), labels(100),
                    {.batch_size = 5, .transforms = {look}, .prefetch = 3});
  for (auto& [x, y] : loader) CHECK(y.size() == 5);
  set_num_threads(0);
  CHECK(threads.size() == 1);
  CHECK(*threads.begin() != std::this_thread::get_id());
  CHECK(workers == 1);
}

TEST_CASE("after the first batches, an epoch takes no memory from the system") {
  for (const Index prefetch : {0, 3}) {
    DataLoader loader(images(240, 28, 28), labels(240),
                      {.batch_size = 16,
                       .shuffle = true,
                       .transforms = {data::RandomAffine({.degrees = 5}), data::Normalize(0, 1)},
                       .prefetch = prefetch});
    for (auto& [x, y] : loader) CHECK(x.unique());
    const std::size_t before = memory_stats().system_allocations;
    for (int epoch = 0; epoch < 3; ++epoch)
      for (auto& [x, y] : loader) CHECK(x.unique());
    // How many batches exist at once depends on how the threads meet: x and labels of those that
    // wait, of one in the loop and of one being made, whose images a transform holds twice; and
    // the transform's working memory, one a thread.
    const Index at_once = num_threads() + (prefetch > 0 ? 2 * (prefetch + 3) : 0);
    CHECK(memory_stats().system_allocations <= before + static_cast<std::size_t>(at_once));
  }
}

TEST_CASE("wrong data and options are refused") {
  const auto error = [](const data::DataLoaderOptions& options, Index count = 10) {
    return error_of<Error>([&] { DataLoader(images(10), labels(count), options); });
  };
  CHECK(
      error({}, 9) ==
      "DataLoader: inputs of shape [10, 4, 6] and labels of shape [9]; expected [N, ...] and [N]");
  CHECK(error_of<ShapeError>([] {
          DataLoader(images(4), Tensor<std::int64_t>::zeros({4, 1}));
        }).find("labels of shape [4, 1]; expected [N, ...] and [N]") != std::string::npos);
  CHECK(error_of<ShapeError>([] { DataLoader(Tensor<float>(), Tensor<std::int64_t>()); }) ==
        "DataLoader: inputs of shape [] and labels of shape []; expected [N, ...] and [N]");
  CHECK(error({.batch_size = 0}) == "DataLoader: batch_size is 0, expected at least 1");
  CHECK(error({.prefetch = -1}) ==
        "DataLoader: prefetch is -1, expected 0 or the number of batches to prepare ahead");
  CHECK(error({.batch_size = 11, .drop_last = true}) ==
        "DataLoader: drop_last with a batch_size of 11 leaves nothing of 10 samples; make batches "
        "smaller or keep "
        "the last one");
  CHECK(error({.transforms = {nullptr}}) == "DataLoader: one of the transforms is empty");
  DataLoader loader(images(10), labels(10));
  CHECK(error_of<Error>([&] { loader.set_epoch(-1); }) == "DataLoader: there is no epoch -1");
  CHECK(error_of<Error>([&] { loader.set_epoch(Index{1} << 32); }) ==
        "DataLoader: there is no epoch 4294967296");
}

TEST_CASE("an empty data set has an empty epoch") {
  for (const Index prefetch : {0, 2}) {
    DataLoader loader(images(0), labels(0), {.batch_size = 4, .prefetch = prefetch});
    CHECK(loader.size() == 0);
    CHECK(order(loader).empty());
  }
}
