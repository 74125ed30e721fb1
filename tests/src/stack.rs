//! The one Kafka and ClickHouse that the tests of a process share, one test at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spendfuse_devstack::{DevStack, DevStackOptions, Purpose};

static RUNNING: Mutex<Weak<DevStack>> = Mutex::new(Weak::new());
static TURN: Mutex<()> = Mutex::new(());

/// A test's turn on the stack. The stack ends with the last test that holds or awaits a turn.
pub struct Turn {
    // The turn before the stack: the next test finds it free.
    _turn: MutexGuard<'static, ()>,
    stack: Arc<DevStack>,
}

impl Turn {
    /// Waits for the turn; both servers run and answer then, whatever the test before did to them.
    ///
    /// # Panics
    /// Where the stack cannot be started: `make setup` has not been run, or the executables are not
    /// built.
    pub fn take() -> Self {
        let stack = running();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        stack.kafka.resume(0);
        stack.clickhouse.resume();
        stack.kafka.restart(0).expect("Kafka starts");
        stack.clickhouse.restart().expect("ClickHouse starts");
        stack.kafka.wait_ready().expect("Kafka gets ready");
        stack
            .clickhouse
            .wait_ready()
            .expect("ClickHouse gets ready");
        Self { _turn: turn, stack }
    }

    /// Waits for the turn and starts servers of its own, set up for speed instead of a quick start.
    ///
    /// # Panics
    /// As [`Turn::take`].
    pub fn for_measurement() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = DevStackOptions::default();
        options.kafka.purpose = Purpose::Benchmarks;
        Self {
            _turn: turn,
            stack: Arc::new(start(options)),
        }
    }

    /// Waits for the turn and starts servers of its own, whose broker can be killed while
    /// transactions are under way.
    ///
    /// # Panics
    /// As [`Turn::take`].
    pub fn for_kills_of_the_broker() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = DevStackOptions::default();
        options.kafka.controller_apart = true;
        Self {
            _turn: turn,
            stack: Arc::new(start(options)),
        }
    }

    /// The servers.
    pub fn stack(&self) -> &DevStack {
        &self.stack
    }
}

fn running() -> Arc<DevStack> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let stack = Arc::new(start(DevStackOptions::default()));
        *running = Arc::downgrade(&stack);
        stack
    })
}

fn start(options: DevStackOptions) -> DevStack {
    DevStack::start(options)
        .unwrap_or_else(|error| panic!("the development stack does not start: {error}"))
}
