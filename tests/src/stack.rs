//! The stacks of Kafka and ClickHouse that the tests of a process share, one test at a time each.

use std::sync::{Condvar, Mutex, PoisonError};

use spendfuse_devstack::{DevStack, DevStackOptions, Purpose};

/// How many tests of a process run at a time: they wait more than they compute, so that two share
/// two cores.
const TURNS: usize = 2;

static FREE: Mutex<Free> = Mutex::new(Free {
    turns: TURNS,
    stacks: Vec::new(),
});
static GIVEN_BACK: Condvar = Condvar::new();

/// What nobody uses now.
struct Free {
    turns: usize,
    /// Stacks that run. They end with the process; their folders go when the next stack starts.
    stacks: Vec<DevStack>,
}

/// A test's turn on a stack of its own.
pub struct Turn {
    turns: usize,
    stack: Option<DevStack>,
    /// Whether another test can have the stack afterwards.
    is_shared: bool,
}

impl Turn {
    /// Waits for a turn; both servers run and answer then, whatever the test before did to them.
    ///
    /// # Panics
    /// Where the stack cannot be started: `make setup` has not been run, or the executables are not
    /// built.
    pub fn take() -> Self {
        let mut turn = Self::wait_for(1);
        turn.is_shared = true;
        let used = free().stacks.pop();
        let stack = turn
            .stack
            .insert(used.unwrap_or_else(|| start(DevStackOptions::default())));
        stack.kafka.resume(0);
        stack.clickhouse.resume();
        stack.kafka.restart(0).expect("Kafka starts");
        stack.clickhouse.restart().expect("ClickHouse starts");
        stack.kafka.wait_ready().expect("Kafka gets ready");
        stack
            .clickhouse
            .wait_ready()
            .expect("ClickHouse gets ready");
        turn
    }

    /// Waits until no other test runs and starts servers set up for speed instead of a quick start.
    ///
    /// # Panics
    /// As [`Turn::take`].
    pub fn for_measurement() -> Self {
        let mut options = DevStackOptions::default();
        options.kafka.purpose = Purpose::Benchmarks;
        Self::wait_for(TURNS).on(options)
    }

    /// Waits for a turn and starts servers whose broker can be killed while transactions are under
    /// way.
    ///
    /// # Panics
    /// As [`Turn::take`].
    pub fn for_kills_of_the_broker() -> Self {
        let mut options = DevStackOptions::default();
        options.kafka.controller_apart = true;
        Self::wait_for(1).on(options)
    }

    /// The servers.
    pub fn stack(&self) -> &DevStack {
        self.stack
            .as_ref()
            .expect("a turn has a stack until it ends")
    }

    fn wait_for(turns: usize) -> Self {
        let mut free = GIVEN_BACK
            .wait_while(free(), |free| free.turns < turns)
            .unwrap_or_else(PoisonError::into_inner);
        free.turns -= turns;
        Self {
            turns,
            stack: None,
            is_shared: false,
        }
    }

    fn on(mut self, options: DevStackOptions) -> Self {
        self.stack = Some(start(options));
        self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let stack = self.stack.take().filter(|_| self.is_shared);
        let mut free = free();
        free.turns += self.turns;
        free.stacks.extend(stack);
        GIVEN_BACK.notify_all();
    }
}

fn free() -> std::sync::MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(options: DevStackOptions) -> DevStack {
    DevStack::start(options)
        .unwrap_or_else(|error| panic!("the development stack does not start: {error}"))
}
