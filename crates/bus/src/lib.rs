//! spendfuse-bus
