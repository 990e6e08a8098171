#pragma once
/// @file
/// `MNIST`, and by the same class Fashion-MNIST and KMNIST: found on the machine, or fetched.

#include <functional>
#include <string>
#include <utility>

#include "minnow/core/format.hpp"
#include "minnow/data/idx.hpp"
#include "minnow/data/paths.hpp"
#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// The data set is in none of the places where it is looked for.
class DatasetNotFound : public DataError {
 public:
  using DataError::DataError;
};

struct MNISTOptions {
  Dataset dataset = Dataset::mnist;
  /// Where the files are: here, or in raw, MNIST/raw or mnist below. This directory is used or
  /// refused, no other source takes its place. Empty: the places of `search_directories`.
  std::string root = "";
  /// Gets the files of a data set into a directory when they are found nowhere; `Downloader` of
  /// minnow/data/download.hpp does. Null: no attempt.
  std::function<void(Dataset, const std::string& directory)> download = nullptr;
};

/// A split of MNIST (Fashion-MNIST, KMNIST) in memory.
///
/// The content is compared with what was published. Other content is used where it has the same
/// form, and told by `canonical`; but files of another data set or split are not: all have the same
/// names, and one taken for another would only show in the results.
///
/// Errors: DataError where a directory or file that was found is not what it should be;
/// DatasetNotFound, with every place that was tried, where there is none.
///
///     data::MNIST train(data::Split::train, {.download = data::Downloader()});
///     data::DataLoader loader(train, {.batch_size = 128, .shuffle = true});
class MNIST {
 public:
  explicit MNIST(Split split, const MNISTOptions& options = {})
      : dataset_(options.dataset), split_(split) {
    const bool given = !options.root.empty();
    std::string tried;
    for (const std::string& directory :
         given ? directories_below(options.root, dataset_) : search_directories(dataset_)) {
      const std::string obstacle = load(directory);
      if (obstacle.empty()) return;
      tried += text("\n  ", directory, ": ", obstacle);
    }
    check<DataError>(
        !given, dataset_name(dataset_), ": not in ", options.root, tried, "\n", instructions(),
        "\nA directory that is given is never replaced by another source; without one, ",
        "minnow looks for the data where it usually lies.");
    std::string failure = ": not found";
    if (options.download && cache_directory().empty()) {
      failure += ", and there is no place for a download: set HOME or XDG_CACHE_HOME";
    } else if (options.download) {
      const std::string directory = text(cache_directory(), '/', dataset_folder(dataset_));
      try {
        options.download(dataset_, directory);
        const std::string obstacle = load(directory);
        check<DataError>(obstacle.empty(), directory, ": ", obstacle);
        return;
      } catch (const DataError& error) {
        failure += text(", and not to be downloaded. ", error.what());
      }
    }
    throw DatasetNotFound(
        text(dataset_name(dataset_), failure, "\nTried:", tried, "\n", instructions()));
  }

  /// [N, 28, 28], 0 is the background.
  const Tensor<std::uint8_t>& images() const { return images_; }
  /// [N], each in 0 to 9.
  const Tensor<std::int64_t>& labels() const { return labels_; }
  Index size() const { return labels_.size(); }

  Dataset dataset() const { return dataset_; }
  Split split() const { return split_; }
  /// The directory that the files were read from.
  const std::string& source() const { return source_; }
  /// True if the content is the one published, by its checksums. Never for KMNIST: minnow does not
  /// know them.
  bool canonical() const { return canonical_; }
  /// "MNIST, 60,000 training images from data/MNIST/raw", and a remark if they are not canonical.
  std::string str() const {
    return text(dataset_name(dataset_), ", ", thousands(size()),
                split_ == Split::train ? " training" : " test", " images from ", source_,
                canonical_ ? ""
                : dataset_ == Dataset::kmnist
                    ? " (not verified: minnow knows no checksums of KMNIST)"
                    : " (not the published ones: their checksums differ)");
  }

 private:
  /// Reads the split from `directory`. Returns what is in the way, "" for nothing.
  std::string load(const std::string& directory) {
    const DatasetFile& images_file = dataset_file(dataset_, split_, false);
    const DatasetFile& labels_file = dataset_file(dataset_, split_, true);
    const std::string images_path = find_file(directory, images_file.name());
    const std::string labels_path = find_file(directory, labels_file.name());
    if (images_path.empty() && labels_path.empty()) {
      const Split other = split_ == Split::train ? Split::test : Split::train;
      if (find_file(directory, dataset_file(dataset_, other, false).name()).empty())
        return "no such files";
      return text("has no ", images_file.name(), " and no ", labels_file.name());
    }
    if (images_path.empty()) return text("has no ", images_file.name());
    if (labels_path.empty()) return text("has no ", labels_file.name());

    canonical_ = true;
    std::string obstacle;
    const Tensor<std::uint8_t> labels = read(labels_path, labels_file, obstacle);
    if (!obstacle.empty()) return obstacle;
    const Tensor<std::uint8_t> images = read(images_path, images_file, obstacle);
    if (!obstacle.empty()) return obstacle;

    check<DataError>(images.rank() == 3 && images.size(1) == 28 && images.size(2) == 28,
                     images_path, ": images of shape ", images.shape(), ", expected [N, 28, 28]");
    check<DataError>(labels.rank() == 1, labels_path, ": labels of shape ", labels.shape(),
                     ", expected [N]");
    check<DataError>(images.size(0) == labels.size(0), directory, ": ", images.size(0),
                     " images in ", images_path, ", but ", labels.size(0), " labels in ",
                     labels_path, "; they do not belong together");
    check<DataError>(labels.size(0) > 0, labels_path, ": holds no labels");
    for (Index i = 0; i < labels.size(); ++i)
      check<DataError>(labels[i] <= 9, labels_path, ": label ", labels[i], " at position ", i,
                       ", labels are 0 to 9");
    images_ = images;
    labels_ = labels.to<std::int64_t>();
    source_ = directory;
    return "";
  }

  /// Reads one file; `obstacle` tells if it is the published file of another data set or split.
  Tensor<std::uint8_t> read(const std::string& path, const DatasetFile& expected,
                            std::string& obstacle) {
    GzipReader reader(path);
    Tensor<std::uint8_t> result = detail::read_idx<std::uint8_t>(reader);
    const DatasetFile* const found = identify(reader.position(), reader.crc());
    if (found && found != &expected)
      obstacle = text(path.substr(path.rfind('/') + 1), " holds ", *found, ", not ", expected);
    canonical_ = canonical_ && found == &expected;
    return result;
  }

  std::string instructions() const {
    std::string out =
        text("Put ", dataset_name(dataset_),
             "'s four files there, or into the directory that "
             "MINNOW_DATA_DIR names (a dot before idx, and .gz at the end, are fine):");
    for (const Split split : {Split::train, Split::test})
      for (const bool labels : {false, true})
        out += text("\n  ", dataset_file(dataset_, split, labels).name());
    return out;
  }

  Dataset dataset_;
  Split split_;
  Tensor<std::uint8_t> images_;
  Tensor<std::int64_t> labels_;
  std::string source_;
  bool canonical_ = false;
};

}  // namespace minnow::inline MINNOW_ABI::data
