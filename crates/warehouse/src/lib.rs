//! spendfuse-warehouse
