#include <cstdio>
#include <minnow/data/download.hpp>

int main() {
  try {
    minnow::data::download_file("never-written", {}, 0, 0);
  } catch (const minnow::DataError& error) {
    std::puts(error.what());
    return 0;
  }
  return 1;
}
