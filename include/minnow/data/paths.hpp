#pragma once
/// @file
/// Which files make up MNIST and its likes, and the directories where they are looked for.

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "minnow/core/config.hpp"
#include "minnow/core/error.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// Three data sets of 28 x 28 pictures in ten classes: digits, clothes, and cursive Japanese. All
/// consist of four files of the same names.
enum class Dataset { mnist, fashion, kmnist };

enum class Split { train, test };

/// "MNIST", "Fashion-MNIST", "KMNIST"
inline const char* dataset_name(Dataset dataset) {
  return std::array{"MNIST", "Fashion-MNIST", "KMNIST"}[static_cast<std::size_t>(dataset)];
}

/// The folder of a data set where minnow and Debian keep it: "mnist", "fashion-mnist", "kmnist".
inline const char* dataset_folder(Dataset dataset) {
  return std::array{"mnist", "fashion-mnist", "kmnist"}[static_cast<std::size_t>(dataset)];
}

/// One of a data set's four files, as it was published.
struct DatasetFile {
  Dataset dataset;
  Split split;
  bool labels;          ///< else images
  std::uint64_t bytes;  ///< of the decompressed content
  std::uint32_t crc;    ///< CRC-32 of the decompressed content; 0 where minnow does not know it

  /// The name without ".gz".
  std::string name() const {
    return text(split == Split::train ? "train-" : "t10k-",
                labels ? "labels-idx1-ubyte" : "images-idx3-ubyte");
  }
  /// "the training images of MNIST"
  std::string str() const {
    return text("the ", split == Split::train ? "training " : "test ", labels ? "labels" : "images",
                " of ", dataset_name(dataset));
  }
};

/// All files of all data sets.
inline constexpr DatasetFile dataset_files[] = {
    {Dataset::mnist, Split::train, false, 47040016, 0xE9F4D8B3},
    {Dataset::mnist, Split::train, true, 60008, 0xE0CB4AD2},
    {Dataset::mnist, Split::test, false, 7840016, 0x91373BDF},
    {Dataset::mnist, Split::test, true, 10008, 0x4AB9EFF9},
    {Dataset::fashion, Split::train, false, 47040016, 0xB4F29F28},
    {Dataset::fashion, Split::train, true, 60008, 0x741A4657},
    {Dataset::fashion, Split::test, false, 7840016, 0x678FE0B1},
    {Dataset::fashion, Split::test, true, 10008, 0x80142C1F},
    {Dataset::kmnist, Split::train, false, 47040016, 0},
    {Dataset::kmnist, Split::train, true, 60008, 0},
    {Dataset::kmnist, Split::test, false, 7840016, 0},
    {Dataset::kmnist, Split::test, true, 10008, 0},
};

inline const DatasetFile& dataset_file(Dataset dataset, Split split, bool labels) {
  return dataset_files[4 * static_cast<int>(dataset) + 2 * static_cast<int>(split) + int{labels}];
}

/// The published file of this content, or null.
inline const DatasetFile* identify(std::uint64_t bytes, std::uint32_t crc) {
  for (const DatasetFile& file : dataset_files)
    if (file.crc != 0 && file.crc == crc && file.bytes == bytes) return &file;
  return nullptr;
}

namespace detail {

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// A folder is no file. A file that cannot be opened for another reason than its absence is there:
/// reading it tells why.
inline bool exists(const std::string& path) {
  if (std::FILE* file = std::fopen(path.c_str(), "rb")) {
    errno = 0;
    const bool directory = std::fgetc(file) == EOF && errno == EISDIR;
    std::fclose(file);
    return !directory;
  }
  return errno != ENOENT && errno != ENOTDIR;
}

}  // namespace detail

/// Where the user's programs keep what they can get again, "" if the environment does not tell:
/// minnow's folder in $XDG_CACHE_HOME or ~/.cache (macOS: ~/Library/Caches, Windows:
/// %LOCALAPPDATA%).
inline std::string cache_directory() {
#if defined(_WIN32)
  const std::string base = detail::environment("LOCALAPPDATA");
  return base.empty() ? base : base + "/minnow";
#else
  const std::string base = detail::environment("XDG_CACHE_HOME");
  if (base.starts_with('/')) return base + "/minnow";  // the specification forbids relative ones
  const std::string home = detail::environment("HOME");
  if (home.empty()) return "";
#if defined(__APPLE__)
  return home + "/Library/Caches/minnow";
#else
  return home + "/.cache/minnow";
#endif
#endif
}

/// `directory` and the folders below it that may hold the data set: torchvision's and minnow's.
inline std::vector<std::string> directories_below(const std::string& directory, Dataset dataset) {
  constexpr std::array torchvision{"MNIST", "FashionMNIST", "KMNIST"};
  return {directory, text(directory, "/raw"),
          text(directory, '/', torchvision[static_cast<std::size_t>(dataset)], "/raw"),
          text(directory, '/', dataset_folder(dataset))};
}

/// Every directory where the data set is looked for, in this order: $MINNOW_DATA_DIR and ./data
/// with what lies below them, the user's cache directory, the system's folder of data sets.
inline std::vector<std::string> search_directories(Dataset dataset) {
  std::vector<std::string> directories;
  for (const std::string& directory : {detail::environment("MINNOW_DATA_DIR"), std::string("data")})
    if (!directory.empty())
      for (std::string& below : directories_below(directory, dataset))
        directories.push_back(std::move(below));
  if (const std::string cache = cache_directory(); !cache.empty())
    directories.push_back(text(cache, '/', dataset_folder(dataset)));
  for (const char* share : {"/usr/local/share", "/usr/share"})
    directories.push_back(text(share, "/datasets/", dataset_folder(dataset)));
  return directories;
}

/// The path of the file `name` (such as "train-images-idx3-ubyte") in `directory`, spelt with a
/// dash or a dot before "idx", plain or gzip; "" if there is none.
inline std::string find_file(const std::string& directory, const std::string& name) {
  std::string dotted = name;
  if (const std::size_t dash = name.find("-idx"); dash != std::string::npos) dotted[dash] = '.';
  for (const std::string& spelling : {name, dotted})
    for (const char* ending : {"", ".gz"})
      if (std::string path = text(directory, '/', spelling, ending); detail::exists(path))
        return path;
  return "";
}

}  // namespace minnow::inline MINNOW_ABI::data
