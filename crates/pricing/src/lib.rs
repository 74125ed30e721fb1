//! spendfuse-pricing
