#pragma once
/// @file
/// A training that goes on later: several states in one safetensors file.

#include <map>
#include <string>

#include "minnow/io/safetensors.hpp"

namespace minnow::inline MINNOW_ABI::io {

/// States by what they are of. In the file, an entry's name is the two joined by a dot:
/// "net.0.weight".
using Checkpoint = std::map<std::string, StateDict>;

/// Writes a checkpoint. The file appears under its name when it is complete, so that an
/// interruption leaves the one before.
///
///     io::save_checkpoint("run.safetensors", {{"net", net.state_dict()},
///                                             {"optimizer", optimizer.state_dict()},
///                                             {"scheduler", scheduler.state_dict()},
///                                             {"random", state_dict(default_generator())}},
///                         {{"epoch", "12"}});
///
/// Errors: as `save_safetensors`; Error for a name that is empty or holds a dot.
inline void save_checkpoint(const std::string& path, const Checkpoint& checkpoint,
                            const Metadata& metadata = {}) {
  StateDict all;
  for (const auto& [name, state] : checkpoint) {
    check(!name.empty() && name.find('.') == std::string::npos, path, ": '", name,
          "' is no name for a part of a checkpoint: it must not be empty or contain a dot");
    for (const auto& [key, tensor] : state) all.emplace(text(name, '.', key), tensor);
  }
  save_safetensors(path, all, metadata);
}

/// Reads a checkpoint. A state without an entry is not in the file, nor in what is read.
///
///     io::Checkpoint run = io::load_checkpoint("run.safetensors");
///     net.load_state_dict(run["net"]);
///     optimizer.load_state_dict(run["optimizer"]);
///     scheduler.load_state_dict(run["scheduler"]);
///     load_state_dict(default_generator(), run["random"]);
///
/// Errors: as `load_safetensors`; DataError for a name without a dot, as a file of one state may
/// have.
inline Checkpoint load_checkpoint(const std::string& path) {
  Checkpoint checkpoint;
  for (const auto& [key, tensor] : load_safetensors(path)) {
    const std::size_t dot = key.find('.');
    check<DataError>(dot != std::string::npos, path, ": ", key,
                     " belongs to no part of a checkpoint; load_safetensors reads a single state");
    checkpoint[key.substr(0, dot)].emplace(key.substr(dot + 1), tensor);
  }
  return checkpoint;
}

}  // namespace minnow::inline MINNOW_ABI::io
