//! The whole pipeline, as separate processes of the real binary.

mod thin_slice;
