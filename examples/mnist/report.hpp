#pragma once
/// @file
/// What the numbers say: the table that compares the norms, and a sentence on each.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "minnow/core/error.hpp"
#include "minnow/core/format.hpp"
#include "minnow/train/history.hpp"

namespace mnist {

using namespace minnow;
using train::EpochRecord;
using train::RunRecord;

/// "1 epoch", "15 epochs"
inline std::string counted(Index count, std::string_view what) {
  return text(thousands(count), ' ', what, count == 1 ? "" : "s");
}

/// The standard error, in points, of an accuracy in percent that was measured on so many images.
inline double sampling_error(double percent, Index images) {
  const double p = std::clamp(percent / 100, 0.0, 1.0);
  // Even a network without a miss may miss the next image.
  return 100 * std::sqrt(std::max(p * (1 - p), 0.5 / static_cast<double>(images)) /
                         static_cast<double>(images));
}

/// What is read off a run's epochs. Needs at least one epoch.
class Findings {
 public:
  Findings(const RunRecord& run, Index train_images, Index test_images) : run_(run) {
    const EpochRecord& last = run.epochs.back();
    error_ = sampling_error(last.test_accuracy, test_images);
    gap_error_ = std::hypot(error_, sampling_error(last.train_accuracy, train_images));
  }

  const RunRecord& run() const { return run_; }
  const EpochRecord& last() const { return run_.epochs.back(); }
  Index best_epoch() const {
    const auto best = std::ranges::max_element(run_.epochs, {}, &EpochRecord::test_accuracy);
    return best - run_.epochs.begin() + 1;
  }
  double best() const {
    return run_.epochs[static_cast<std::size_t>(best_epoch() - 1)].test_accuracy;
  }

  double error() const { return error_; }
  double gap() const { return last().train_accuracy - last().test_accuracy; }
  bool overfits() const { return gap() > 3 * gap_error_; }
  bool test_is_easier() const { return gap() < -3 * gap_error_; }

  /// The first epoch, from 1, at whose end a loss was no finite number; 0 if there is none.
  Index diverged() const {
    const auto finite = [](const EpochRecord& epoch) {
      return std::isfinite(epoch.train_loss) && std::isfinite(epoch.test_loss);
    };
    const auto found = std::ranges::find_if_not(run_.epochs, finite);
    return found == run_.epochs.end() ? 0 : found - run_.epochs.begin() + 1;
  }

  double median_seconds() const {
    std::vector<double> seconds;
    for (const EpochRecord& epoch : run_.epochs) seconds.push_back(epoch.seconds);
    std::ranges::sort(seconds);
    const std::size_t middle = seconds.size() / 2;
    return seconds.size() % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
  }

  /// How many epochs each end of `trend` is the mean of; 0 if there are too few for a trend.
  Index trend_epochs() const { return std::min<Index>(3, std::ssize(run_.epochs) / 2); }
  /// By how many points the test accuracy rose: the mean of the last epochs less that of as many
  /// before.
  double trend() const {
    const auto count = static_cast<std::size_t>(trend_epochs());
    double sum = 0;
    for (std::size_t i = 1; i <= count; ++i)
      sum += run_.epochs[run_.epochs.size() - i].test_accuracy -
             run_.epochs[run_.epochs.size() - i - count].test_accuracy;
    return count > 0 ? sum / static_cast<double>(count) : 0;
  }
  /// Whether the learning rate fell over these epochs, which by itself makes accuracy rise.
  bool rate_fell() const {
    const auto before = static_cast<std::size_t>(trend_epochs()) + 1;
    return last().lr < run_.epochs[run_.epochs.size() - before].lr;
  }

