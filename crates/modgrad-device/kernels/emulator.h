// Runs kernels on the processor, for tests. Blocks are a loop; the threads of a block are
// fibres, so that a barrier is one: a fibre that reaches it gives way to the others.
// Shared arrays are bounds-checked and hold NaN at first; every second launch runs blocks
// and threads in the opposite order, so that a missing barrier or a race shows itself.
#pragma once
#define MODGRAD_EMULATED 1
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <ucontext.h>
#include <utility>

#define __global__
#define __device__
#define DEVICE inline

namespace emulator {

struct Dimensions {
    unsigned x, y, z;
};

// As `modgrad_device::emulated` passes it.
struct Launch {
    unsigned grid[3];
    unsigned block[3];
    unsigned reversed;
    unsigned arguments;
    unsigned shared_bytes;
    unsigned message_bytes;
    unsigned char *shared;
    void *const *values;      // each argument's bytes
    const unsigned *sizes;    // and how many these are, or null where that is not known
    const unsigned char *kinds; // 'p' pointer, 'i' integer, 'f' float, 's' struct
    char *message;            // what went wrong, empty if nothing did
};

struct Fibre {
    ucontext_t context;
    char *stack;
    unsigned thread; // which thread it is inside of
    int line;        // of the barrier at which it waits
    bool waiting;
};

static const size_t STACK_BYTES = 64 << 10;
static const unsigned MOST_THREADS = 1024;

static thread_local Dimensions grid_size, block_size, block_place, thread_place;
static thread_local Fibre fibres[MOST_THREADS];
static thread_local ucontext_t scheduler;
static thread_local unsigned current, next_thread, threads;
static thread_local bool reversed;
static thread_local void (*body)(void *);
static thread_local void *body_state;
static thread_local char *message;
static thread_local unsigned message_bytes;
static thread_local unsigned char *dynamic_shared;
static thread_local unsigned dynamic_shared_bytes;

inline void complain(const char *format, long long a, long long b) {
    if (message && !message[0]) snprintf(message, message_bytes, format, a, b);
}

inline void enter_thread(unsigned thread) {
    thread_place.x = thread % block_size.x;
    thread_place.y = thread / block_size.x % block_size.y;
    thread_place.z = thread / block_size.x / block_size.y;
}

// Runs whole threads one after the other until one of them waits at a barrier; then another
// fibre goes on with those that have not begun.
inline void fibre_main() {
    for (;;) {
        while (next_thread < threads) {
            unsigned thread = next_thread++;
            if (reversed) thread = threads - 1 - thread;
            fibres[current].thread = thread;
            enter_thread(thread);
            body(body_state);
        }
        fibres[current].waiting = false;
        swapcontext(&fibres[current].context, &scheduler);
    }
}

inline void barrier_at(int line) {
    Fibre &fibre = fibres[current];
    fibre.waiting = true;
    fibre.line = line;
    swapcontext(&fibre.context, &scheduler);
    enter_thread(fibre.thread);
}

inline void resume(unsigned index) {
    Fibre &fibre = fibres[index];
    if (!fibre.stack) {
        fibre.stack = new char[STACK_BYTES];
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack;
        fibre.context.uc_stack.ss_size = STACK_BYTES;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, fibre_main, 0);
    }
    current = index;
    swapcontext(&scheduler, &fibre.context);
}

// A shared array, bounds-checked, NaN (or −1) at first.
struct SharedArray {
    SharedArray *following;
    void *bytes;
    size_t count;
};
static thread_local SharedArray *shared_arrays;

template <class T, int N> struct Shared : SharedArray {
    T values[N];
    T spill;
    Shared() {
        bytes = values;
        count = sizeof values;
        memset(bytes, 0xff, count);
        following = shared_arrays;
        shared_arrays = this;
    }
    T &operator[](long long index) {
        if (index >= 0 && index < N) return values[index];
        complain("index %lld of a shared array of %lld", index, N);
        return spill;
    }
    T *data() { return values; }
};

template <class T> struct DynamicShared {
    T &operator[](long long index) {
        static thread_local T spill;
        long long count = dynamic_shared_bytes / sizeof(T);
        if (index >= 0 && index < count) return ((T *)dynamic_shared)[index];
        complain("index %lld of %lld elements of shared memory that the launch asked for", index,
                 count);
        return spill;
    }
};

