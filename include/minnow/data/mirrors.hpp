#pragma once
/// @file
/// Where data sets are published.

#include <cctype>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "minnow/data/paths.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// Where a data set is published: addresses of folders.
inline std::vector<std::string> dataset_mirrors(Dataset dataset) {
  switch (dataset) {
    case Dataset::fashion:
      return {
          "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
          "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
          "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"};
    case Dataset::kmnist:
      return {"https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
              "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"};
    default:
      return {"https://ossci-datasets.s3.amazonaws.com/mnist/",
              "https://storage.googleapis.com/cvdf-datasets/mnist/"};
  }
}

namespace detail {

/// The address of a mirror: of a folder of this machine, if it is none.
inline std::string mirror_url(const std::string& mirror) {
  if (mirror.find("://") != std::string::npos) return mirror;
  std::string url = "file://";
  for (const char c : std::filesystem::absolute(mirror).generic_string()) {
    const auto byte = static_cast<unsigned char>(c);
    constexpr std::string_view digits = "0123456789ABCDEF", plain = "/-_.~";
    if ((byte < 128 && std::isalnum(byte)) || plain.find(c) != std::string_view::npos)
      url += c;
    else
      (url += '%').append({digits[byte / 16], digits[byte % 16]});
  }
  return url;
}

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::data
