//! End-to-end tests against real Kafka and real ClickHouse.
