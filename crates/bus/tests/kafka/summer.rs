//! A small stage: adds the numbers of its input, and copies each to an output topic.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use spendfuse_bus::{
    BusError, InputProgress, InputRecord, InputState, KafkaConfig, LogicError, Outputs,
    PartitionLogic, RestoreSource, Shutdown, StageConfig, StageEvent, StageLogic, Unreadable,
    run_stage,
};

use crate::broker::{create_at, kafka, text};

/// What happens inside, for the tests to see and to disturb.
#[derive(Default)]
pub struct Inside {
    /// The sum of each partition after every restore: partition, `seq`, sum.
    pub restored: Vec<(u32, u64, u64)>,
    /// Keys other than the sum that were restored.
    pub extra: Vec<String>,
    /// Ticks so far that said the end was reached: the sum at that time.
    pub at_end: Vec<u64>,
    pub events: Vec<StageEvent>,
    /// Partitions that were taken back, and of which nothing is told any more.
    pub cleared: Vec<u32>,
}

/// Called with each number before it is added.
pub type Disturb = Arc<dyn Fn(u64) -> Result<(), LogicError> + Send + Sync>;
/// Called with the batch's numbers after they were written, before the commit.
pub type DisturbFinish =
    Arc<dyn Fn(&[u64], &mut Outputs<'_>) -> Result<(), LogicError> + Send + Sync>;

#[derive(Clone)]
pub struct Summer {
    pub output: String,
    pub inside: Arc<Mutex<Inside>>,
    pub disturb: Disturb,
    pub disturb_finish: DisturbFinish,
    /// Whether every tick is committed, as a heartbeat is.
    pub beats: bool,
}

pub struct Sum {
    summer: Summer,
    partition: u32,
    sum: u64,
    batch: Vec<u64>,
    rejected: Vec<String>,
    beat: bool,
}

impl StageLogic for Summer {
    type Partition = Sum;

    fn open(&mut self, partition: u32) -> Result<Sum, LogicError> {
        Ok(Sum {
            summer: self.clone(),
            partition,
            sum: 0,
            batch: Vec::new(),
            rejected: Vec::new(),
            beat: false,
        })
    }
}

impl PartitionLogic for Sum {
    fn restore(
        &mut self,
        _source: RestoreSource,
        key: &[u8],
        value: Option<&[u8]>,
        _timestamp_millis: i64,
    ) -> Result<(), LogicError> {
        match key {
            b"sum" => self.sum = text(value).parse().unwrap(),
            other => self
                .summer
                .inside
                .lock()
                .unwrap()
                .extra
                .push(text(Some(other))),
        }
        Ok(())
    }

    fn restored(&mut self, seq: u64) -> Result<(), LogicError> {
        let entry = (self.partition, seq, self.sum);
        self.summer.inside.lock().unwrap().restored.push(entry);
        Ok(())
    }

    fn begin(&mut self, _seq: u64, _now_millis: i64) {}

    fn process(&mut self, record: &InputRecord<'_>) -> Result<(), LogicError> {
        assert_eq!(record.headers.get("kind"), Some(&b"number"[..]));
        let number: u64 = text(record.value).parse().unwrap();
        (self.summer.disturb)(number)?;
        self.sum += number;
        self.batch.push(number);
        Ok(())
    }

    fn reject(&mut self, record: &InputRecord<'_>, _reason: &str) -> Result<(), LogicError> {
        self.rejected.push(text(record.value));
        Ok(())
    }

    fn unreadable(&mut self, _topic_index: usize, lost: &Unreadable) -> Result<(), LogicError> {
        let place = format!("{}@{}-{}", lost.topic, lost.from, lost.to);
        self.rejected.push(place);
        Ok(())
    }

    fn tick(&mut self, _now_millis: i64, inputs: &[InputProgress]) {
        self.beat = self.summer.beats;
        let is_complete = |input: &InputProgress| input.state == InputState::Complete;
        if inputs.iter().all(is_complete) {
            self.summer.inside.lock().unwrap().at_end.push(self.sum);
        }
    }

    fn clear_metrics(&self) {
        self.summer
            .inside
            .lock()
            .unwrap()
            .cleared
            .push(self.partition);
    }

    fn has_output(&self) -> bool {
        !self.batch.is_empty() || self.beat
    }

    fn finish(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        let output = self.summer.output.clone();
        for number in &self.batch {
            let value = number.to_string();
            outputs.send(&output, self.partition, None, Some(value.as_bytes()), &[])?;
        }
        for number in self.rejected.drain(..) {
            let topic = format!("{output}-rejected");
            outputs.send(&topic, 0, None, Some(number.as_bytes()), &[])?;
        }
        outputs.changelog(b"sum", Some(self.sum.to_string().as_bytes()))?;
        (self.summer.disturb_finish)(&self.batch, outputs)?;
        self.batch.clear();
        self.beat = false;
        Ok(())
    }
}

/// A stage with its topics `{name}-in`, `-state`, `-out`, `-out-rejected`.
#[derive(Clone)]
pub struct Stage {
    pub summer: Summer,
    pub config: StageConfig,
}

impl Stage {
    pub fn with_topics(name: &str, partitions: u32) -> Self {
        Self::create_topics(&kafka(), name, partitions);
        Self::existing(name, partitions)
    }

    pub fn create_topics(kafka: &KafkaConfig, name: &str, partitions: u32) {
        let compacted = [("cleanup.policy", "compact")];
        create_at(kafka, &format!("{name}-in"), partitions, &[]);
        create_at(kafka, &format!("{name}-also"), partitions, &[]);
        create_at(kafka, &format!("{name}-state"), partitions, &compacted);
        let small = [("max.message.bytes", "1000000")];
        create_at(kafka, &format!("{name}-out"), partitions, &small);
        create_at(kafka, &format!("{name}-out-rejected"), 1, &[]);
    }

    pub fn existing(name: &str, partitions: u32) -> Self {
        Self::existing_at(&kafka().brokers, name, partitions)
    }

    pub fn existing_at(brokers: &str, name: &str, partitions: u32) -> Self {
        let kafka = KafkaConfig::new(brokers, "test");
        let mut config = StageConfig::new(kafka, "summer", name, "i-0");
        config.inputs = vec![format!("{name}-in"), format!("{name}-also")];
        config.changelog = format!("{name}-state");
        config.outputs = vec![format!("{name}-out"), format!("{name}-out-rejected")];
        config.partitions = partitions;
        config.tick_every = Duration::from_millis(200);
        config.transaction_timeout = Duration::from_millis(1000);
        config.session_timeout = Duration::from_millis(1500);
        config.max_poll_interval = Duration::from_millis(2000);
        Self {
            summer: Summer {
                output: format!("{name}-out"),
                inside: Arc::default(),
                disturb: Arc::new(|_| Ok(())),
                disturb_finish: Arc::new(|_, _| Ok(())),
                beats: false,
            },
            config,
        }
    }

    pub fn run(&self) -> Running {
        let shutdown = Shutdown::new();
        let (config, mut summer, flag) =
            (self.config.clone(), self.summer.clone(), shutdown.clone());
        let inside = Arc::clone(&self.summer.inside);
        let thread = thread::spawn(move || {
            let observer = |event| inside.lock().unwrap().events.push(event);
            run_stage(&config, &mut summer, &flag, &observer)
        });
        Running { shutdown, thread }
    }

    pub fn has_event(&self, wanted: impl Fn(&StageEvent) -> bool) -> bool {
        self.summer.inside.lock().unwrap().events.iter().any(wanted)
    }

    pub fn is_running(&self) -> bool {
        self.has_event(|event| matches!(event, StageEvent::Running { .. }))
    }
}

pub struct Running {
    pub shutdown: Shutdown,
    pub thread: JoinHandle<Result<(), BusError>>,
}

impl Running {
    pub fn stop(self) -> Result<(), BusError> {
        self.shutdown.request();
        self.thread.join().unwrap()
    }
}
