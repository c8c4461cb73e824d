//! What the process really occupies, and giving freed memory back to the system.

/// Asks the C library to return freed memory to the system, where it can be asked.
///
/// glibc keeps freed blocks of a cache for later allocations; a cache that was cut should be seen to
/// be smaller from outside too.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the call takes no pointer and may be made at any time from any thread.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Resident memory of this process now.
///
/// Units: bytes; `None` where the system does not tell it in `/proc`.
pub fn resident_bytes() -> Option<usize> {
    kilobytes("VmRSS:")
}

/// The most resident memory that this process ever had.
///
/// Units: bytes; `None` as for [`resident_bytes`].
pub fn peak_resident_bytes() -> Option<usize> {
    kilobytes("VmHWM:")
}

fn kilobytes(field: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let number: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}
