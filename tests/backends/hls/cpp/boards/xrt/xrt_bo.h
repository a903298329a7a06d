// A board that is none: what the host program uses of XRT, over the kernel in C++.  Memory of the board and of the host
// are two, and nothing goes from one to the other but by `sync`.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "config.h"

extern "C" int moec_csim(const void *, const int32_t *, const void *const *, void *, int32_t);

enum xclBOSyncDirection { XCL_BO_SYNC_BO_TO_DEVICE, XCL_BO_SYNC_BO_FROM_DEVICE };

namespace xrt {

struct uuid {};

struct device {
  explicit device(unsigned) {}
  uuid load_xclbin(const std::string &path) {
    if (path != "moe_layer.xclbin") throw std::runtime_error("no such xclbin");
    return uuid();
  }
};

struct kernel {
  kernel(device &, const uuid &, const std::string &name) {
    if (name != "moe_layer") throw std::runtime_error("no such kernel");
  }
  int group_id(int) { return 0; }
};

struct bo {
  std::shared_ptr<std::vector<char>> here, there;
  bo() {}
  bo(device &, size_t size, int) : here(new std::vector<char>(size)), there(new std::vector<char>(size, 85)) {}
  void write(const void *from, size_t size, size_t offset) { std::memcpy(&here->at(0) + within(size, offset), from, size); }
  void read(void *to, size_t size, size_t offset) { std::memcpy(to, &here->at(0) + within(size, offset), size); }
  void sync(xclBOSyncDirection way) { *(way == XCL_BO_SYNC_BO_TO_DEVICE ? there : here) = way == XCL_BO_SYNC_BO_TO_DEVICE ? *here : *there; }
  size_t within(size_t size, size_t offset) const {
    if (offset + size > here->size()) throw std::runtime_error("outside of a buffer");
    return offset;
  }
};

struct run {
  std::map<int, bo> buffers;
  std::map<int, int> numbers;
  explicit run(kernel &) {}
  void set_arg(int index, const bo &buffer) { buffers[index] = buffer; }
  void set_arg(int index, int number) { numbers[index] = number; }
  void start() {
    const int first = TASKS > 1 ? 2 : 1;
    const void *weights[PORTS];
    for (int port = 0; port < PORTS; port++) weights[port] = buffers.at(first + port).there->data();
    const int32_t *tasks = TASKS > 1 ? reinterpret_cast<const int32_t *>(buffers.at(1).there->data()) : nullptr;
    if (moec_csim(buffers.at(0).there->data(), tasks, weights, buffers.at(first + PORTS).there->data(),
                  numbers.at(first + PORTS + 1)))
      throw std::runtime_error("the kernel refused");
  }
  void wait() {}
};

}  // namespace xrt
