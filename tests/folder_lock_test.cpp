#include "minnow/data/folder_lock.hpp"

#include <doctest/doctest.h>

#include <optional>

#include "temporary.hpp"

using minnow::data::detail::FolderLock;
using minnow_test::TemporaryDirectory;

TEST_CASE("a folder is one lock's at a time, until that is gone") {
  const TemporaryDirectory directory, another;
  std::optional<FolderLock> first(directory.path());
  FolderLock second(directory.path()), elsewhere(another.path());
  CHECK(first->try_lock());
  CHECK(first->try_lock());
  CHECK_FALSE(second.try_lock());
  CHECK(elsewhere.try_lock());
  first.reset();
  CHECK(second.try_lock());
}

TEST_CASE("a folder that cannot be opened keeps nobody waiting") {
  const TemporaryDirectory directory;
  FolderLock first(directory / "none"), second(directory / "none");
  CHECK(first.try_lock());
  CHECK(second.try_lock());
}
