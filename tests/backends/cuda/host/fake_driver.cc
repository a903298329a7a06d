// A stand-in for libcuda.so.1: devices whose memory is the host's, and modules that are the simulator's build of a source.
//
// It refuses what the driver refuses: calls before cuInit, without a current context or with one of another device,
// launches of no block or with more shared memory than was asked for.  `fake_*` is how tests set it up and look.
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  CAPTURE_UNSUPPORTED = 900,
  NOT_FOUND = 500,
  LAUNCH_FAILED = 719,
};

struct Context {
  int device;
  int retained;
};

struct Module {
  void* library;
  Context* context;
};

struct Function {
  Module* module;
  std::string name;
  int (*launch)(int, int, unsigned long long, void**);
  int shared_bytes;
};

struct Device {
  int capability;
  int multiprocessors;
};

std::vector<Device> devices;
Context contexts[8] = {{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}};
thread_local std::vector<Context*> current;
bool initialised = false, capturing = false;
std::string failing, last_error = "unspecified launch failure";
int failing_with = 0;
std::atomic<int> launches{0}, loaded{0};
std::string record;

// A fault to plant: behind every launch of `kernel`, one of the first `words` words of what `argument` points to that
// differs from the first becomes like it; where all are equal, the second becomes 0, or 1.0f where they are 0.
struct Fault {
  std::string kernel;
  int argument;
  int words;
  int planted;
} fault;

void plant(void** arguments) {
  unsigned* const words = *(unsigned**)arguments[fault.argument];
  for (int i = 1; i < fault.words; i++)
    if (words[i] != words[0]) {
      words[i] = words[0];
      fault.planted++;
      return;
    }
  words[1] = words[0] ? 0 : 0x3f800000;
  fault.planted++;
}

// Any module's will do: they are builds of one simulator, in which a map is plain data.
int (*encode)(void*, const void*, const long long*, const long long*, const long long*, int, int) = nullptr;

// What may be called while a stream is captured: what it records, and what does nothing on the device.
const char* const CAPTURED[] = {"cuLaunchKernel", "cuMemsetD8Async", "cuCtxGetCurrent", "cuCtxPushCurrent_v2",
                                "cuCtxPopCurrent_v2", "cuTensorMapEncodeTiled"};

int outcome(const char* function) {
  if (failing == function) return failing_with;
  if (!initialised && std::strcmp(function, "cuInit")) return NOT_INITIALIZED;
  if (!capturing) return SUCCESS;
  for (const char* allowed : CAPTURED)
    if (!std::strcmp(function, allowed)) return SUCCESS;
  return CAPTURE_UNSUPPORTED;
}

Context* here() { return current.empty() ? nullptr : current.back(); }

size_t image_bytes(const void* image) {
  const Elf64_Ehdr* header = (const Elf64_Ehdr*)image;
  if (std::memcmp(header->e_ident, ELFMAG, SELFMAG)) return 0;
  return header->e_shoff + (size_t)header->e_shnum * header->e_shentsize;
}

}  // namespace

