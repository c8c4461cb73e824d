//! Weights that are cut short while they are read end the program with an error.

#[cfg(unix)]
pub use unix::end_in_an_error;

/// Other systems do not let a mapped file be cut short.
#[cfg(not(unix))]
pub fn end_in_an_error(_weights: &std::path::Path) {}

#[cfg(unix)]
mod unix {
    use std::path::Path;
    use std::sync::OnceLock;

    /// What is said, made beforehand: nothing can be allocated where it is needed.
    static MESSAGE: OnceLock<Vec<u8>> = OnceLock::new();

    /// From now on, reading a mapped page that the file no longer has ends in an error that names the weights.
    ///
    /// The system sends SIGBUS then, which would end the program without a word. Only the first model of a process is
    /// named; no verb reads two.
    pub fn end_in_an_error(weights: &Path) {
        MESSAGE.get_or_init(|| {
            format!(
                "\nerror: {}: was cut short, or its disk failed, while it was read; nothing was kept of what was computed \
                 from it. Put the whole file in its place and run again\n",
                weights.display()
            )
            .into_bytes()
        });
        // SAFETY: a zeroed sigaction is a valid one without flags, and the handler is an `extern "C" fn(c_int)`, as one
        // without SA_SIGINFO must be; it does only what is allowed in one. The stack for signals, which the standard
        // library gives every thread, is used where there is one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = say_and_leave as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            // Where it is refused, the program ends as it would have without it.
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        }
    }

    /// Several threads may come here at once; the first that is through ends the others.
    extern "C" fn say_and_leave(_: libc::c_int) {
        // SAFETY: `write` and `_exit` may be called in a handler, and what is written was made before it was set; reading
        // a cell that is set takes no lock.
        unsafe {
            if let Some(message) = MESSAGE.get() {
                libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
            }
            libc::_exit(1)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::fs::File;
        use std::process::Command;

        /// Names the file that a process of its own maps, cuts short and reads.
        const VICTIM: &str = "KVPROF_TEST_CUT_SHORT";

        #[test]
        fn a_mapped_file_that_is_cut_short_ends_in_an_error() {
            if let Some(path) = std::env::var_os(VICTIM) {
                return read_behind_the_end(Path::new(&path));
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("weights.gguf");
            std::fs::write(&path, vec![7; 1 << 16]).unwrap();
            let own =
                "cli::cut_short::unix::tests::a_mapped_file_that_is_cut_short_ends_in_an_error";
            let output = Command::new(std::env::current_exe().unwrap())
                .args([own, "--exact", "--nocapture"])
                .env(VICTIM, &path)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{:?} {said}", output.status);
            let want = format!("error: {}: was cut short", path.display());
            assert_eq!(said.matches(&want).count(), 1, "{said}");
        }

        fn read_behind_the_end(path: &Path) {
            end_in_an_error(path);
            let file = File::options().read(true).write(true).open(path).unwrap();
            // SAFETY: only read, and by this process alone.
            let bytes = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            assert_eq!(bytes[1 << 15], 7);
            file.set_len(0).unwrap();
            let read = std::hint::black_box(&bytes)[1 << 15];
            // Another code than that of the error, and than that of a test that fails.
            eprintln!("read {read} behind the end");
            std::process::exit(3);
        }
    }
}
