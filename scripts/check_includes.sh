#!/bin/sh
# Who may include whom: checks the headers below <root>/include/minnow, and prints each breach as file:line: rule.
#
#   scripts/check_includes.sh [root]       check a tree (default: the one this script lies in)
#   scripts/check_includes.sh --self-test  check that the check itself finds breaches
set -eu

# The library's headers under root $1, one a line.
headers() {
  (cd "$1" && find include/minnow -name '*.hpp' | LC_ALL=C sort)
}

check() {
  list=$(headers "$1") || exit 2
  [ -n "$list" ] || { echo "check_includes: no headers in $1/include/minnow" >&2; exit 2; }
  # Our file names hold no spaces: words are files.
  # shellcheck disable=SC2086
  (cd "$1" && awk "$rules" $list)
}

# shellcheck disable=SC2016  # the $ below are awk's
rules='
BEGIN {
  # A layer may include these layers.
  allowed["version"]  = ""
  allowed["core"]     = "version core"
  allowed["kernels"]  = "core kernels"
  allowed["tensor"]   = "core"
  allowed["autograd"] = "core tensor"
  allowed["state"]    = "core tensor"
  allowed["ops"]      = "core tensor autograd kernels ops"
  allowed["nn"]       = "core tensor autograd state kernels ops nn"
  allowed["optim"]    = "core tensor autograd state kernels optim"
  allowed["data"]     = "core tensor data"
  allowed["io"]       = "core tensor state io"
  allowed["train"]    = "core tensor autograd state ops nn optim data train"
  allowed["testing"]  = "core tensor autograd ops testing"
  allowed["minnow"]   = "version core kernels tensor autograd state ops nn optim data io train testing compiled"
  allowed["compiled"] = "minnow"

  # One door for each dependency: a pattern of its includes, and the headers that may hold them.
  door("^(Eigen|unsupported)/",    "core/simd.hpp",                     "Eigen")
  door("^omp\\.h$",                "core/parallel.hpp",                  "OpenMP")
  door("^z(lib|conf)\\.h$",        "data/gzip.hpp",                      "zlib")
  door("^nlohmann/",               "io/safetensors.hpp train/history.hpp", "JSON")
  door("^curl/",                   "data/download.hpp",                  "libcurl")
  door("^(CLI|doctest)/|^doctest\\.h$", "",                              "CLI11 or doctest")
}

function door(pattern, headers, name) { doors++; door_of[doors] = pattern; door_in[doors] = headers; door_name[doors] = name }
function has(list, word) { return index(" " list " ", " " word " ") > 0 }
function breach(rule) { print FILENAME ":" FNR ": " rule; breaches++ }

# core/simd.hpp -> core, tensor.hpp -> tensor
function layer_of(header) { sub(/\/.*/, "", header); sub(/\.hpp$/, "", header); return header }

