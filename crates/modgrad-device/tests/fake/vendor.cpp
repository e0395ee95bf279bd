// Stands in for a vendor's libraries in tests: the functions that modgrad-device calls, with
// the parameters that the vendors' headers declare, on host memory. Kernels are compiled by
// the host's compiler and run by the emulator. With -DHIP these are AMD's, else NVIDIA's.
//
// FAKE_… in the environment makes things go wrong: see each use.
#include "../../kernels/emulator.h"
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>
#include <dlfcn.h>
#include <unistd.h>

#ifdef HIP
#define NAME(cuda, hip) hip
#else
#define NAME(cuda, hip) cuda
#endif

typedef unsigned long long Address;

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

// A kernel hangs once FAKE_HANG launches were made: what waits for it then, waits for ever.
static long launches;
static bool hangs() { return launches >= setting("FAKE_HANG", 1L << 40); }
static void would_wait(const char *what) {
    if (!hangs()) return;
    printf("\nSAID %s would wait for ever\n", what);
    fflush(stdout);
    _exit(0);
}

static std::map<Address, size_t> buffers;
static size_t held;

// Copies from the host are done as late as they may be.
static std::vector<std::pair<Address, std::pair<const void *, size_t>>> late;
static void do_late() {
    for (auto &copy : late) memcpy((void *)copy.first, copy.second.first, copy.second.second);
    late.clear();
}

static size_t total_bytes() { return (size_t)setting("FAKE_MEMORY_MIB", 4096) << 20; }

