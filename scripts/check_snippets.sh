#!/bin/sh
# Every C++ snippet in the documentation must be compiled somewhere: a ```cpp block stands below a line
# `<!-- from path -->` and is found in that file, line by line; below `<!-- all of path -->` it is the whole file.
#
#   scripts/check_snippets.sh [root]       check README.md, CONTRIBUTING.md and docs/ (default root: the tree of this script)
#   scripts/check_snippets.sh --self-test  check that the check itself finds what is wrong
set -eu

check() {
  root=$1
  pages=$(cd "$root" && find README.md CONTRIBUTING.md docs -name '*.md' 2>/dev/null | LC_ALL=C sort)
  [ -n "$pages" ] || { echo "check_snippets: no pages in $root" >&2; exit 2; }
  # Our file names hold no spaces: words are files.
  # shellcheck disable=SC2086
  (cd "$root" && awk "$rules" $pages)
}

# shellcheck disable=SC2016  # the $ below are awk's
rules='
function wrong(line, what) { print FILENAME ":" line ": " what; mistakes++ }

function contents(path,   text, line) {
  text = "\n"
  while ((getline line < path) > 0) text = text line "\n"
  close(path)
  return text
}

FNR == 1 { inside = 0; source = ""; whole = 0 }

inside && /^```/ {
  inside = 0
  text = contents(source)
  if (text == "\n") wrong(start, "there is no file " source)
  else if (!index(text, "\n" block)) wrong(start, "this snippet is not in " source " (any more)")
  else if (whole && text != "\n" block) wrong(start, "this snippet is not all of " source)
  source = ""
  next
}
inside { block = block $0 "\n"; next }

/^<!-- (from|all of) [^ ]+ -->$/ { source = $(NF - 1); whole = NF == 5; next }
/^```cpp/ {
  snippets++
  start = FNR
  if (source == "") wrong(FNR, "a C++ snippet needs a line <!-- from path --> above it, and that file must be compiled")
  else { inside = 1; block = "" }
  next
}
!/^[ \t]*$/ { source = "" }

END {
  if (mistakes) { print "check_snippets: " mistakes " mistake(s)"; exit 1 }
  print "check_snippets: " snippets + 0 " snippets are as compiled"
}
'

self_test() {
  tree=$(mktemp -d)
  trap 'rm -rf "$tree"' EXIT
  mkdir -p "$tree/docs/more" "$tree/examples"
  printf 'int a;\nint b;\nint bc;\n' >"$tree/examples/x.cpp"
  {
    printf '<!-- from examples/x.cpp -->\n```cpp\nint b;\nint bc;\n```\n'
    printf '```sh\nls\n```\n\n<!-- from examples/x.cpp -->\n\n```cpp\nint a;\n```\n'
  } >"$tree/README.md"
  check "$tree" >/dev/null || { echo "self-test: good pages were refused" >&2; check "$tree"; exit 1; }

  {
    printf '```cpp\nint a;\n```\n'
    printf '<!-- from examples/x.cpp -->\n```cpp\nint c;\n```\n'
    printf '<!-- from examples/x.cpp -->\n```cpp\nint b;\nint b;\n```\n'
    printf '<!-- from examples/y.cpp -->\n```cpp\nint a;\n```\n'
    printf '<!-- from examples/x.cpp -->\nText.\n```cpp\nint a;\n```\n'
    printf '<!-- from examples/x.cpp -->\n```cpp\nnt a;\n```\n'
    printf '<!-- all of examples/x.cpp -->\n```cpp\nint a;\nint b;\n```\n'
  } >"$tree/docs/more/bad.md"
  expected='1 5 9 14 19 23 27 '
  if found=$(check "$tree"); then echo "self-test: bad pages were accepted" >&2; exit 1; fi
  places=$(echo "$found" | sed -n 's|^docs/more/bad\.md:\([0-9]*\): .*|\1|p' | tr '\n' ' ')
  if [ "$places" != "$expected" ]; then
    printf 'self-test: expected mistakes at lines\n  %s\nfound\n%s\n' "$expected" "$found" >&2
    exit 1
  fi
  echo "check_snippets: the self-test's mistakes were all found"
}

case ${1:-} in
  --self-test) self_test ;;
  *)
    root=${1:-$(dirname "$0")/..}
    check "$root"
    grep -q "<!-- all of examples/quickstart.cpp -->" "$root/README.md" ||
      { echo "check_snippets: README.md does not show examples/quickstart.cpp" >&2; exit 1; }
    [ "$(wc -l <"$root/examples/quickstart.cpp")" -le 40 ] ||
      { echo "check_snippets: examples/quickstart.cpp has more than 40 lines" >&2; exit 1; }
    ;;
esac
