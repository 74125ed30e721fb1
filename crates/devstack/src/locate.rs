//! Where the parts are that `make setup` fetches, and the executable that serves ClickHouse.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{DevStackError, while_doing};

const CACHE_VARIABLE: &str = "SPENDFUSE_CACHE_DIR";
const CLICKHOUSE_BIN_VARIABLE: &str = "SPENDFUSE_CLICKHOUSE_BIN";
const CLICKHOUSE_BIN: &str = "spendfuse-clickhouse";

/// The versions `scripts/setup` fetches; a folder of the cache carries its version, so that
/// changing one here asks for a new set-up.
const KAFKA_FOLDER: &str = "kafka-4.3.1";
const LIBCHDB: &str = "libchdb-26.7.3-stable.1/libchdb.so";

/// The folder with the broker's jars.
pub(crate) fn kafka_jars() -> Result<PathBuf, DevStackError> {
    in_cache("Apache Kafka 4.3.1", KAFKA_FOLDER)
}

/// ClickHouse's engine as a shared library.
pub(crate) fn libchdb() -> Result<PathBuf, DevStackError> {
    in_cache("the embedded ClickHouse engine", LIBCHDB)
}

/// The Java launcher: `$JAVA_HOME/bin/java`, else `java` from the path.
pub(crate) fn java() -> PathBuf {
    match env::var_os("JAVA_HOME") {
        Some(home) if Path::new(&home).join("bin/java").is_file() => {
            PathBuf::from(home).join("bin/java")
        }
        _ => PathBuf::from("java"),
    }
}

/// The executable `spendfuse-clickhouse`: named by the environment, or next to the running
/// executable or above it (tests run in `target/release/deps`).
pub(crate) fn clickhouse_executable() -> Result<PathBuf, DevStackError> {
    if let Some(path) = env::var_os(CLICKHOUSE_BIN_VARIABLE) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(DevStackError::NotSetUp {
                part: "the executable spendfuse-clickhouse",
                path,
                variable: CLICKHOUSE_BIN_VARIABLE,
            })
        };
    }
    let executable =
        env::current_exe().map_err(while_doing("asking for the path of this executable"))?;
    let folder = executable.parent().unwrap_or(Path::new("/"));
    folder
        .ancestors()
        .take(4)
        .map(|ancestor| ancestor.join(CLICKHOUSE_BIN))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| DevStackError::ClickHouseNotBuilt {
            searched: folder.to_owned(),
        })
}

fn in_cache(part: &'static str, name: &str) -> Result<PathBuf, DevStackError> {
    let path = cache_folder()?.join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(DevStackError::NotSetUp {
            part,
            path,
            variable: CACHE_VARIABLE,
        })
    }
}

/// `SPENDFUSE_CACHE_DIR`, else `.cache` of the workspace this process runs in, else of the
/// workspace this crate was compiled in.
fn cache_folder() -> Result<PathBuf, DevStackError> {
    if let Some(named) = env::var_os(CACHE_VARIABLE) {
        return std::path::absolute(named).map_err(while_doing("resolving SPENDFUSE_CACHE_DIR"));
    }
    let current = env::current_dir().map_err(while_doing("asking for the current folder"))?;
    let compiled_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = workspace_above(&current).or_else(|| workspace_above(compiled_in));
    Ok(root.unwrap_or(&current).join(".cache"))
}

fn workspace_above(folder: &Path) -> Option<&Path> {
    folder
        .ancestors()
        .find(|ancestor| ancestor.join("crates/devstack/kafka/pom.xml").is_file())
}
