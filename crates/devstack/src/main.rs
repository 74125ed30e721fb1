//! `spendfuse-devstack`: Kafka and ClickHouse for development, from a shell.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use spendfuse_devstack::{
    DataFolder, DevStack, DevStackOptions, Kafka, Purpose, free_port, wait_until,
};
use tokio::signal::unix::{SignalKind, signal};

const ENV_FILE: &str = "env";
const PROCESS_ID_FILE: &str = "devstack.pid";
const LOG_FILE: &str = "devstack.log";
/// How long both may take to get ready.
const START_PATIENCE: Duration = Duration::from_secs(120);
const RUNS_ALREADY: &str = "a development stack runs already in";
/// Begins the lines of the log that are for whoever started the stack.
const NOTE: &str = "note: ";

/// Starts and stops a real Kafka and an embedded ClickHouse on this machine. Development only.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  spendfuse-devstack up --dir .devstack            run until Ctrl-C
  spendfuse-devstack up --dir .devstack --detach   return when both are ready
  . .devstack/env; echo $SPENDFUSE_KAFKA_BROKERS   the addresses
  spendfuse-devstack down --dir .devstack          stop; the data stays
  spendfuse-devstack run -- cargo test             a fresh stack for one command")]
struct CommandLine {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Starts both, writes their addresses to DIR/env, and runs until SIGINT or SIGTERM. With
    /// --detach one that runs already is as good as one that was started.
    Up {
        #[command(flatten)]
        folder: Folder,
        #[command(flatten)]
        parts: Parts,
        /// Kafka on 9092 and ClickHouse on 8123, or the next free ones with a word; or any free ones.
        #[arg(long, value_enum, default_value = "usual")]
        ports: Ports,
        /// Return as soon as both are ready, leaving them running.
        #[arg(long)]
        detach: bool,
    },
    /// Stops what `up` started in DIR. The data stays.
    Down {
        #[command(flatten)]
        folder: Folder,
    },
    /// Prints PORT where nobody has it, else the next free one.
    FreePort {
        /// The wanted port.
        port: u16,
        /// Any free one instead.
        #[arg(long, value_enum, default_value = "usual")]
        ports: Ports,
    },
    /// Makes later starts of Kafka take half the time (6 s, once; at once where done before).
    Prepare,
    /// Runs a command against a fresh stack in a temporary folder, with the addresses in its
    /// environment, and exits with the command's code.
    Run {
        #[command(flatten)]
        parts: Parts,
        /// The command and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Folder {
    /// Folder of data, logs and addresses.
    #[arg(long, default_value = ".devstack")]
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ports {
    Usual,
    Free,
}

impl Ports {
    fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Free => "free",
        }
    }
}

#[derive(Debug, Args)]
struct Parts {
    /// Kafka nodes.
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    kafka_nodes: String,
    /// Let the JVM optimise fully instead of starting quickly.
    #[arg(long)]
    for_benchmarks: bool,
}

impl Parts {
    fn options(&self) -> DevStackOptions {
        let mut options = DevStackOptions::default();
        options.kafka.nodes = if self.kafka_nodes == "3" { 3 } else { 1 };
        if self.for_benchmarks {
            options.kafka.purpose = Purpose::Benchmarks;
        }
        options
    }

    fn as_arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--kafka-nodes={}", self.kafka_nodes)];
        if self.for_benchmarks {
            arguments.push("--for-benchmarks".to_owned());
        }
        arguments
    }
}

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().command {
        Action::Up {
            folder,
            parts,
            ports,
            detach: false,
        } => up(&folder.dir, &parts, ports),
        Action::Up {
            folder,
            parts,
            ports,
            detach: true,
        } => up_detached(&folder.dir, &parts, ports),
        Action::Down { folder } => down(&folder.dir),
        Action::FreePort { port, ports } => print_free_port(port, ports),
        Action::Prepare => Kafka::record_class_archive()
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        Action::Run { parts, command } => run(&parts, &command),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("spendfuse-devstack: {error:#}");
        ExitCode::FAILURE
    })
}

fn print_free_port(port: u16, ports: Ports) -> Result<ExitCode> {
    let usual = (ports == Ports::Usual).then_some(port);
    println!("{}", free_port(usual)?);
    Ok(ExitCode::SUCCESS)
}

