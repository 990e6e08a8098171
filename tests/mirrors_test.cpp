#include "minnow/data/mirrors.hpp"

#include <doctest/doctest.h>

using namespace minnow;
using data::detail::mirror_url;

TEST_CASE("every data set has at least two mirrors, the first by HTTPS") {
  for (const auto dataset : {data::Dataset::mnist, data::Dataset::fashion, data::Dataset::kmnist}) {
    const std::vector<std::string> mirrors = data::dataset_mirrors(dataset);
    CHECK(mirrors.size() >= 2);
    CHECK(mirrors[0].starts_with("https://"));
    for (const std::string& mirror : mirrors) CHECK(mirror.ends_with("/"));
  }
}

TEST_CASE("a mirror's address stays, a folder becomes one") {
  CHECK(mirror_url("https://example.com/a b") == "https://example.com/a b");
  CHECK(mirror_url("/data/mnist/") == "file:///data/mnist/");
  CHECK(mirror_url("/50 % of süß") == "file:///50%20%25%20of%20s%C3%BC%C3%9F");
  const std::string here = mirror_url("data");
  CHECK(here.starts_with("file:///"));
  CHECK(here.ends_with("/data"));
}