FNR == 1 {
  header = FILENAME; sub(/^include\/minnow\//, "", header)
  layer = layer_of(header)
  in_comment = 0
  if (!(layer in allowed)) breach("\"" layer "\" is no layer of the library; give it a row in scripts/check_includes.sh")
}

# Comments may show includes: skip blocks; a line that starts with // matches nothing below.
/^[ \t]*\/\*/ { in_comment = 1 }
in_comment { if (/\*\//) in_comment = 0; next }

/^[ \t]*#[ \t]*include[ \t]*["<]/ {
  quoted = /include[ \t]*"/
  target = $0; sub(/^[^"<]*["<]/, "", target); sub(/[">].*/, "", target)
  if (target ~ /^minnow\//) ours(substr(target, 8))
  else if (quoted) breach("\"" target "\": our own headers are included as \"minnow/...\", all others as <...>")
  else theirs(target)
}

/#[ \t]*pragma[ \t]+omp|_Pragma[ \t]*\([ \t]*"omp/ {
  simd = /omp[ \t]+(declare[ \t]+)?simd/
  if (simd && layer != "core" && layer != "kernels") breach("`omp simd` belongs into core and kernels")
  if (!simd && header != "core/parallel.hpp") breach("OpenMP has one door: core/parallel.hpp")
}

function ours(target,   to) {
  to = layer_of(target)
  if (to == "minnow" && layer != "compiled") breach("the library never includes minnow.hpp")
  else if (target == "data/download.hpp") breach("data/download.hpp needs libcurl, so no other header includes it")
  else if (!has(allowed[layer], to))
    breach(layer " must not include " target "; it may include: " (allowed[layer] == "" ? "nothing of ours" : allowed[layer]))
}

function theirs(target,   i) {
  for (i = 1; i <= doors; i++)
    if (target ~ door_of[i] && !has(door_in[i], header))
      breach(door_name[i] (door_in[i] == "" ? " is for tests and examples only" : " has one door: " door_in[i]) ", not <" target "> here")
  if (target ~ /^(iostream|regex|format)$/ && layer != "train")
    breach("<" target "> is dear to compile, and kept to train/ and the examples")
}

END {
  if (breaches) { print "check_includes: " breaches " breach(es)"; exit 1 }
  print "check_includes: " ARGC - 1 " headers keep the rules"
}
'

# Write stdin to header $1 of the tree in $tree.
put() {
  mkdir -p "$tree/include/minnow/$(dirname "$1")"
  cat >"$tree/include/minnow/$1"
}

# A tree that keeps all rules must pass; then one that breaks each must fail at just the expected places.
self_test() {
  tree=$(mktemp -d)
  trap 'rm -rf "$tree"' EXIT

  echo '#include "minnow/version.hpp"' | put core/config.hpp
  echo '#include <Eigen/Core>' | put core/simd.hpp
  printf '%s\n' '#include <omp.h>' '#pragma omp parallel for' | put core/parallel.hpp
  printf '%s\n' '#include "minnow/core/simd.hpp"' '  #pragma omp simd' '// #include <omp.h>' | put kernels/relu.hpp
  printf '%s\n' '/* #include "minnow/nn/module.hpp"' '#include <regex>' '*/' | put tensor.hpp
  echo '#include <minnow/state.hpp>' | put io/checkpoint.hpp
  echo '#include <iostream>' | put train/progress.hpp
  check "$tree" >/dev/null || { echo "self-test: a good tree was refused" >&2; check "$tree"; exit 1; }

  printf '%s\n' '#include "minnow/core/config.hpp"' '#include "minnow/tensor.hpp"' | put kernels/bad.hpp
  printf '%s\n' '#include <minnow/nn/linear.hpp>' '# include <zlib.h>' '#include "minnow/nn/module.hpp"' | put io/bad.hpp
  printf '%s\n' '#pragma omp simd' '#pragma omp parallel' '#include <omp.h>' '#include <Eigen/Dense>' | put nn/bad.hpp
  printf '%s\n' '#include "../core/config.hpp"' '#include <iostream>' '#include "minnow/minnow.hpp"' | put ops/bad.hpp
  printf '%s\n' '#include <format>' '#include <curl/curl.h>' '#include "minnow/data/download.hpp"' | put data/bad.hpp
  printf '%s\n' '#include "minnow/nn/module.hpp"' '#include <nlohmann/json.hpp>' | put optim/bad.hpp
  printf '%s\n' '#include "minnow/kernels/relu.hpp"' '#include <regex>  // why' | put testing/bad.hpp
  echo '#include "minnow/autograd.hpp"' | put tensor.hpp
  echo '#include <vector>' | put extra/bad.hpp

  expected='data/bad:1 data/bad:2 data/bad:3 extra/bad:1 io/bad:1 io/bad:2 io/bad:3 kernels/bad:2 nn/bad:1 nn/bad:2 nn/bad:3 nn/bad:4 '
  expected=$expected'ops/bad:1 ops/bad:2 ops/bad:3 optim/bad:1 optim/bad:2 tensor:1 testing/bad:1 testing/bad:2 '
  if found=$(check "$tree"); then echo "self-test: a bad tree was accepted" >&2; exit 1; fi
  places=$(echo "$found" | sed -n 's|^include/minnow/\(.*\)\.hpp:\([0-9]*\): .*|\1:\2|p' | tr '\n' ' ')
  if [ "$places" != "$expected" ]; then
    printf 'self-test: expected breaches at\n  %s\nfound\n%s\n' "$expected" "$found" >&2
    exit 1
  fi
  echo "check_includes: the self-test's breaches were all found"
}

case ${1:-} in
  --self-test) self_test ;;
  *) check "${1:-$(dirname "$0")/..}" ;;
esac
