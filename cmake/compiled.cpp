// The one file of a program that holds minnow's compiled templates: see minnow/compiled.hpp.
#define MINNOW_IMPLEMENTATION
#include <minnow/minnow.hpp>
