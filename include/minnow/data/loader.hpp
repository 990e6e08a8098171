#pragma once
/// @file
/// `DataLoader`: a data set in batches, shuffled and transformed, epoch after epoch.

#include <condition_variable>
#include <exception>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "minnow/core/parallel.hpp"
#include "minnow/core/random.hpp"
#include "minnow/data/sample_keys.hpp"
#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// Some samples and their labels. Made for `for (auto& [x, labels] : loader)`.
struct Batch {
  Tensor<float> x;              ///< [B, C, H, W], or [B, ...] as the data set's samples are
  Tensor<std::int64_t> labels;  ///< [B]
};

struct DataLoaderOptions {
  Index batch_size = 1;
  bool shuffle = false;
  bool drop_last = false;  ///< leave out a last batch that would be smaller than the others
  std::uint64_t seed = 0;  ///< of the order and of the transforms; manual_seed does not reach it
  std::vector<Transform> transforms = {};  ///< applied to every batch, one after the other
  Index prefetch = 0;  ///< how many batches a thread of its own may prepare ahead; 0: no thread
};

namespace detail {

/// The order of an epoch's samples: Fisher-Yates. A function of seed and epoch alone.
inline std::vector<Index> shuffled(Index count, std::uint64_t seed, std::uint32_t epoch) {
  std::vector<Index> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), Index{0});
  const RandomKey key{seed, shuffle_stream, epoch};
  for (Index i = count - 1; i > 0; --i) {
    const auto j =
        random_integer(key, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(i) + 1);
    std::swap(order[static_cast<std::size_t>(i)], order[j]);
  }
  return order;
}

/// What a loader and its running epochs share; never changed.
struct LoaderSource {
  std::variant<Tensor<std::uint8_t>, Tensor<float>> inputs;
  Tensor<std::int64_t> labels;
  DataLoaderOptions options;

  Index samples() const { return labels.size(); }
  Index batches() const {
    const Index size = options.batch_size;
    return samples() / size + (!options.drop_last && samples() % size > 0 ? 1 : 0);
  }

  std::vector<Index> order(std::uint32_t epoch) const {
    if (options.shuffle) return shuffled(samples(), options.seed, epoch);
    std::vector<Index> unchanged(static_cast<std::size_t>(samples()));
    std::iota(unchanged.begin(), unchanged.end(), Index{0});
    return unchanged;
  }

  /// Batch `number` of the epoch: a function of these arguments alone.
  Batch batch(std::uint32_t epoch, std::span<const Index> epoch_order, Index number) const {
    const Index first = number * options.batch_size;
    const Index count = std::min(options.batch_size, samples() - first);
    const auto chosen =
        epoch_order.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    Batch result{std::visit([&](const auto& all) { return gather(all, chosen); }, inputs),
                 Tensor<std::int64_t>(Shape{count})};
    for (Index i = 0; i < count; ++i)
      result.labels[i] = labels[chosen[static_cast<std::size_t>(i)]];
    for (std::uint32_t i = 0; i < options.transforms.size(); ++i) {
      const RandomKey key{options.seed, first_transform_stream + i, epoch};
      options.transforms[i](result.x, SampleKeys{key, chosen});
      check<ShapeError>(result.x.rank() >= 1 && result.x.size(0) == count, "DataLoader: transform ",
                        i, " left a batch of shape ", result.x.shape(), ", expected [", count,
                        ", ...] as before");
    }
    return result;
  }

