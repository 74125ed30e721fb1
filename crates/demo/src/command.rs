//! `spendfuse demo`: real parts, real traffic, live on screen, checked at the end.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use spendfuse::{
    DemoArgs, Failure, Fault, OnFailure, Resolved, Role, Settings, Source, create_missing_topics,
    found_wrong, install_metrics, output, prepare_database, wait_for_signal,
};
use spendfuse_bus::Shutdown;
use spendfuse_demo::{Demo, DemoError, Options, Report, Sabotage, Stage};
use spendfuse_pricing::PriceBook;
use spendfuse_warehouse::Warehouse;
use tokio::runtime::Runtime;

/// Starts a Kafka and a ClickHouse for one command.
const DEVSTACK: &str = "spendfuse-devstack";

/// Defaults of the demo, where a broker, ClickHouse, all roles and the traffic may share two cores.
/// A transaction costs the broker one request a partition it writes to, and ClickHouse has room
/// for a few large inserts but not for many small ones; neither is what the demo is about.
const FOR_A_SMALL_MACHINE: [(&str, &str); 2] =
    [("partitions", "2"), ("loader.flush_interval", "1500ms")];

/// Plays the demo and says whether it added up.
pub fn run(settings: &Settings, args: &DemoArgs) -> Result<ExitCode, Failure> {
    let brokers = settings.resolved().get("kafka.brokers");
    if brokers.is_none_or(|brokers| brokers.source == Source::Default) {
        return Err(on_a_stack_of_its_own());
    }
    let settings = own_settings(settings)?;
    let shutdown = Shutdown::new();
    let runtime = Runtime::new().map_err(Failure::work)?;
    let stop = shutdown.clone();
    runtime.spawn(async move {
        wait_for_signal().await;
        stop.request();
    });
    if args.headless {
        output::note("starting; the hour is replayed in 40 s, the rest takes a few seconds");
    }
    let played = play(&settings, args, &runtime, &shutdown);
    // What still waits for an answer must not keep the process.
    runtime.shutdown_background();
    let report = played?;
    if args.headless {
        output::json(&report.outcome.json());
        if !report.outcome.is_well() {
            let differences = spendfuse_demo::differences(&report.outcome, 100);
            differences.lines().for_each(output::note);
        }
    } else {
        output::lines(&report.text);
    }
    Ok(if report.outcome.is_well() {
        ExitCode::SUCCESS
    } else {
        found_wrong()
    })
}

fn play(
    settings: &Settings,
    args: &DemoArgs,
    runtime: &Runtime,
    shutdown: &Shutdown,
) -> Result<Report, Failure> {
    create_missing_topics(settings)?;
    prepare_database(settings)?;
    let metrics = install_metrics()?;
    let rendered = metrics.clone();
    let warehouse = settings.warehouse();
    let stage = Stage {
        kafka: settings.kafka(),
        topics: settings.topics(),
        partitions: settings.partitions(),
        transactional_id: settings.values.transactional_id_prefix.clone(),
        warehouse: Warehouse::new(warehouse).map_err(Failure::usage)?,
        price_version: PriceBook::snapshot().version().to_owned(),
        sidecar: settings.values.sidecar.socket.clone(),
        runtime: runtime.handle().clone(),
        metrics: Arc::new(move || rendered.render()),
    };
    let options = Options {
        percent: args.scale,
        draw: !args.headless && std::io::stdout().is_terminal(),
        sabotage: args.sabotage.map(|fault| match fault {
            Fault::Lose => Sabotage::Lose,
            Fault::Double => Sabotage::Double,
        }),
    };
    let demo = Demo::prepare(stage, options).map_err(Failure::work)?;
    let running = spendfuse::start(
        settings,
        &spendfuse::watched(&Role::ALL),
        runtime.handle(),
        &metrics,
        OnFailure::Stop,
        shutdown,
    );
    let played = demo.run(shutdown);
    // Where a role gave up, that is why the demo stopped.
    let stopped = running.stop();
    match (played, stopped) {
        (Err(DemoError::Stopped), Err(failure)) => Err(failure),
        (Err(error), _) => Err(Failure::work(error)),
        (Ok(_), Err(failure)) => Err(failure),
        (Ok(report), Ok(())) => Ok(report),
    }
}

/// Settings under which nothing that exists is touched.
fn own_settings(settings: &Settings) -> Result<Settings, Failure> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d%H%M%S").to_string();
    let socket = std::env::temp_dir().join(format!("spendfuse-demo-{}.sock", std::process::id()));
    let own = [
        ("topic_prefix", format!("demo-{stamp}.")),
        ("transactional_id_prefix", format!("demo-{stamp}")),
        ("clickhouse.database", format!("spendfuse_demo_{stamp}")),
        ("sidecar.listen", "127.0.0.1:0".to_owned()),
        ("sidecar.socket", socket.display().to_string()),
        ("sidecar.spool_dir", String::new()),
    ];
    let mut resolved = settings.resolved().clone();
    for (key, value) in FOR_A_SMALL_MACHINE {
        if let Some(setting) = resolved.get_mut(key)
            && setting.source == Source::Default
        {
            setting.value = value.to_owned();
        }
    }
    for (key, value) in own {
        let source = Source::CommandLine;
        resolved.insert(key.to_owned(), Resolved { value, source });
    }
    Settings::new(resolved).map_err(Failure::usage)
}

/// Becomes the development stack's `run` with this same command; comes back only where that fails.
fn on_a_stack_of_its_own() -> Failure {
    let (Ok(executable), arguments) = (std::env::current_exe(), std::env::args_os().skip(1)) else {
        return Failure::work("the system does not say where this program is");
    };
    let devstack = executable.with_file_name(DEVSTACK);
    if !devstack.is_file() {
        return Failure::usage(format!(
            "no Kafka is configured, and the development stack is not at {}; run `make demo` in \
             the repository, or name your own with --set kafka.brokers=HOST:PORT and \
             --set clickhouse.url=http://HOST:8123",
            devstack.display()
        ));
    }
    output::note("no Kafka is configured: starting a Kafka and a ClickHouse for the demo");
    let error = Command::new(&devstack)
        .args(["run", "--"])
        .arg(executable)
        .args(arguments)
        .exec();
    Failure::work(format!("cannot start {}: {error}", devstack.display()))
}