#define REFUSE(function)                          \
  if (int refused = outcome(#function)) return refused

extern "C" {

// Devices of these capabilities, each with `multiprocessors`; nothing is initialised, no failure is set.
void fake_reset(int count, const int* capabilities, int multiprocessors) {
  devices.clear();
  for (int i = 0; i < count; i++) devices.push_back({capabilities[i], multiprocessors});
  for (Context& context : contexts) context.retained = 0;
  initialised = false;
  failing.clear();
  capturing = false;
  fault = {};
  record.clear();
  launches = 0;
  loaded = 0;
}
void fake_fail(const char* function, int result) {
  failing = function;
  failing_with = result;
}
// Whether a stream is captured.
void fake_capture(int on) { capturing = on; }
void fake_fault(const char* kernel, int argument, int words) { fault = {kernel, argument, words, 0}; }
int fake_planted() { return fault.planted; }
// One line for each memset and launch: what, on which stream, how many blocks.
const char* fake_record() { return record.c_str(); }
int fake_retained(int device) { return contexts[device].retained; }
int fake_loaded() { return loaded; }
int fake_current() { return here() ? here()->device : -1; }
void fake_set_current(int device) {
  current.clear();
  if (device >= 0) current.push_back(&contexts[device]);
}

int cuInit(unsigned) {
  REFUSE(cuInit);
  initialised = true;
  return SUCCESS;
}
int cuDeviceGet(int* device, int ordinal) {
  REFUSE(cuDeviceGet);
  if (ordinal < 0 || ordinal >= (int)devices.size()) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  REFUSE(cuDeviceGetAttribute);
  if (device < 0 || device >= (int)devices.size()) return INVALID_DEVICE;
  const Device& one = devices[device];
  switch (attribute) {
    case 16: *value = one.multiprocessors; return SUCCESS;
    case 75: *value = one.capability / 10; return SUCCESS;
    case 76: *value = one.capability % 10; return SUCCESS;
    default: return INVALID_VALUE;
  }
}
int cuDevicePrimaryCtxRetain(Context** context, int device) {
  REFUSE(cuDevicePrimaryCtxRetain);
  *context = &contexts[device];
  contexts[device].retained++;
  return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  REFUSE(cuDevicePrimaryCtxRelease_v2);
  contexts[device].retained--;
  return SUCCESS;
}
int cuCtxGetCurrent(Context** context) {
  REFUSE(cuCtxGetCurrent);
  *context = here();
  return SUCCESS;
}
int cuCtxPushCurrent_v2(Context* context) {
  REFUSE(cuCtxPushCurrent_v2);
  if (context < contexts || context >= contexts + 8) return INVALID_CONTEXT;
  current.push_back(context);
  return SUCCESS;
}
int cuCtxPopCurrent_v2(Context** context) {
  REFUSE(cuCtxPopCurrent_v2);
  if (current.empty()) return INVALID_CONTEXT;
  *context = current.back();
  current.pop_back();
  return SUCCESS;
}
int cuModuleLoadData(Module** module, const void* image) {
  REFUSE(cuModuleLoadData);
  if (!here()) return INVALID_CONTEXT;
  const size_t bytes = image_bytes(image);
  if (!bytes) return INVALID_IMAGE;
  const int file = memfd_create("module", 0);
  if (write(file, image, bytes) != (ssize_t)bytes) return OUT_OF_MEMORY;
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // `file` stays open: the loader knows it by this path
  if (!library) {
    std::fprintf(stderr, "fake driver: %s\n", dlerror());
    return INVALID_IMAGE;
  }
  loaded++;
  if (void* found = dlsym(library, "moec_sim_encode_map")) encode = (decltype(encode))found;
  *module = new Module{library, here()};
  return SUCCESS;
}
int cuModuleUnload(Module* module) {
  REFUSE(cuModuleUnload);
  if (here() != module->context) return INVALID_CONTEXT;
  loaded--;
  delete module;
  return SUCCESS;
}
int cuModuleGetFunction(Function** function, Module* module, const char* name) {
  REFUSE(cuModuleGetFunction);
  void* found = dlsym(module->library, (std::string("moec_sim_launch_") + name).c_str());
  if (!found) return NOT_FOUND;
  *function = new Function{module, name, (int (*)(int, int, unsigned long long, void**))found, 48 << 10};
  return SUCCESS;
}
int cuFuncSetAttribute(Function* function, int attribute, int value) {
  REFUSE(cuFuncSetAttribute);
  if (attribute != 8 || value > 227 << 10) return INVALID_VALUE;
  function->shared_bytes = value;
  return SUCCESS;
}
int cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address, const unsigned long long* sizes,
                           const unsigned long long* strides, const unsigned* box, const unsigned* steps, int interleave,
                           int swizzle, int promotion, int fill) {
  REFUSE(cuTensorMapEncodeTiled);
  if (!here()) return INVALID_CONTEXT;
  if (rank != 3 || interleave || fill || promotion > 3 || (size_t)map % 128) return INVALID_VALUE;
  for (int i = 0; i < 3; i++)
    if (steps[i] != 1) return INVALID_VALUE;
  const int widths[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2};
  if (type < 0 || type > 9 || swizzle < 0 || swizzle > 3) return INVALID_VALUE;
  if (!encode) return INVALID_VALUE;
  const long long boxes[3] = {box[0], box[1], box[2]};
  const int lines[] = {0, 32, 64, 128};
  return encode(map, address, (const long long*)sizes, (const long long*)strides, boxes, lines[swizzle],
                                widths[type])
             ? INVALID_VALUE
             : SUCCESS;
}
int cuMemsetD8Async(void* address, unsigned char value, size_t bytes, void* stream) {
  REFUSE(cuMemsetD8Async);
  if (!here()) return INVALID_CONTEXT;
  if (!bytes) return INVALID_VALUE;  // a node of a graph needs some
  record += "memset stream " + std::to_string((size_t)stream) + "\n";
  std::memset(address, value, bytes);
  return SUCCESS;
}
int cuLaunchKernel(Function* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz,
                   unsigned shared_bytes, void* stream, void** arguments, void** extra) {
  REFUSE(cuLaunchKernel);
  if (here() != function->module->context) return INVALID_CONTEXT;
  if (!x || y != 1 || z != 1 || !threads || threads > 1024 || ty != 1 || tz != 1 || extra) return INVALID_VALUE;
  if ((int)shared_bytes > function->shared_bytes) return INVALID_VALUE;
  record += function->name + " stream " + std::to_string((size_t)stream) + " blocks " + std::to_string(x) + "\n";
  launches++;
  if (!function->launch((int)x, (int)threads, shared_bytes, arguments)) {
    if (function->name == fault.kernel) plant(arguments);
    return SUCCESS;
  }
  const char* (*said)() = (const char* (*)())dlsym(function->module->library, "moec_sim_error");
  last_error = said ? said() : "the simulator failed";
  return LAUNCH_FAILED;
}
int cuGetErrorString(int result, const char** text) {
  switch (result) {
    case INVALID_VALUE: *text = "invalid argument"; break;
    case OUT_OF_MEMORY: *text = "out of memory"; break;
    case NOT_INITIALIZED: *text = "initialization error"; break;
    case INVALID_DEVICE: *text = "invalid device ordinal"; break;
    case INVALID_IMAGE: *text = "device kernel image is invalid"; break;
    case INVALID_CONTEXT: *text = "invalid device context"; break;
    case CAPTURE_UNSUPPORTED: *text = "operation not permitted when stream is capturing"; break;
    case NOT_FOUND: *text = "named symbol not found"; break;
    case LAUNCH_FAILED: *text = last_error.c_str(); break;
    default: *text = nullptr; return INVALID_VALUE;
  }
  return SUCCESS;
}

}  // extern "C"
