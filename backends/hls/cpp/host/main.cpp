// Runs the kernel on a board through XRT: `moe_host moe_layer.xclbin FOLDER`.
//
// FOLDER holds, as Python writes them with `layer = moec.load("this project")`:
//   weights0.bin, weights1.bin ...  for each port, `layer.memory()[port].tobytes()`
//   rows.bin                        `moec.fixed.packing.pack_rows(layer.project.design, codes).tobytes()`
//   tasks.bin                       int32 numbers, where the router has tasks
// result.bin is written there.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include "config.h"

typedef std::vector<char> bytes_t;

static const size_t WORD_BYTES = PORT_BITS / 8;

// Numbers of the kernel's arguments.
static const int ROWS = 0, TASK_NUMBERS = 1, WEIGHTS = TASKS > 1 ? 2 : 1, RESULT = WEIGHTS + PORTS, COUNT = RESULT + 1;

static bytes_t read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return bytes_t(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

static xrt::bo buffer(xrt::device &device, xrt::kernel &kernel, xrt::run &run, int argument, size_t size) {
  xrt::bo made(device, size, kernel.group_id(argument));
  run.set_arg(argument, made);
  return made;
}

static void send(xrt::bo &to, const char *from, size_t size) {
  to.write(from, size, 0);
  to.sync(XCL_BO_SYNC_BO_TO_DEVICE);
}

static bytes_t layer(const std::string &xclbin, const std::string &folder) {
  const size_t in = INPUT_WORDS * WORD_BYTES, out = OUTPUT_WORDS * WORD_BYTES;
  const bytes_t rows = read_file(folder + "rows.bin");
  const size_t tokens = rows.size() / in;
  if (tokens * in != rows.size()) throw std::runtime_error("rows.bin is not made of rows");
  const bytes_t tasks = TASKS > 1 ? read_file(folder + "tasks.bin") : bytes_t();
  if (TASKS > 1 && tasks.size() != tokens * 4) throw std::runtime_error("tasks.bin has not a number for each row");

  xrt::device device(0);
  xrt::kernel kernel(device, device.load_xclbin(xclbin), "moe_layer");
  xrt::run run(kernel);
  std::vector<xrt::bo> weights;
  for (int port = 0; port < PORTS; port++) {
    const bytes_t words = read_file(folder + "weights" + std::to_string(port) + ".bin");
    if (words.size() != MEMORY_BEATS * WORD_BYTES) throw std::runtime_error("weights are not of this layer");
    weights.push_back(buffer(device, kernel, run, WEIGHTS + port, words.size()));
    send(weights.back(), words.data(), words.size());
  }
  xrt::bo rows_there = buffer(device, kernel, run, ROWS, TOKENS * in);
  xrt::bo result_there = buffer(device, kernel, run, RESULT, TOKENS * out);
  xrt::bo tasks_there;
  if (TASKS > 1) tasks_there = buffer(device, kernel, run, TASK_NUMBERS, TOKENS * 4);

  bytes_t result(tokens * out);
  for (size_t first = 0; first < tokens; first += TOKENS) {
    const size_t count = tokens - first < size_t(TOKENS) ? tokens - first : TOKENS;
    send(rows_there, rows.data() + first * in, count * in);
    if (TASKS > 1) send(tasks_there, tasks.data() + first * 4, count * 4);
    run.set_arg(COUNT, int(count));
    run.start();
    run.wait();
    result_there.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
    result_there.read(result.data() + first * out, count * out, 0);
  }
  return result;
}

int main(int count, char **values) {
  if (count != 3) {
    std::fprintf(stderr, "usage: %s moe_layer.xclbin FOLDER\n", values[0]);
    return 2;
  }
  const std::string folder = std::string(values[2]) + "/";
  try {
    const bytes_t result = layer(values[1], folder);
    std::ofstream file(folder + "result.bin", std::ios::binary);
    if (!file.write(result.data(), result.size())) throw std::runtime_error("cannot write result.bin");
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
