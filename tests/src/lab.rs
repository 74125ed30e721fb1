//! A test's own topics and database, and the real binary's commands on them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use spendfuse_broken::Break;
use spendfuse_bus::KafkaConfig;
use spendfuse_devstack::{ClickHouse, Kafka, wait_until};
use tempfile::TempDir;

use crate::role::Role;
use crate::stack::Turn;
use crate::warehouse::Warehouse;

/// Partitions of every stage topic, unless a test asks for others.
pub const PARTITIONS: u32 = 4;
/// The workspace of all traffic.
pub const WORKSPACE: &str = "acme";

/// Names the guarantee that it breaks.
pub const BREAK_VARIABLE: &str = "SPENDFUSE_BREAK";
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// Topics and a database of its own on the shared stack, for the time of a test.
pub struct Lab {
    // Roles are dropped by the test, before the lab.
    folder: TempDir,
    prefix: String,
    database: String,
    partitions: u32,
    commands: AtomicU32,
    /// The guarantee that roles break on purpose.
    broken: Option<Break>,
    /// The settings file of roles and commands.
    configured: Option<PathBuf>,
    turn: Turn,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Lab {
    /// Waits for the turn, creates topics and tables.
    ///
    /// # Panics
    /// Where a command fails.
    pub fn new(name: &str) -> Self {
        let lab = Self::empty(name);
        lab.create_topics();
        lab.migrate();
        lab
    }

    /// Waits for the turn; topics and tables are not there yet.
    pub fn empty(name: &str) -> Self {
        Self::on(Turn::take(), name)
    }

    /// As [`Lab::new`], on servers of its own that are set up for speed.
    ///
    /// # Panics
    /// Where a command fails.
    pub fn for_measurement(name: &str) -> Self {
        let lab = Self::on(Turn::for_measurement(), name);
        lab.create_topics();
        lab.migrate();
        lab
    }

    /// Waits for the turn on servers of its own, whose broker can be killed while transactions are
    /// under way; topics and tables are not there yet.
    pub fn for_kills_of_the_broker(name: &str) -> Self {
        Self::on(Turn::for_kills_of_the_broker(), name)
    }

    /// From now on roles are of the executable whose guarantees can be broken, and this one is.
    pub fn break_on_purpose(&mut self, guarantee: Break) {
        self.broken = Some(guarantee);
    }

    /// From now on roles and commands read these settings (TOML) from a file.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn configure(&mut self, toml: &str) {
        let file = self.file("configured.toml");
        fs::write(&file, toml).expect("the folder can be written");
        self.configured = Some(file);
    }

    fn on(turn: Turn, name: &str) -> Self {
        Self {
            turn,
            folder: TempDir::new().expect("a temporary folder can be made"),
            prefix: format!("{name}."),
            database: format!("test_{name}"),
            partitions: PARTITIONS,
            commands: AtomicU32::new(0),
            broken: None,
            configured: None,
        }
    }

    /// From now on everything works on another set of topics, with the same database.
    pub fn move_to_topics(&mut self, name: &str, partitions: u32) {
        self.prefix = format!("{name}.");
        self.partitions = partitions;
    }

    /// Creates the topics.
    ///
    /// # Panics
    /// Where that fails.
    pub fn create_topics(&self) {
        self.must(&["topics", "create"]);
    }

    /// Creates the tables and fills `prices`.
    ///
    /// # Panics
    /// Where that fails.
    pub fn migrate(&self) {
        self.must(&["migrate"]);
    }

    /// The broker.
    pub fn kafka(&self) -> &Kafka {
        &self.turn.stack().kafka
    }

    /// The warehouse's server.
    pub fn clickhouse(&self) -> &ClickHouse {
        &self.turn.stack().clickhouse
    }

    /// Queries on this lab's database.
    pub fn warehouse(&self) -> Warehouse {
        Warehouse::new(&self.clickhouse().url(), &self.database)
    }

    /// How to reach the broker.
    pub fn kafka_config(&self) -> KafkaConfig {
        KafkaConfig::new(&self.kafka().brokers(), "spendfuse-tests")
    }

