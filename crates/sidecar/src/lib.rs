//! spendfuse-sidecar