inline void run_block() {
    for (SharedArray *array = shared_arrays; array; array = array->following)
        memset(array->bytes, 0xff, array->count);
    if (dynamic_shared_bytes) memset(dynamic_shared, 0xff, dynamic_shared_bytes);
    next_thread = 0;
    unsigned used = 0;
    while (next_thread < threads) resume(used++);
    // All but perhaps the last fibre wait: once round is once past the barrier for all.
    for (;;) {
        unsigned waiting = 0;
        int line = 0;
        bool split = false;
        for (unsigned index = 0; index < used; index++) {
            if (!fibres[index].waiting) continue;
            if (waiting && fibres[index].line != line) split = true;
            line = fibres[index].line;
            waiting++;
        }
        if (waiting == 0) return;
        if (waiting != threads) complain("%lld of %lld threads reached a barrier", waiting, threads);
        if (split) complain("threads wait at different barriers, one in line %lld", line, 0);
        for (unsigned step = 0; step < used; step++) {
            unsigned index = reversed ? used - 1 - step : step;
            if (fibres[index].waiting) {
                fibres[index].waiting = false;
                resume(index);
            }
        }
    }
}

inline void run(const Launch &launch, void (*job)(void *), void *state) {
    grid_size = {launch.grid[0], launch.grid[1], launch.grid[2]};
    block_size = {launch.block[0], launch.block[1], launch.block[2]};
    threads = block_size.x * block_size.y * block_size.z;
    message = launch.message;
    message_bytes = launch.message_bytes;
    reversed = launch.reversed;
    dynamic_shared = launch.shared;
    dynamic_shared_bytes = launch.shared_bytes;
    body = job;
    body_state = state;
    if (threads > MOST_THREADS) return complain("a block of %lld threads, at most %lld", threads, MOST_THREADS);
    unsigned long long blocks = (unsigned long long)grid_size.x * grid_size.y * grid_size.z;
    for (unsigned long long step = 0; step < blocks; step++) {
        unsigned long long block = reversed ? blocks - 1 - step : step;
        block_place.x = block % grid_size.x;
        block_place.y = block / grid_size.x % grid_size.y;
        block_place.z = block / grid_size.x / grid_size.y;
        run_block();
    }
}

template <class P> constexpr char kind_of() {
    if (std::is_pointer<P>::value) return 'p';
    if (std::is_floating_point<P>::value) return 'f';
    return std::is_integral<P>::value ? 'i' : 's';
}

template <class... P> struct Call {
    void (*kernel)(P...);
    void *const *values;
    template <size_t... I> void apply(std::index_sequence<I...>) {
        kernel(*(typename std::remove_const<P>::type *)values[I]...);
    }
    static void job(void *state) { ((Call *)state)->apply(std::index_sequence_for<P...>()); }
};

// Checks the arguments against the kernel's parameters, then runs it.
template <class... P> void call(const Launch &launch, void (*kernel)(P...)) {
    message = launch.message;
    message_bytes = launch.message_bytes;
    if (launch.sizes && launch.arguments != sizeof...(P))
        return complain("%lld arguments for %lld parameters", launch.arguments, sizeof...(P));
    const unsigned sizes[] = {sizeof(P)..., 0};
    const char kinds[] = {kind_of<P>()..., 0};
    for (unsigned index = 0; launch.sizes && index < launch.arguments; index++)
        if (launch.sizes[index] != sizes[index] || launch.kinds[index] != kinds[index])
            return complain("argument %lld is not of its parameter's type (%lld bytes)", index,
                            sizes[index]);
    Call<P...> state = {kernel, launch.values};
    run(launch, Call<P...>::job, &state);
}

} // namespace emulator

inline unsigned long long atomicMax(unsigned long long *at, unsigned long long value) {
    unsigned long long before = *at;
    if (value > before) *at = value;
    return before;
}

#define gridDim emulator::grid_size
#define blockDim emulator::block_size
#define blockIdx emulator::block_place
#define threadIdx emulator::thread_place
#define SHARED(type, name, count) static thread_local emulator::Shared<type, count> name
#define DYNAMIC_SHARED(type, name) emulator::DynamicShared<type> name
#define barrier() emulator::barrier_at(__LINE__)
#define EXPORT(name, parameters, ...)                                   \
    static void name##_kernel parameters { __VA_ARGS__; }               \
    extern "C" void name(const emulator::Launch *launch) {              \
        emulator::call(*launch, name##_kernel);                         \
    }
