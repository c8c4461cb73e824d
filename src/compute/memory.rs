//! What the process really occupies, what there is, and giving freed memory back to the system.

use std::path::Path;

use candle_core::Device;

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

/// What this process made the system read from disks so far; what was in memory already is not counted.
///
/// Units: bytes; `None` where the system does not count it in `/proc`.
pub fn bytes_read_from_disk() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes:"))?;
    line.trim().parse().ok()
}

/// Memory that a device has left.
///
/// Differs: on the CPU what the system could give without swapping, or what its control group (version 2, the
/// innermost one) may still take if that is less.
/// Units: bytes; `None` where it is not told.
pub fn available_bytes(device: &Device) -> Option<usize> {
    match device {
        Device::Cpu => {
            let system = kilobytes_in("/proc/meminfo", "MemAvailable:")?;
            let group = group_bytes(Path::new("/sys/fs/cgroup"));
            Some(group.map_or(system, |group| group.min(system)))
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => {
            let told = candle_core::cuda_backend::cudarc::driver::result::mem_get_info();
            told.ok().map(|(free, _)| free)
        }
        _ => None,
    }
}

/// What the control group of this process may still take, if it is limited.
fn group_bytes(folder: &Path) -> Option<usize> {
    let number = |name: &str| -> Option<usize> {
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        text.trim().parse().ok() // "max" is no limit
    };
    let (most, taken) = (number("memory.max")?, number("memory.current")?);
    // Pages of files are counted as taken, and given back when they are needed.
    let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().filter_map(|line| {
        let number = (line.strip_prefix("inactive_file ")).or(line.strip_prefix("active_file "));
        number?.trim().parse::<usize>().ok()
    });
    Some(
        (most + cached.sum::<usize>())
            .saturating_sub(taken)
            .min(most),
    )
}

fn kilobytes(field: &str) -> Option<usize> {
    kilobytes_in("/proc/self/status", field)
}

fn kilobytes_in(file: &str, field: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let number: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_limit_limits_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        assert_eq!(group_bytes(folder.path()), None);
        write("memory.max", "max\n").unwrap();
        write("memory.current", "4096\n").unwrap();
        assert_eq!(group_bytes(folder.path()), None);
        write("memory.max", "10000\n").unwrap();
        assert_eq!(group_bytes(folder.path()), Some(5904));
        write(
            "memory.stat",
            "anon 1\nactive_file 1000\ninactive_file 96\n",
        )
        .unwrap();
        assert_eq!(group_bytes(folder.path()), Some(7000));
        write("memory.current", "20000\n").unwrap();
        assert_eq!(group_bytes(folder.path()), Some(0));
    }
}