    /// The full name of a topic, such as `usage`.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Partitions of every stage topic.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// A file in a folder that goes with the lab.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a role of the real binary and waits for nothing.
    ///
    /// # Panics
    /// Where the binary is not built.
    pub fn role(&self, role: &str, instance: &str, settings: &[(&str, &str)]) -> Role {
        let mut arguments = vec![role.to_owned()];
        arguments.extend(self.setting_arguments());
        let own = [("instance_id", instance), ("admin.listen", "")];
        for (key, value) in own.iter().chain(settings) {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        let log = self.file(&format!("{role}-{instance}.log"));
        let name = format!("{role} {instance}");
        let Some(guarantee) = self.broken else {
            return Role::start(&name, spendfuse(), arguments, log);
        };
        // `env` becomes the role: same process.
        let program = broken_executable();
        let mut all = vec![format!("{BREAK_VARIABLE}={}", guarantee.name())];
        all.push(program.display().to_string());
        all.extend(arguments);
        Role::start(&name, PathBuf::from("env"), all, log)
    }

    /// A processor with default settings, counting.
    ///
    /// # Panics
    /// Where it does not get there within 30 s.
    pub fn processor(&self, instance: &str) -> Role {
        let role = self.role("processor", instance, &[]);
        role.await_line("stage=\"ledger\"", Duration::from_secs(30));
        role.await_line("stage=\"meter\"", Duration::from_secs(30));
        role
    }

    /// A loader with default settings.
    pub fn loader(&self) -> Role {
        self.role("loader", "1", &[])
    }

    /// Runs a command of the real binary to its end.
    ///
    /// # Panics
    /// Where it does not end within a minute.
    pub fn run(&self, arguments: &[&str]) -> Said {
        let mut all: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
        all.extend(self.setting_arguments());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.run_alone(&all)
    }

    /// As [`Lab::run`], without this lab's settings.
    ///
    /// # Panics
    /// Where it does not end within a minute.
    pub fn run_alone(&self, arguments: &[&str]) -> Said {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new(spendfuse());
        command.args(arguments).current_dir(self.folder.path());
        run_to_end(
            command,
            &self.file(&format!("command-{number}")),
            COMMAND_PATIENCE,
        )
    }

    /// Runs a command that must succeed.
    ///
    /// # Panics
    /// Where its exit code is not 0.
    pub fn must(&self, arguments: &[&str]) -> Said {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "spendfuse {arguments:?}: {said:?}");
        said
    }

    /// Writes budgets (YAML) and removes all others, without waiting until they are in force.
    ///
    /// # Panics
    /// Where the command refuses.
    pub fn apply_budgets(&self, yaml: &str) {
        let file = self.file("budgets.yaml");
        fs::write(&file, yaml).expect("the folder can be written");
        let file = file.to_str().expect("temporary folders have plain names");
        self.must(&["budgets", "apply", "--prune", "--no-wait", file]);
    }

    /// Arguments that name this lab's servers, topics and database, and its settings file.
    pub fn setting_arguments(&self) -> Vec<String> {
        let settings = [
            ("kafka.brokers", self.kafka().brokers()),
            ("clickhouse.url", self.clickhouse().url()),
            ("clickhouse.database", self.database.clone()),
            ("topic_prefix", self.prefix.clone()),
            (
                "transactional_id_prefix",
                self.prefix.trim_end_matches('.').to_owned(),
            ),
            ("partitions", self.partitions.to_string()),
        ];
        let file = self.configured.iter();
        let file = file.flat_map(|file| ["--config".to_owned(), file.display().to_string()]);
        let set = |(key, value): &(&str, String)| ["--set".to_owned(), format!("{key}={value}")];
        file.chain(settings.iter().flat_map(set)).collect()
    }
}

/// Runs `command` to its end; output goes through files, so that it cannot block.
///
/// # Panics
/// Where it does not end within `patience`; it is killed then.
pub fn run_to_end(mut command: Command, output: &std::path::Path, patience: Duration) -> Said {
    let (out, err) = (output.with_extension("out"), output.with_extension("err"));
    let create = |path: &PathBuf| File::create(path).expect("the folder can be written");
    let mut child = command
        .stdin(command_input(output))
        .stdout(create(&out))
        .stderr(create(&err))
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let ended = wait_until("the end of a command", patience, || {
        child.try_wait().expect("a child can be asked")
    });
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).expect("the output is there");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let Ok(status) = ended else {
        // It may have ended just now.
        let _ = child.kill();
        let _ = child.wait();
        let (stdout, stderr) = (read(&out), read(&err));
        panic!("{command:?} does not end within {patience:?}\n{stdout}\n{stderr}");
    };
    Said {
        code: status.code(),
        stdout: read(&out),
        stderr: read(&err),
    }
}

/// The file next to the outputs that holds the command's input, if there is one.
fn command_input(output: &std::path::Path) -> Stdio {
    File::open(output.with_extension("in")).map_or_else(|_| Stdio::null(), Stdio::from)
}

/// The executable whose guarantees can be broken, next to the real one; `scripts/broken` builds it.
pub fn broken_executable() -> PathBuf {
    spendfuse().with_file_name("spendfuse-broken")
}

/// Whether it is there; else says on standard error what builds it.
pub fn has_broken_executable() -> bool {
    let program = broken_executable();
    let is_there = program.is_file();
    if !is_there {
        let program = program.display();
        eprintln!("{program} is not there: scripts/broken builds it");
    }
    is_there
}

/// The executable: above the running test's own (`target/release/deps`).
///
/// # Panics
/// Where it is not built.
pub fn spendfuse() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its path");
    test.ancestors()
        .take(4)
        .map(|folder| folder.join("spendfuse"))
        .find(|candidate| candidate.is_file())
        .expect("the binary is built: cargo build --release -p spendfuse -p spendfuse-devstack")
}
