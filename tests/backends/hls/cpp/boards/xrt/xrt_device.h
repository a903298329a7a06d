#include "xrt_bo.h"
