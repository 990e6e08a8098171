#pragma once
/// @file
/// Where the example's images come from: a directory, the network, or another data set.

#include <atomic>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "minnow/data/download.hpp"
#include "minnow/data/mnist.hpp"
#include "minnow/train/progress.hpp"
#include "options.hpp"
#include "trainer.hpp"

namespace mnist {

inline void print(const std::string& lines) {
  std::fputs(lines.c_str(), stdout);
  std::fflush(stdout);
}

/// Both splits of a data set.
struct Dataset {
  data::MNIST train, test;

  explicit Dataset(const data::MNISTOptions& options)
      : train(data::Split::train, options), test(data::Split::test, options) {}
  std::string name() const { return data::dataset_name(train.dataset()); }

  Images images(const Options& options) const {
    const Index count = std::min(options.limit.value_or(train.size()), train.size());
    const bool digits = train.dataset() == data::Dataset::mnist;
    return {.train_images = train.images().slice(0, count),
            .test_images = test.images(),
            .train_labels = train.labels().slice(0, count),
            .test_labels = test.labels(),
            .mean = digits ? 0.1307 : 0.2860,
            .deviation = digits ? 0.3081 : 0.3530};
  }
};

/// Downloads show a bar for each file, say which mirror failed and why, and end when `stop` becomes
/// true.
inline data::Downloader downloader(const Options& options, const std::atomic<bool>& stop) {
  // Copied with the functions that share it.
  struct Display {
    train::Terminal terminal = train::Terminal::detect();
    std::string url;
    std::optional<train::ProgressBar> bar;
  };
  const auto display = std::make_shared<Display>();
  constexpr Index kilobyte = 1000;
  data::DownloadOptions result;
  if (!options.mirror.empty()) result.mirrors = {options.mirror};
  result.cancelled = [&stop] { return stop.load(); };
  result.notice = [display](const std::string& line) {
    display->bar.reset();
    std::fputs(text("mnist: ", line, '\n').c_str(), stderr);
  };
  if (options.quiet) return data::Downloader(std::move(result));
  result.progress = [display](const data::DownloadProgress& progress) {
    const auto received = static_cast<Index>(progress.received);
    const auto total = static_cast<Index>(progress.total);
    if (display->url != progress.url) {
      display->url = progress.url;
      display->bar.emplace(display->terminal, display->url.substr(display->url.rfind('/') + 1),
                           total / kilobyte, "KB");
      display->bar->resume_at(received / kilobyte);
    }
    if (display->bar) display->bar->update(received / kilobyte);
    if (received == total) display->bar.reset();
  };
  return data::Downloader(std::move(result));
}

/// The data set that the command line asks for. Where it asks for none and there is no MNIST, here
/// or on the network, Fashion-MNIST takes its place, and the program says so; nothing if there is
/// none either, after saying what can be done.
inline std::optional<Dataset> load(const Options& options, const std::atomic<bool>& stop) {
  const bool fashion = options.dataset == "fashion";
  const data::MNISTOptions wanted{
      .dataset = fashion ? data::Dataset::fashion : data::Dataset::mnist,
      .root = options.data,
      .download = downloader(options, stop)};
  if (!options.dataset.empty() || !options.data.empty()) return Dataset(wanted);
  std::string obstacle;
  try {
    return Dataset(wanted);
  } catch (const data::DatasetNotFound& error) {
    obstacle = error.what();
  }
  try {
    Dataset other({.dataset = data::Dataset::fashion});
    print(text(
        obstacle, "\n\nMNIST is not to be had, so this trains on Fashion-MNIST, found in ",
        other.train.source(),
        ": clothes instead of digits, of the same size and number, but harder. Accuracies are ",
        "some eight points lower. For MNIST, see above.\n\n"));
    return other;
  } catch (const data::DatasetNotFound&) {
    std::fputs(text(obstacle,
                    "\n\nThere is nothing to train on: MNIST is neither on this machine nor to be "
                    "downloaded, and ",
                    "Fashion-MNIST, which would do instead, is not here either. Off-line, copy "
                    "MNIST's four files from ",
                    "another machine and name their directory with --data DIR; on Debian and "
                    "Ubuntu, the package ",
                    "dataset-fashion-mnist holds Fashion-MNIST.\n")
                   .c_str(),
               stderr);
    return {};
  }
}

}  // namespace mnist
