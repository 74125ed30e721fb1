//! spendfuse-engine
