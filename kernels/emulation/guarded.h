// Memory whose end is the end of a page that may be touched: what is read or written beyond it ends the program.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace emulation {

class Guarded {
  public:
    explicit Guarded(size_t size) : size_(size) {
        size_t page = size_t(sysconf(_SC_PAGESIZE));
        size_t room = (size + page - 1) / page * page;
        mapped_ = room + page;
        void* start = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED || mprotect(static_cast<char*>(start) + room, page, PROT_NONE) != 0) {
            std::perror("memory");
            std::exit(1);
        }
        start_ = static_cast<char*>(start);
        bytes_ = start_ + room - size;
        poison();
    }
    Guarded(Guarded&& other) noexcept { *this = std::move(other); }
    Guarded& operator=(Guarded&& other) noexcept {
        std::swap(size_, other.size_);
        std::swap(mapped_, other.mapped_);
        std::swap(start_, other.start_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Guarded() {
        if (start_ != nullptr) munmap(start_, mapped_);
    }

    char* bytes() const { return bytes_; }
    size_t size() const { return size_; }
    // Fills it with what nobody should compute with: as floats, NaN.
    void poison() { std::memset(bytes_, 0xff, size_); }

  private:
    size_t size_ = 0, mapped_ = 0;
    char *start_ = nullptr, *bytes_ = nullptr;
};

} // namespace emulation