 private:
  /// The chosen samples as floats; bytes become fractions of 255, and images get their channel.
  template <class U>
  static Tensor<float> gather(const Tensor<U>& all, std::span<const Index> chosen) {
    Shape shape = all.shape();
    if constexpr (std::same_as<U, std::uint8_t>)
      if (shape.rank() == 3) shape = {0, 1, shape[1], shape[2]};
    shape.set(0, std::ssize(chosen));
    Tensor<float> result(shape);
    const Index sample = shape.product(1, shape.rank());
    const U* const from = all.data();
    float* const to = result.data();
    parallel_chunks(std::ssize(chosen), sample, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const U* const in = from + chosen[static_cast<std::size_t>(i)] * sample;
        float* const out = to + i * sample;
        if constexpr (std::same_as<U, std::uint8_t>) {
          MINNOW_SIMD
          for (Index j = 0; j < sample; ++j) out[j] = static_cast<float>(in[j]) / 255.0f;
        } else {
          std::copy_n(in, sample, out);
        }
      }
    });
    return result;
  }
};

/// The batches of one epoch in their order, prepared when asked for or ahead by a thread.
class Epoch {
 public:
  Epoch(std::shared_ptr<const LoaderSource> source, std::uint32_t number)
      : source_(std::move(source)), number_(number), order_(source_->order(number)) {
    if (source_->options.prefetch > 0) thread_ = std::thread([this] { prepare(); });
  }
  Epoch(const Epoch&) = delete;
  Epoch& operator=(const Epoch&) = delete;
  ~Epoch() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    room_.notify_one();
    thread_.join();
  }

  /// The next batch; false at the end. What a transform throws arrives here, and ends the epoch.
  bool next(Batch& batch) {
    batch = {};  // its memory serves for the next one
    const Index position = std::exchange(position_, source_->batches());
    if (position == source_->batches()) return false;
    if (thread_.joinable()) {
      std::unique_lock lock(mutex_);
      arrival_.wait(lock, [this] { return !ready_.empty() || failure_; });
      if (ready_.empty()) std::rethrow_exception(failure_);
      batch = std::move(ready_.front());
      ready_.pop_front();
      lock.unlock();
      room_.notify_one();
    } else {
      batch = source_->batch(number_, order_, position);
    }
    position_ = position + 1;
    return true;
  }

 private:
  void prepare() {
    // The loops of a batch would otherwise start a second team of threads beside the one that
    // trains.
    const SerialScope serial;
    try {
      for (Index i = 0; i < source_->batches(); ++i) {
        {
          std::unique_lock lock(mutex_);
          room_.wait(lock,
                     [this] { return stop_ || std::ssize(ready_) < source_->options.prefetch; });
          if (stop_) return;
        }
        Batch batch = source_->batch(number_, order_, i);
        {
          const std::lock_guard lock(mutex_);
          ready_.push_back(std::move(batch));
        }
        arrival_.notify_one();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
      arrival_.notify_one();
    }
  }

  std::shared_ptr<const LoaderSource> source_;
  std::uint32_t number_;
  std::vector<Index> order_;
  Index position_ = 0;

  std::mutex mutex_;  // guards the three below
  std::list<Batch> ready_;
  std::exception_ptr failure_;
  bool stop_ = false;
  std::condition_variable arrival_, room_;
  std::thread thread_;  // last: it uses all others
};

}  // namespace detail

/// Hands out a data set in batches; every loop over it is one epoch.
///
/// Bytes [N, H, W] or [N, C, H, W] arrive as floats in [0, 1] of shape [B, C, H, W], other samples
/// in their own shape; the transforms of the options then act on the batch in their order. Which
/// samples a batch holds, and what a random transform does to them, depends on the seed and the
/// epoch's number alone: not on threads, not on `prefetch`, and a sample's transforms not on the
/// batch size.
///
/// Epochs count from 0; each loop advances the count, and `set_epoch` resumes it.
///
/// Errors: ShapeError where labels and inputs differ in number; Error for a batch size below 1, a
/// negative prefetch, an empty transform, options that leave no batch, and a transform that changes
/// the number of samples. What a transform throws arrives in the loop, from a thread as well, and
/// ends the epoch.
///
///     data::DataLoader loader(train, {.batch_size = 128, .shuffle = true, .drop_last = true,
///                                     .transforms = {data::RandomAffine({.degrees = 8}),
///                                                    data::Normalize(0.1307, 0.3081)}});
///     for (auto& [x, labels] : loader) { ... }
class DataLoader {
 public:
  /// The running epoch. Moves on like a pointer, once.
  class Iterator {
   public:
    using value_type = Batch;
    using difference_type = Index;

