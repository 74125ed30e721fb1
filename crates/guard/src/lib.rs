//! spendfuse-guard
