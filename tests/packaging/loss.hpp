#pragma once
#include <minnow/minnow.hpp>

minnow::Variable<float> loss(minnow::nn::Linear<float>& layer, const minnow::Tensor<float>& x);
