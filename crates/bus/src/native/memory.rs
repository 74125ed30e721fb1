//! Memory that librdkafka takes from the C library.
//!
//! Its buffers come and go with every fetch and every transaction, megabytes at a time, taken on one
//! thread and given back on another. glibc returns such memory to the system as soon as it is free, and
//! the system clears each page anew that it hands out again.

/// Keeps memory that is free for what comes next, in the whole process: for workers under load. How
/// much a process holds at its peak stays the same, but it holds that for longer.
pub(crate) fn keep_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_free_memory();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    // As in its `malloc.h`.
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;

    /// Free bytes at the end of an arena that are kept.
    const KEPT: c_int = 64 << 20;
    /// Larger buffers, bytes, are the system's own; glibc allows no more.
    const FROM_SYSTEM: c_int = 32 << 20;

    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }

    pub(super) fn keep_free_memory() {
        for (parameter, value) in [(M_TRIM_THRESHOLD, KEPT), (M_MMAP_THRESHOLD, FROM_SYSTEM)] {
            // SAFETY: it takes numbers, locks what it changes, and may be called at any time.
            let is_taken = unsafe { mallopt(parameter, value) } == 1;
            debug_assert!(is_taken, "glibc's parameter {parameter} is not {value}");
        }
    }
}
