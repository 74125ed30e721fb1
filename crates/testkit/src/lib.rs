//! spendfuse-testkit
