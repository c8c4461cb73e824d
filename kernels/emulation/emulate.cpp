// Runs launches that come from standard input, and writes the buffers as they are afterwards to standard output.
//
// Input, little-endian: u32 schedule; u32 buffers, of each u64 bytes, u8 whether they follow, and they themselves; u32
// launches, of each u32 length and name of the kernel, 3 u32 grid, u32 threads, u32 bytes of dynamic shared memory, u32
// arguments. An argument is a character and 8 bytes: 'b' u32 buffer and u32 offset in bytes, 'u' u32, 'f' float, 'd'
// double; or 't' and 64 bytes.
#include "../device.cuh"
#include "../tensor_cores.cuh"
#include "fibres.h"

#include <map>
#include <tuple>

namespace counts_to_mass_kernels {
#include "../counts_to_mass.cu"
}
namespace row_sums_kernels {
#include "../row_sums.cu"
}
namespace ragged_attention_kernels {
#include "../ragged_attention.cu"
}
namespace prefill_attention_kernels {
#include "../prefill_attention.cu"
}
namespace products_kernels {
#include "products.cu"
}
namespace falling_order_kernels {
#include "../falling_order.cu"
}
namespace running_sums_kernels {
#include "../running_sums.cu"
}
namespace row_pooling_kernels {
#include "../row_pooling.cu"
}
namespace prefix_sums_kernels {
#include "../prefix_sums.cu"
}
namespace largest_entries_kernels {
#include "../largest_entries.cu"
}

using emulation::fail;
using emulation::Guarded;

struct Argument {
    char kind;
    std::vector<char> bytes;
};

std::vector<Guarded> buffers;

template <class T>
T plain(const Argument& given, char kind) {
    if (given.kind != kind) fail(std::string("an argument of kind ") + given.kind + " where the kernel takes " + kind);
    T value;
    if (given.bytes.size() < sizeof value) fail("an argument of too few bytes");
    std::memcpy(&value, given.bytes.data(), sizeof value);
    return value;
}
template <class T>
struct Read;
template <>
struct Read<u32> {
    static u32 from(const Argument& given) { return plain<u32>(given, 'u'); }
};
template <>
struct Read<float> {
    static float from(const Argument& given) { return plain<float>(given, 'f'); }
};
template <>
struct Read<double> {
    static double from(const Argument& given) { return plain<double>(given, 'd'); }
};
template <>
struct Read<counts_to_mass_kernels::Thresholds> {
    static counts_to_mass_kernels::Thresholds from(const Argument& given) {
        return plain<counts_to_mass_kernels::Thresholds>(given, 't');
    }
};
struct Pointer {
    u32 buffer, offset;
};
template <class T>
struct Read<T*> {
    static T* from(const Argument& given) {
        Pointer pointer = plain<Pointer>(given, 'b');
        if (pointer.buffer >= buffers.size() || pointer.offset > buffers[pointer.buffer].size()) fail("no such buffer");
        return reinterpret_cast<T*>(buffers[pointer.buffer].bytes() + pointer.offset);
    }
};

using Bound = std::function<void()>;
using Kernel = std::function<Bound(const std::vector<Argument>&)>;

template <class... Types, size_t... Places>
Bound arranged(void (*kernel)(Types...), const std::vector<Argument>& given, std::index_sequence<Places...>) {
    std::tuple<Types...> arguments{Read<Types>::from(given[Places])...};
    return [kernel, arguments] { std::apply(kernel, arguments); };
}

template <class... Types>
Kernel kernel_of(void (*kernel)(Types...)) {
    return [kernel](const std::vector<Argument>& given) {
        if (given.size() != sizeof...(Types)) fail("another number of arguments than the kernel takes");
        return arranged(kernel, given, std::index_sequence_for<Types...>{});
    };
}