    explicit Iterator(std::unique_ptr<detail::Epoch> epoch) : epoch_(std::move(epoch)) { ++*this; }

    Batch& operator*() const { return *batch_; }
    Batch* operator->() const { return batch_.get(); }
    Iterator& operator++() {
      if (!epoch_->next(*batch_)) epoch_.reset();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& it, std::default_sentinel_t) { return !it.epoch_; }

   private:
    std::unique_ptr<detail::Epoch> epoch_;
    std::unique_ptr<Batch> batch_ = std::make_unique<Batch>();
  };

  /// inputs [N, ...], bytes or floats; labels [N].
  DataLoader(const Tensor<std::uint8_t>& inputs, const Tensor<std::int64_t>& labels,
             DataLoaderOptions options = {})
      : source_(make_source(inputs, labels, std::move(options))) {}
  DataLoader(const Tensor<float>& inputs, const Tensor<std::int64_t>& labels,
             DataLoaderOptions options = {})
      : source_(make_source(inputs, labels, std::move(options))) {}

  /// The images and labels of a data set such as `MNIST`.
  template <class D>
  requires requires(const D& dataset) { dataset.images(), dataset.labels(); }
  explicit DataLoader(const D& dataset, DataLoaderOptions options = {})
      : DataLoader(dataset.images(), dataset.labels(), std::move(options)) {}

  /// Starts the next epoch.
  Iterator begin() { return Iterator(std::make_unique<detail::Epoch>(source_, epoch_++)); }
  std::default_sentinel_t end() const { return {}; }

  /// The number of batches in an epoch, and of samples in the data set.
  Index size() const { return source_->batches(); }
  Index samples() const { return source_->samples(); }
  const DataLoaderOptions& options() const { return source_->options; }

  /// The number of the epoch that the next loop runs.
  Index epoch() const { return epoch_; }
  void set_epoch(Index epoch) {
    check(epoch >= 0 && epoch <= Index{0xFFFFFFFF}, "DataLoader: there is no epoch ", epoch);
    epoch_ = static_cast<std::uint32_t>(epoch);
  }

 private:
  template <class U>
  static std::shared_ptr<const detail::LoaderSource> make_source(const Tensor<U>& inputs,
                                                                 const Tensor<std::int64_t>& labels,
                                                                 DataLoaderOptions options) {
    check<ShapeError>(inputs.rank() >= 1 && labels.rank() == 1 && inputs.size(0) == labels.size(0),
                      "DataLoader: inputs of shape ", inputs.shape(), " and labels of shape ",
                      labels.shape(), "; expected [N, ...] and [N]");
    check(options.batch_size >= 1, "DataLoader: batch_size is ", options.batch_size,
          ", expected at least 1");
    check(options.prefetch >= 0, "DataLoader: prefetch is ", options.prefetch,
          ", expected 0 or the number of batches to prepare ahead");
    check(!options.drop_last || labels.size() >= options.batch_size, "DataLoader: drop_last with ",
          "a batch_size of ", options.batch_size, " leaves nothing of ", labels.size(),
          " samples; make batches smaller or keep the last one");
    for (const Transform& transform : options.transforms)
      check(static_cast<bool>(transform), "DataLoader: one of the transforms is empty");
    auto source = std::make_shared<detail::LoaderSource>();
    source->inputs = inputs;
    source->labels = labels;
    source->options = std::move(options);
    return source;
  }

  std::shared_ptr<const detail::LoaderSource> source_;
  std::uint32_t epoch_ = 0;
};

}  // namespace minnow::inline MINNOW_ABI::data
