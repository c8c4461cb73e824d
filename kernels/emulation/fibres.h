// Runs the blocks of a kernel one after another, their threads as fibres of one thread of the machine.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "cuda_on_cpu.h"
#include "guarded.h"

Place threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr unsigned LANES = 32;
constexpr size_t STACK = 64 * 1024;
constexpr size_t MOST_SHARED = 99 * 1024;

[[noreturn]] void fail(const std::string& why) {
    std::fprintf(stderr, "%s (thread %u of block %u, %u)\n", why.c_str(), threadIdx.x, blockIdx.x, blockIdx.y);
    std::exit(1);
}

enum class State { Ready, AtWarp, AtBlock, Done };

struct Copy {
    void* to;
    const void* from; // nothing: zeros
};

struct Fibre {
    State state;
    bool started;
    int line;                              // of the barrier that it waits at
    unsigned exchanges;                    // that it has come to
    alignas(8) char left[2][EXCHANGED];    // for other lanes, in the last two exchanges
    std::vector<Copy> copies;              // that were begun and not waited for
    jmp_buf place;
};

// The order in which threads go on between barriers, and blocks: what a kernel computes must not depend on it.
// Ascending, all threads of a block go on in turns; else every warp runs ahead of the others as far as it can.
enum Schedule : unsigned { Ascending, Descending, FirstShuffled };

struct Machine {
    std::vector<Fibre> fibres;
    std::vector<char> stacks;
    std::function<void()> kernel;
    Guarded shared{0};
    jmp_buf scheduler;
    unsigned current = 0;
    unsigned schedule = Ascending;
    std::mt19937 random;
};
inline Machine machine;

inline std::vector<unsigned> in_order(unsigned count) {
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    if (machine.schedule == Descending) std::reverse(order.begin(), order.end());
    if (machine.schedule >= FirstShuffled) std::shuffle(order.begin(), order.end(), machine.random);
    return order;
}

inline void wait(State at) {
    Fibre& fibre = machine.fibres[machine.current];
    fibre.state = at;
    if (_setjmp(fibre.place) == 0) _longjmp(machine.scheduler, 1);
}

void* dynamic_shared() { return machine.shared.bytes(); }

void block_barrier(int line) {
    machine.fibres[machine.current].line = line;
    wait(State::AtBlock);
}

void exchange(const void* own, size_t size) {
    Fibre& fibre = machine.fibres[machine.current];
    if (size > EXCHANGED) fail("more than lanes exchange at once");
    // Two places in turns: nobody comes to the second next exchange before all have read this one.
    std::memcpy(fibre.left[fibre.exchanges++ % 2], own, size);
    wait(State::AtWarp);
}

const void* left_by(unsigned lane) {
    unsigned current = machine.current, turn = (machine.fibres[current].exchanges - 1) % 2;
    return machine.fibres[current / LANES * LANES + lane].left[turn];
}

inline void carry_out(const Copy& copy) {
    if (copy.from != nullptr) {
        std::memcpy(copy.to, copy.from, 16);
    } else {
        std::memset(copy.to, 0, 16);
    }
}

// A copy may be there at once, or not before it is waited for: schedules differ in it.
void begin_copy_16(void* to, const void* from) {
    if (uintptr_t(to) % 16 != 0 || uintptr_t(from) % 16 != 0) fail("a copy between addresses that are not aligned");
    if (machine.schedule == Ascending) return carry_out({to, from});
    machine.fibres[machine.current].copies.push_back({to, from});
}

void end_copies() {
    std::vector<Copy>& copies = machine.fibres[machine.current].copies;
    for (const Copy& copy : copies) carry_out(copy);
    copies.clear();
}

inline void run_fibre() {
    machine.kernel();
    machine.fibres[machine.current].state = State::Done;
    _longjmp(machine.scheduler, 1);
}

inline void go_on(unsigned thread) {
    Fibre& fibre = machine.fibres[thread];
    machine.current = threadIdx.x = thread;
    if (_setjmp(machine.scheduler) != 0) return;
    if (fibre.started) _longjmp(fibre.place, 1);
    fibre.started = true;
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = &machine.stacks[thread * STACK];
    start.uc_stack.ss_size = STACK;
    start.uc_link = nullptr;
    makecontext(&start, run_fibre, 0);
    setcontext(&start);
}

// Lets threads `from..to` go on if all of them wait at the same place.
inline void release(unsigned from, unsigned to, State at) {
    for (unsigned t = from; t < to; t++) {
        const Fibre &fibre = machine.fibres[t], &first = machine.fibres[from];
        if (fibre.state != at) return;
        if (at == State::AtBlock && fibre.line != first.line) fail("threads wait at different barriers");
    }
    for (unsigned t = from; t < to; t++) machine.fibres[t].state = State::Ready;
}

inline void go_on_if_ready(unsigned thread) {
    if (machine.fibres[thread].state == State::Ready) go_on(thread);
}

// Runs a warp until all of it waits for the block or is done.
inline void run_ahead(unsigned warp) {
    auto ready = [](const Fibre& fibre) { return fibre.state == State::Ready; };
    auto first = machine.fibres.begin() + warp;
    while (std::any_of(first, first + LANES, ready)) {
        for (unsigned lane : in_order(LANES)) go_on_if_ready(warp + lane);
        release(warp, warp + LANES, State::AtWarp);
    }
}

inline void run_block() {
    unsigned threads = blockDim.x;
    machine.fibres.assign(threads, Fibre{});
    machine.stacks.resize(threads * STACK);
    machine.shared.poison();
    auto is = [](State state) { return [state](const Fibre& fibre) { return fibre.state == state; }; };
    while (!std::all_of(machine.fibres.begin(), machine.fibres.end(), is(State::Done))) {
        if (std::none_of(machine.fibres.begin(), machine.fibres.end(), is(State::Ready))) {
            fail("threads wait for others that have left or wait elsewhere");
        }
        if (machine.schedule == Ascending) {
            for (unsigned thread = 0; thread < threads; thread++) go_on_if_ready(thread);
            for (unsigned warp = 0; warp < threads; warp += LANES) release(warp, warp + LANES, State::AtWarp);
        } else {
            for (unsigned warp : in_order(threads / LANES)) run_ahead(warp * LANES);
        }
        release(0, threads, State::AtBlock);
    }
}

// Runs a whole grid.
inline void run_grid(Place grid, unsigned threads, size_t shared, std::function<void()> kernel) {
    if (grid.z != 1 || grid.y > 65535 || threads == 0 || threads > 1024 || threads % LANES != 0) {
        fail("a grid that no device or no kernel here takes");
    }
    if (shared > MOST_SHARED) fail("more shared memory than every card since 2020 gives a block");
    gridDim = grid;
    blockDim = {threads, 1, 1};
    machine.kernel = std::move(kernel);
    machine.shared = Guarded(shared);
    for (unsigned block : in_order(grid.x * grid.y)) {
        blockIdx = {block % grid.x, block / grid.x, 0};
        run_block();
    }
}

} // namespace emulation
