//! spendfuse-processor