 private:
  const RunRecord& run_;
  double error_, gap_error_;
};

/// One row for each run that finished an epoch, or part of one.
inline std::string comparison_table(const std::vector<RunRecord>& runs, Index train_images,
                                    Index test_images) {
  std::string out =
      "norm    parameters   train %   test %    best %  (epoch)       gap   s/epoch\n"
      "----------------------------------------------------------------------------\n";
  for (const RunRecord& run : runs) {
    if (run.epochs.empty()) continue;
    const Findings found(run, train_images, test_images);
    const double gap = found.gap();
    out += text(align_left(run.name, 8), align_right(thousands(run.parameters), 10),
                align_right(fixed(found.last().train_accuracy, 2), 10),
                align_right(fixed(found.last().test_accuracy, 2), 9),
                align_right(fixed(found.best(), 2), 10),
                align_right(text('(', found.best_epoch(), ')'), 9),
                align_right(text(gap >= 0 ? "+" : "", fixed(gap, 2)), 10),
                align_right(fixed(found.median_seconds(), 1), 10), '\n');
  }
  return out +
         "train and test: after the last epoch; train is the accuracy of its training passes, so "
         "with\n"
         "dropout and augmentation. gap: train - test. s/epoch: median of the training passes.\n";
}

namespace detail {

inline std::string points(double difference) { return fixed(std::abs(difference), 2) + " points"; }

inline std::string fitting(const Findings& found, bool regularised) {
  if (!found.last().complete)
    return "an epoch that was not finished does not tell whether it over-fits";
  const std::string gap = points(found.gap());
  if (found.overfits())
    return text("training accuracy is ", gap, " higher: it over-fits",
                regularised ? "" : "; dropout or augmentation would be the remedy");
  const bool weak = found.last().train_accuracy < 98;
  if (found.test_is_easier())
    return text("training accuracy is ", gap, " lower, being an average over the epoch",
                regularised ? " with dropout and augmentation" : "",
                weak ? ": no over-fitting, rather under-fitting" : ": no over-fitting");
  return text("training accuracy differs by ", gap, ", which may be chance: no over-fitting",
              weak ? ", rather under-fitting" : "");
}

inline std::string improving(const Findings& found) {
  const Index epochs = found.trend_epochs();
  if (epochs == 0) return "one epoch shows no trend";
  const std::string change =
      text(found.trend() >= 0 ? "+" : "-", points(found.trend()), " over the last ",
           epochs == 1 ? std::string("epoch") : counted(epochs, "epoch"));
  if (found.trend() > found.error())
    return text("it was still improving (", change,
                found.rate_fell() ? "), as the learning rate fell" : "), so more epochs may help");
  if (found.trend() < -found.error())
    return text("it was getting worse (", change, "), so fewer epochs may do");
  return text("it has levelled off (", change, ")");
}

inline std::string relation(const Findings& found, const std::vector<Findings>& all) {
  const Findings* rival = nullptr;  // the best of the others
  for (const Findings& other : all)
    if (&other.run() != &found.run() && other.diverged() == 0 &&
        (!rival || other.last().test_accuracy > rival->last().test_accuracy))
      rival = &other;
  if (!rival) return "";
  const double lead = found.last().test_accuracy - rival->last().test_accuracy;
  const double error = std::hypot(found.error(), rival->error());
  if (std::abs(lead) < 0.005)
    return text("; the same as ", rival->run().name,
                ", with a standard error of the difference of ", fixed(error, 2));
  const bool clear = std::abs(lead) > 2 * error;
  const std::string by =
      text("; ", points(lead), lead >= 0 ? " above " : " below ", rival->run().name);
  return text(by, clear ? ", more than chance: " : ", within chance: ",
              "the standard error of the difference is ", fixed(error, 2));
}

}  // namespace detail

/// One sentence for each run, drawn from its numbers: how well it does, whether it over- or
/// under-fits, whether more epochs would help, and whether it differs from the others by more than
/// chance.
///
/// `regularised` tells of each run whether dropout or augmentation made its training passes harder.
inline std::vector<std::string> inferences(const std::vector<RunRecord>& runs,
                                           const std::vector<bool>& regularised, Index train_images,
                                           Index test_images) {
  std::vector<Findings> all;
  std::vector<bool> harder;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].epochs.empty()) continue;
    all.emplace_back(runs[i], train_images, test_images);
    harder.push_back(regularised[i]);
  }
  std::vector<std::string> sentences;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Findings& found = all[i];
    const Index epochs = std::ssize(found.run().epochs);
    if (const Index epoch = found.diverged()) {
      sentences.push_back(text(found.run().name, ": diverged in epoch ", epoch,
                               ", where the loss was no finite number; a smaller learning rate is "
                               "the first remedy."));
      continue;
    }
    sentences.push_back(text(found.run().name, ": ", fixed(found.last().test_accuracy, 2),
                             " % of the test images (", "standard error ", fixed(found.error(), 2),
                             ") after ", counted(epochs, "epoch"),
                             found.last().complete ? "" : ", the last interrupted", "; ",
                             detail::fitting(found, harder[i]), "; ", detail::improving(found),
                             detail::relation(found, all), "."));
  }
  return sentences;
}

/// `paragraph` in lines of at most `width` columns, all but the first indented by two.
inline std::string wrapped(std::string_view paragraph, Index width) {
  std::string out;
  Index column = 0;
  while (!paragraph.empty()) {
    const std::size_t end = std::min(paragraph.find(' '), paragraph.size());
    const std::string_view word = paragraph.substr(0, end);
    if (column > 0 && column + 1 + std::ssize(word) > width) {
      out += "\n  ";
      column = 2;
    } else if (column > 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += std::ssize(word);
    paragraph.remove_prefix(std::min(end + 1, paragraph.size()));
  }
  return out + '\n';
}

}  // namespace mnist
