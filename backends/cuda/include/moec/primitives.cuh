// Everything that generated kernels use of a GPU.  There are two implementations with the same names: PTX, and threads
// of a simulator on the CPU (sim/, built with a C++20 compiler).  What each primitive promises is said in ptx/.
#pragma once
#include "moec/types.cuh"
#ifdef __CUDACC__
#include "moec/ptx/kernel.cuh"
#include "moec/ptx/numbers.cuh"
#include "moec/ptx/warp.cuh"
#include "moec/ptx/barriers.cuh"
#include "moec/ptx/copies.cuh"
#include "moec/ptx/mma.cuh"
#include "moec/ptx/wgmma.cuh"
#else
#include "moec/sim/kernel.cuh"
#include "moec/sim/numbers.cuh"
#include "moec/sim/warp.cuh"
#include "moec/sim/barriers.cuh"
#include "moec/sim/copies.cuh"
#include "moec/sim/mma.cuh"
#include "moec/sim/wgmma.cuh"
#endif
#include "moec/swizzle.cuh"
