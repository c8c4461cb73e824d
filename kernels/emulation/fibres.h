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

[[noreturn]] inline void fail(const std::string& why) {
    std::fprintf(stderr, "%s (thread %u of block %u, %u)\n", why.c_str(), threadIdx.x, blockIdx.x, blockIdx.y);
    std::exit(1);
}

enum class State { Ready, AtWarp, AtBlock, Done };

struct Fibre {
    State state;
    bool started;
    int line;            // of the barrier that it waits at
    unsigned exchanges;  // that it has come to
    uint64_t left[2];    // for other lanes, in the last two exchanges
    jmp_buf place;
};

// The order in which threads go on between barriers, and blocks: what a kernel computes must not depend on it.
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

uint64_t exchange(uint64_t own, unsigned lane) {
    unsigned current = machine.current;
    // Two places in turns: nobody comes to the second next exchange before all have read this one.
    unsigned turn = machine.fibres[current].exchanges++ % 2;
    machine.fibres[current].left[turn] = own;
    wait(State::AtWarp);
    return machine.fibres[current / LANES * LANES + lane].left[turn];
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
        for (unsigned thread : in_order(threads)) {
            if (machine.fibres[thread].state == State::Ready) go_on(thread);
        }
        for (unsigned warp = 0; warp < threads; warp += LANES) {
            release(warp, std::min(warp + LANES, threads), State::AtWarp);
        }
        release(0, threads, State::AtBlock);
    }
}

// Runs a whole grid.
inline void run_grid(Place grid, unsigned threads, size_t shared, std::function<void()> kernel) {
    if (grid.z != 1 || grid.y > 65535 || threads == 0 || threads > 1024 || threads % LANES != 0) {
        fail("a grid that no device or no kernel here takes");
    }
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