fn up(folder: &Path, parts: &Parts, ports: Ports) -> Result<ExitCode> {
    // Held while we run: `down` and a second `up` look at it.
    let held = DataFolder::named(folder)?;
    let env_file = held.path().join(ENV_FILE);
    let process_id_file = held.path().join(PROCESS_ID_FILE);
    fs::write(&process_id_file, std::process::id().to_string())
        .with_context(|| format!("writing {}", process_id_file.display()))?;
    let ends = signals()?;
    let mut options = parts.options().in_folder(held.path());
    if ports == Ports::Usual {
        options = options.on_usual_ports();
    }
    let stack = DevStack::start(options)?;
    if ports == Ports::Usual {
        for line in stack.moved() {
            println!("{NOTE}{line}");
        }
    }
    stack.write_env(&env_file)?;
    print!("{}", stack.env_lines());
    println!("ready; logs and data are in {}", held.path().display());
    // An error means that the signal thread is gone: then it is time to end as well.
    let _ = ends.recv();
    println!("stopping");
    // Both are gone when somebody no longer finds the addresses.
    stack.shut_down();
    let _ = fs::remove_file(env_file);
    let _ = fs::remove_file(process_id_file);
    Ok(ExitCode::SUCCESS)
}

/// Reports the first SIGINT or SIGTERM. Set up before anything is started, so that a signal
/// during the start is not lost.
fn signals() -> Result<std::sync::mpsc::Receiver<()>> {
    let (sender, receiver) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // Nobody listens where the start failed.
        let _ = sender.send(());
    });
    Ok(receiver)
}

fn up_detached(folder: &Path, parts: &Parts, ports: Ports) -> Result<ExitCode> {
    if DataFolder::is_in_use(folder) {
        return await_running(folder);
    }
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let env_file = folder.join(ENV_FILE);
    if env_file.exists() {
        fs::remove_file(&env_file).with_context(|| format!("removing {}", env_file.display()))?;
    }
    let log_file = folder.join(LOG_FILE);
    let log =
        fs::File::create(&log_file).with_context(|| format!("creating {}", log_file.display()))?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("up")
        .arg("--dir")
        .arg(folder)
        .args(parts.as_arguments())
        .arg(format!("--ports={}", ports.name()))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C and the end of this terminal are not meant for it.
        .process_group(0)
        .spawn()?;
    let outcome = wait_until("the stack", START_PATIENCE, || {
        if env_file.exists() {
            return Some(true);
        }
        matches!(child.try_wait(), Ok(Some(_))).then_some(false)
    });
    if matches!(outcome, Ok(true)) {
        let log = fs::read_to_string(&log_file).unwrap_or_default();
        for note in log.lines().filter_map(|line| line.strip_prefix(NOTE)) {
            eprintln!("{note}");
        }
        print!("{}", fs::read_to_string(&env_file)?);
        return Ok(ExitCode::SUCCESS);
    }
    let _ = child.kill();
    bail!(
        "the stack did not start:\n{}",
        fs::read_to_string(&log_file).unwrap_or_default()
    );
}

/// Somebody else has started it, maybe just now.
fn await_running(folder: &Path) -> Result<ExitCode> {
    let env_file = folder.join(ENV_FILE);
    let found = wait_until("the stack", START_PATIENCE, || {
        if env_file.exists() {
            return Some(true);
        }
        (!DataFolder::is_in_use(folder)).then_some(false)
    });
    if !matches!(found, Ok(true)) {
        bail!(
            "the stack that was starting in {} did not get ready; its log is {}",
            folder.display(),
            folder.join(LOG_FILE).display()
        );
    }
    eprintln!("{RUNS_ALREADY} {}", folder.display());
    print!("{}", fs::read_to_string(&env_file)?);
    Ok(ExitCode::SUCCESS)
}

fn down(folder: &Path) -> Result<ExitCode> {
    if !DataFolder::is_in_use(folder) {
        println!("no development stack is running in {}", folder.display());
        return Ok(ExitCode::SUCCESS);
    }
    let process_id_file = folder.join(PROCESS_ID_FILE);
    let process_id: i32 = fs::read_to_string(&process_id_file)
        .with_context(|| format!("reading {}", process_id_file.display()))?
        .trim()
        .parse()
        .with_context(|| format!("reading {}", process_id_file.display()))?;
    kill(Pid::from_raw(process_id), Signal::SIGTERM)
        .with_context(|| format!("signalling process {process_id}"))?;
    wait_until("the stack to stop", Duration::from_secs(90), || {
        (!DataFolder::is_in_use(folder)).then_some(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn run(parts: &Parts, command: &[String]) -> Result<ExitCode> {
    let ends = signals()?;
    let stack = DevStack::start(parts.options())?;
    let variables = stack.env_lines();
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let (program, arguments) = command.split_first().context("no command was given")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables)
        .spawn()
        .with_context(|| format!("running {program}"))?;
    let process_id = Pid::from_raw(child.id().cast_signed());
    // The stack stays until the command has ended in its own way.
    std::thread::spawn(move || {
        if ends.recv().is_ok() {
            let _ = kill(process_id, Signal::SIGTERM);
        }
    });
    let status = child
        .wait()
        .with_context(|| format!("waiting for {program}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