#define ENTRY(from, name) {#name, kernel_of(from::name)}
#define ENTRIES(columns)                                                                                             \
    ENTRY(prefill_attention_kernels, prefill_attend_f16_##columns),                                                  \
        ENTRY(prefill_attention_kernels, prefill_attend_bf16_##columns)
const std::map<std::string, Kernel> KERNELS = {
    ENTRY(counts_to_mass_kernels, counts_to_mass),
    ENTRY(row_sums_kernels, row_sums),
    ENTRY(ragged_attention_kernels, ragged_attend_f32x4),
    ENTRY(ragged_attention_kernels, ragged_attend_f32x1),
    ENTRY(ragged_attention_kernels, ragged_attend_f16x8),
    ENTRY(ragged_attention_kernels, ragged_attend_f16x2),
    ENTRY(ragged_attention_kernels, ragged_attend_f16x1),
    ENTRY(ragged_attention_kernels, ragged_attend_bf16x8),
    ENTRY(ragged_attention_kernels, ragged_attend_bf16x2),
    ENTRY(ragged_attention_kernels, ragged_attend_bf16x1),
    ENTRY(ragged_attention_kernels, ragged_join_f32),
    ENTRY(ragged_attention_kernels, ragged_join_f16),
    ENTRY(ragged_attention_kernels, ragged_join_bf16),
    ENTRIES(64),
    ENTRIES(80),
    ENTRIES(96),
    ENTRIES(128),
    ENTRIES(256),
    ENTRY(products_kernels, product_f16),
    ENTRY(products_kernels, product_bf16),
    ENTRY(falling_order_kernels, sort_tiles_f32),
    ENTRY(falling_order_kernels, sort_step_f32),
    ENTRY(falling_order_kernels, sort_merge_f32),
    ENTRY(falling_order_kernels, sort_order_f32),
    ENTRY(falling_order_kernels, sort_tiles_f64),
    ENTRY(falling_order_kernels, sort_step_f64),
    ENTRY(falling_order_kernels, sort_merge_f64),
    ENTRY(falling_order_kernels, sort_order_f64),
    ENTRY(running_sums_kernels, running_totals),
    ENTRY(running_sums_kernels, running_offsets),
    ENTRY(running_sums_kernels, running_sums),
    ENTRY(row_pooling_kernels, pool_rows),
    ENTRY(prefix_sums_kernels, prefix_sums),
    ENTRY(largest_entries_kernels, best_start),
    ENTRY(largest_entries_kernels, best_check),
    ENTRY(largest_entries_kernels, best_count),
    ENTRY(largest_entries_kernels, best_pick),
    ENTRY(largest_entries_kernels, best_tally),
    ENTRY(largest_entries_kernels, best_places),
    ENTRY(largest_entries_kernels, best_write),
};

void read_bytes(void* to, size_t size) {
    if (std::fread(to, 1, size, stdin) != size) fail("the input ends too early");
}

template <class T>
T read() {
    T value;
    read_bytes(&value, sizeof value);
    return value;
}

void run_launch() {
    std::string name(read<u32>(), ' ');
    read_bytes(name.data(), name.size());
    Place grid = read<Place>();
    u32 threads = read<u32>(), shared = read<u32>();
    std::vector<Argument> arguments(read<u32>());
    for (Argument& argument : arguments) {
        argument.kind = read<char>();
        argument.bytes.resize(argument.kind == 't' ? 64 : 8);
        read_bytes(argument.bytes.data(), argument.bytes.size());
    }
    auto kernel = KERNELS.find(name);
    if (kernel == KERNELS.end()) fail("no kernel is called " + name);
    emulation::run_grid(grid, threads, shared, kernel->second(arguments));
}

int main() {
    emulation::machine.schedule = read<u32>();
    emulation::machine.random.seed(emulation::machine.schedule);
    for (u32 count = read<u32>(); count > 0; count--) {
        buffers.emplace_back(read<u64>());
        if (read<char>()) read_bytes(buffers.back().bytes(), buffers.back().size());
    }
    for (u32 launches = read<u32>(); launches > 0; launches--) run_launch();
    for (const Guarded& buffer : buffers) std::fwrite(buffer.bytes(), 1, buffer.size(), stdout);
    return std::fflush(stdout) == 0 ? 0 : 1;
}
