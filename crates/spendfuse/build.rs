//! Has the linker replace a function of librdkafka that reads memory which was never written; see
//! `crates/bus/src/native/leader_news.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,--wrap=rd_kafka_metadata_update_op");
    }
}