extern "C" {

// ---- the driver ---------------------------------------------------------------

int NAME(cuInit, hipInit)(unsigned flags) { return flags ? 1 : setting("FAKE_INIT", 0); }
int NAME(cuDriverGetVersion, hipDriverGetVersion)(int *version) {
    *version = setting("FAKE_DRIVER", NAME(12040, 60032830));
    return 0;
}
int NAME(cuDeviceGetCount, hipGetDeviceCount)(int *count) {
    *count = setting("FAKE_CARDS", 1);
    return 0;
}
int NAME(cuDeviceGetName, hipDeviceGetName)(char *name, int length, int) {
    snprintf(name, length, "Made-up card");
    return 0;
}
int NAME(cuDeviceTotalMem_v2, hipDeviceTotalMem)(size_t *bytes, int) {
    *bytes = total_bytes();
    return 0;
}
static void *current; // NVIDIA's context
int NAME(cuMemGetInfo_v2, hipMemGetInfo)(size_t *free, size_t *total) {
    *total = total_bytes();
    *free = *total - held;
    return NAME(current ? 0 : 201, 0);
}
#ifdef HIP
int hipSetDevice(int ordinal) { return ordinal ? 101 : 0; }
const char *hipGetErrorString(int) { return "made-up error"; }
int hipGetDevicePropertiesR0600(char *properties, int) {
    strcpy(properties, "Made-up gfx card");
    strcpy(properties + 1160, "gfx90a:sramecc+:xnack-");
    return 0;
}
#else
static int context, retained;
int fake_retained() { return retained; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute == 75 ? setting("FAKE_MAJOR", 9) : attribute == 76 ? 0 : -1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **made, int) {
    *made = &context;
    retained++;
    return setting("FAKE_RETAIN", 0);
}
int cuDevicePrimaryCtxRelease_v2(int) {
    would_wait("releasing a context");
    retained--;
    return 0;
}
int cuCtxSetCurrent(void *given) {
    current = given;
    return !given || given == &context ? 0 : 201;
}
int cuGetErrorString(int, const char **words) {
    *words = "made-up error";
    return 0;
}
#endif

int NAME(cuMemAlloc_v2, hipMalloc)(Address *address, size_t bytes) {
    if (held + bytes > total_bytes()) return 2;
    *address = (Address)malloc(bytes);
    memset((void *)*address, 0xff, bytes);
    buffers[*address] = bytes;
    held += bytes;
    return 0;
}
int NAME(cuMemFree_v2, hipFree)(Address address) {
    would_wait("freeing");
    do_late();
    if (!buffers.count(address)) return 1;
    held -= buffers[address];
    buffers.erase(address);
    free((void *)address);
    return 0;
}

// What a copy from or to the host may use: other memory would be copied while all waits.
static char *pinned;
static size_t pinned_bytes;
int NAME(cuMemHostAlloc, hipHostMalloc)(void **made, size_t bytes, unsigned flags) {
    pinned = (char *)malloc(bytes), pinned_bytes = bytes;
    *made = pinned;
    return flags || setting("FAKE_HOST_MEMORY", 0) ? 2 : 0;
}
int NAME(cuMemFreeHost, hipHostFree)(void *given) {
    would_wait("freeing host memory");
    free(given);
    return given != pinned;
}
static bool staged(const void *at, size_t bytes) {
    return (char *)at >= pinned && (char *)at + bytes <= pinned + pinned_bytes;
}

// Whether a stretch lies within a buffer; asked before it is used.
bool fake_within(Address address, size_t bytes) {
    do_late();
    auto next = buffers.upper_bound(address);
    if (next == buffers.begin()) return false;
    --next;
    return address + bytes <= next->first + next->second;
}

static int stream;

int NAME(cuMemcpyHtoDAsync_v2, hipMemcpyHtoDAsync)(Address to, const void *from, size_t bytes,
                                                   void *on) {
    auto before = late;
    late.clear();
    if (on != &stream || !staged(from, bytes) || !fake_within(to, bytes)) return 1;
    late = before;
    late.push_back({to, {from, bytes}});
    return 0;
}
int NAME(cuMemcpyDtoHAsync_v2, hipMemcpyDtoHAsync)(void *to, Address from, size_t bytes,
                                                   void *on) {
    if (on != &stream || !staged(to, bytes) || !fake_within(from, bytes)) return 1;
    memcpy(to, (void *)from, bytes);
    return 0;
}
int NAME(cuMemcpyDtoDAsync_v2, hipMemcpyDtoDAsync)(Address to, Address from, size_t bytes,
                                                   void *on) {
    if (on != &stream || !fake_within(from, bytes) || !fake_within(to, bytes)) return 1;
    memcpy((void *)to, (void *)from, bytes);
    return 0;
}
int NAME(cuMemsetD8Async, hipMemsetD8Async)(Address to, unsigned char byte, size_t bytes,
                                            void *on) {
    if (on != &stream || !fake_within(to, bytes)) return 1;
    memset((void *)to, byte, bytes);
    return 0;
}
int NAME(cuStreamCreate, hipStreamCreateWithFlags)(void **made, unsigned flags) {
    *made = &stream;
    return flags == 1 ? 0 : 1;
}
int NAME(cuStreamDestroy_v2, hipStreamDestroy)(void *on) {
    would_wait("ending a stream");
    return on == &stream ? 0 : 400;
}
int NAME(cuStreamQuery, hipStreamQuery)(void *on) {
    if (on != &stream) return 400;
    do_late();
    return hangs() ? 600 : 0;
}
int NAME(cuModuleLoadData, hipModuleLoadData)(void **module, const void *image) {
    would_wait("loading");
    // The fake compiler puts the size before the code.
    size_t size = *(const size_t *)image;
    char path[] = "/tmp/modgrad-fake-XXXXXX";
    int file = mkstemp(path);
    bool whole = write(file, (const char *)image + sizeof size, size) == (ssize_t)size;
    close(file);
    *module = whole ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    unlink(path);
    return *module ? 0 : 200;
}
int NAME(cuModuleGetFunction, hipModuleGetFunction)(void **function, void *module,
                                                    const char *name) {
    *function = dlsym(module, name);
    return *function ? 0 : 500;
}
int NAME(cuLaunchKernel, hipModuleLaunchKernel)(void *function, unsigned x, unsigned y, unsigned z,
                                                unsigned width, unsigned height, unsigned depth,
                                                unsigned shared, void *on, void **arguments,
                                                void **extra) {
    if (on != &stream || extra) return 1;
    do_late();
    static long queued;
    if (hangs() && ++queued > 1000) would_wait("launching");
    launches++;
    std::vector<unsigned char> bytes(shared + 16);
    char message[256] = "";
    emulator::Launch launch = {};
    launch.grid[0] = x, launch.grid[1] = y, launch.grid[2] = z;
    launch.block[0] = width, launch.block[1] = height, launch.block[2] = depth;
    launch.shared = bytes.data();
    launch.shared_bytes = shared;
    launch.values = arguments;
    launch.message = message;
    launch.message_bytes = sizeof message;
    ((void (*)(const emulator::Launch *))function)(&launch);
    if (message[0]) fprintf(stderr, "%s\n", message);
    return message[0] ? 700 : 0;
}

// ---- the run-time compiler ------------------------------------------------------

struct CompiledProgram {
    std::string text, log, code;
};

int NAME(nvrtcVersion, hiprtcVersion)(int *major, int *minor) {
    *major = 12, *minor = 4;
    return 0;
}
#ifndef HIP
int nvrtcGetNumSupportedArchs(int *count) {
    *count = 2;
    return 0;
}
int nvrtcGetSupportedArchs(int *all) {
    all[0] = 80, all[1] = 90;
    return 0;
}
#endif
int NAME(nvrtcCreateProgram, hiprtcCreateProgram)(CompiledProgram **made, const char *text,
                                                  const char *name, int headers,
                                                  const char *const *, const char *const *) {
    *made = new CompiledProgram{text, name, ""};
    return headers;
}
int NAME(nvrtcCompileProgram, hiprtcCompileProgram)(CompiledProgram *program, int count,
                                                    const char *const *options) {
    const char *wanted = NAME("--gpu-architecture=sm_90", "--gpu-architecture=gfx90a");
    if (count != 2 || strcmp(options[0], wanted) || setting("FAKE_COMPILER_FAILS", 0)) {
        program->log = "a line before\nx.hip(3): error: made up\n";
        return 6;
    }
    char folder[] = "/tmp/modgrad-fake-XXXXXX";
    std::string base = mkdtemp(folder);
    std::ofstream(base + "/k.cpp") << "#include \"" EMULATOR "\"\n" << program->text;
    std::string command = "c++ -std=c++17 -O0 -w -fPIC -shared -fno-gnu-unique " + base +
                          "/k.cpp -o " + base + "/k.so";
    int status = system(command.c_str());
    std::ostringstream code;
    code << std::ifstream(base + "/k.so", std::ios::binary).rdbuf();
    size_t size = code.str().size();
    program->code = std::string((const char *)&size, sizeof size) + code.str();
    unlink((base + "/k.cpp").c_str());
    unlink((base + "/k.so").c_str());
    rmdir(base.c_str());
    return status;
}
int NAME(nvrtcGetProgramLogSize, hiprtcGetProgramLogSize)(CompiledProgram *program, size_t *size) {
    *size = program->log.size() + 1;
    return 0;
}
int NAME(nvrtcGetProgramLog, hiprtcGetProgramLog)(CompiledProgram *program, char *log) {
    strcpy(log, program->log.c_str());
    return 0;
}
int NAME(nvrtcGetCUBINSize, hiprtcGetCodeSize)(CompiledProgram *program, size_t *size) {
    *size = program->code.size();
    return 0;
}
int NAME(nvrtcGetCUBIN, hiprtcGetCode)(CompiledProgram *program, char *code) {
    memcpy(code, program->code.data(), program->code.size());
    return 0;
}
int NAME(nvrtcDestroyProgram, hiprtcDestroyProgram)(CompiledProgram **program) {
    delete *program;
    *program = nullptr;
    return 0;
}

// ---- matrix products, column-major -------------------------------------------------

#ifndef HIPBLAS_MAJOR
#define HIPBLAS_MAJOR 2
#endif
#define OLD_TYPES (HIPBLAS_MAJOR < 2)
static const int F32 = NAME(0, (OLD_TYPES ? 151 : 0));
static const int BF16 = NAME(14, (OLD_TYPES ? 168 : 14));
static const int SUMS = NAME(68, (OLD_TYPES ? 151 : 2));
static const int TRANSPOSED = NAME(1, 112), PLAIN = NAME(0, 111), DEFAULT = NAME(-1, 160);

static int handle;
int NAME(cublasCreate_v2, hipblasCreate)(void **made) {
    *made = &handle;
    return 0;
}
int NAME(cublasDestroy_v2, hipblasDestroy)(void *given) { return given != &handle; }
int NAME(cublasSetStream_v2, hipblasSetStream)(void *given, void *) { return given != &handle; }
static bool one_order; // products sum in one order, in f32
#ifdef HIP
int hipblasSetAtomicsMode(void *given, int mode) {
    one_order = given == &handle && mode == 0;
    return !one_order;
}
#if HIPBLAS_MAJOR == 3
int hipblasGetVersion(void *, int *version) {
    *version = 30'100;
    return 0;
}
int hipblasGemmStridedBatchedEx_64() { return 1; }
#endif
#else
int cublasGetVersion_v2(void *, int *version) {
    *version = 120'400;
    return 0;
}
int cublasSetMathMode(void *given, int mode) {
    one_order = given == &handle && mode == 16;
    return !one_order;
}
#endif

static float element(const void *matrix, int type, long long at) {
    if (type == F32) return ((const float *)matrix)[at];
    unsigned bits = (unsigned)((const unsigned short *)matrix)[at] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void put(void *matrix, int type, long long at, float value) {
    if (type == F32) {
        ((float *)matrix)[at] = value;
        return;
    }
    unsigned bits;
    memcpy(&bits, &value, 4);
    ((unsigned short *)matrix)[at] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// This library is another copy than the driver's, which knows the buffers.
static bool within(Address address, size_t bytes) {
    static const auto ask = [] {
        Dl_info here;
        dladdr((void *)&handle, &here);
        std::string path = here.dli_fname;
        path = path.substr(0, path.rfind('/')) + NAME("/libcuda.so.1", "/libamdhip64.so");
        return (bool (*)(Address, size_t))dlsym(dlopen(path.c_str(), RTLD_NOW), "fake_within");
    }();
    return ask(address, bytes);
}

// Whether `batch` column-major matrices lie within a buffer.
static bool matrices(const void *first, int type, long long rows, long long columns,
                     long long leading, long long stride, int batch) {
    long long elements = (batch - 1) * stride + (columns - 1) * leading + rows;
    return leading >= rows && within((Address)first, elements * (type == F32 ? 4 : 2));
}

#if defined HIP && HIPBLAS_MAJOR == 2
#define GEMM hipblasGemmStridedBatchedEx_v2
#else
#define GEMM NAME(cublasGemmStridedBatchedEx, hipblasGemmStridedBatchedEx)
#endif
int GEMM(void *given, int operation_a, int operation_b, int m, int n, int k, const void *alpha,
         const void *a, int type_a, int lda, long long stride_a, const void *b, int type_b,
         int ldb, long long stride_b, const void *beta, void *c, int type_c, int ldc,
         long long stride_c, int batch, int sums, int algorithm) {
    bool known = (operation_a == PLAIN || operation_a == TRANSPOSED) &&
                 (operation_b == PLAIN || operation_b == TRANSPOSED) && type_a == type_b &&
                 (type_a == F32 || type_a == BF16) && (type_c == F32 || type_c == type_a) &&
                 sums == SUMS && algorithm == DEFAULT && given == &handle && one_order;
    float add = *(const float *)beta;
    bool turned_a = operation_a == TRANSPOSED, turned_b = operation_b == TRANSPOSED;
    bool sized = matrices(a, type_a, turned_a ? k : m, turned_a ? m : k, lda, stride_a, batch) &&
                 matrices(b, type_b, turned_b ? n : k, turned_b ? k : n, ldb, stride_b, batch) &&
                 matrices(c, type_c, m, n, ldc, stride_c, batch);
    bool scaled = *(const float *)alpha == 1.0f && (add == 0.0f || add == 1.0f);
    if (!known || !sized || !scaled) return 7;
    if (setting("FAKE_PRODUCTS", 0)) return 0; // none is computed: as if they took no time
    for (int index = 0; index < batch; index++)
        for (int j = 0; j < n; j++)
            for (int i = 0; i < m; i++) {
                float total = 0.0f;
                for (int l = 0; l < k; l++) {
                    long long at_a = turned_a ? l + (long long)i * lda : i + (long long)l * lda;
                    long long at_b = turned_b ? j + (long long)l * ldb : l + (long long)j * ldb;
                    total += element(a, type_a, index * stride_a + at_a) *
                             element(b, type_b, index * stride_b + at_b);
                }
                long long at = index * stride_c + i + (long long)j * ldc;
                if (add != 0.0f) total += element(c, type_c, at);
                put(c, type_c, at, total);
            }
    return 0;
}

} // extern "C"
