//! An installation and its life, day by day.
//!
//! [`incidents`] plans and carries out what happens, [`desk`] corrects what was counted, [`work`] lets
//! everybody do theirs meanwhile, and [`look`] compares the books.

mod changes;
mod desk;
mod incidents;
mod look;
mod recover;
mod topic_set;
mod work;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::calendar::{self, DAY};
use crate::cluster::Cluster;
use crate::corrections::Correction;
use crate::growth::Growth;
use crate::loader::Lane;
use crate::openings::OpeningTeller;
use crate::process::{HORIZON, Processor};
use crate::random::Random;
use crate::reference::Reference;
use crate::sidecar::Sidecar;
use crate::traffic::{Told, Traffic};
use crate::warehouse::Warehouse;
use topic_set::TopicSet;

const SIDECARS: usize = 2;
const LOADER_GROUP: &str = "spendfuse-loader";
/// 2026-12-20, midnight UTC.
const BEGIN: i64 = 1_797_724_800_000;

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    Told(Told),
    /// Somebody makes a correction.
    Correct,
    CorrectionComesAgain(Rc<Correction>),
    Budgets,
    Prices,
    ProcessorGoes {
        back_at: i64,
    },
    ProcessorComes,
    /// For longer than its input is kept.
    ProcessorIsGoneForLong {
        back_at: i64,
    },
    ProcessorComesTooLate,
    BudgetIsUnreadable,
    TopicsChange,
    KafkaIsLost,
    LoaderGoes {
        back_at: i64,
    },
    LoaderComes,
    SidecarRestarts(usize),
    SidecarCutOff {
        which: usize,
        back_at: i64,
    },
    SidecarComes(usize),
    Look,
}

/// What went wrong, where it can be found again.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The seed of the year.
    pub seed: u64,
    /// The day, from 0.
    pub day: u32,
    /// The time.
    pub at: String,
    /// What went wrong, in words.
    pub what: String,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            seed,
            day,
            at,
            what,
        } = self;
        write!(formatter, "seed {seed}, day {day}, {at}: {what}")
    }
}

/// How a year went.
#[derive(Debug, Default)]
pub struct Year {
    /// Days that were lived.
    pub days: u32,
    /// Calls that were counted.
    pub calls: u64,
    /// Corrections that were made.
    pub corrections: u64,
    /// Records that told ledgers what was spent before a count.
    pub openings: u64,
    /// Identities that the meters of new topics learned from the warehouse.
    pub recovered: u64,
    /// Workers and loaders that died in the middle of something.
    pub deaths: u64,
    /// Looks at the books.
    pub looks: u32,
    /// Verdicts that were compared.
    pub verdicts: u64,
    /// How large everything was.
    pub growth: Growth,
}

pub(crate) struct World {
    seed: u64,
    random: Random,
    cluster: Cluster,
    set: TopicSet,
    processor: Processor,
    lanes: Vec<Lane>,
    openings: OpeningTeller,
    is_loading: bool,
    sidecars: Vec<Sidecar>,
    warehouse: Warehouse,
    reference: Reference,
    traffic: Traffic,
    agenda: BTreeMap<(i64, u64), Happening>,
    happenings: u64,
    /// Offset up to which the DLQ was looked at, by partition.
    looked_at_dlq: Vec<i64>,
    /// When the books were looked at last: what was counted before was seen.
    looked_at: Option<i64>,
    /// The call that was corrected last.
    corrected_last: String,
    budgets_drawn: usize,
    year: Year,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let set = TopicSet::new(0, "spendfuse", 2);
        let mut cluster = Cluster::new(BEGIN);
        cluster.create(&set.topics, set.partitions, HORIZON);
        Self {
            seed,
            traffic: Traffic::new(Random::new(seed ^ 0xabcd)),
            lanes: set.lanes(),
            openings: set.openings(),
            is_loading: false,
            sidecars: set.sidecars(),
            processor: set.processor(),
            warehouse: Warehouse::default(),
            reference: Reference::default(),
            agenda: BTreeMap::new(),
            happenings: random.below(2) as u64,
            looked_at_dlq: vec![0; set.partitions as usize],
            looked_at: None,
            corrected_last: String::new(),
            budgets_drawn: 0,
            year: Year::default(),
            random,
            cluster,
            set,
        }
    }

    /// Lives so many days.
    pub(crate) fn live(mut self, days: u32) -> Result<Year, Box<Trouble>> {
        self.first_day().map_err(|what| self.trouble(0, what))?;
        for day in 0..days {
            self.day(day).map_err(|what| self.trouble(day, what))?;
            self.year.days += 1;
        }
        let growing = self.year.growth.growing();
        if !growing.is_empty() {
            return Err(self.trouble(days, format!("grows without end: {}", growing.join("; "))));
        }
        self.year.calls = self.reference.counted;
        Ok(self.year)
    }

    fn trouble(&self, day: u32, what: String) -> Box<Trouble> {
        Box::new(Trouble {
            seed: self.seed,
            day,
            at: calendar::text(self.cluster.now),
            what,
        })
    }

    fn first_day(&mut self) -> Result<(), String> {
        self.change_prices();
        self.processor.start(&mut self.cluster)?;
        self.start_loader()?;
        self.sidecars
            .iter_mut()
            .for_each(|one| one.start(&self.cluster));
        let budgets = (0..6).map(|_| self.new_budget()).collect();
        self.settle()?;
        self.apply(budgets)
    }

    fn day(&mut self, day: u32) -> Result<(), String> {
        let begin = BEGIN + i64::from(day) * DAY;
        let told = self.traffic.day(i64::from(day), begin);
        if !told.is_empty() {
            self.plan_corrections(begin);
        }
        for (at, told) in told {
            self.plan(at, Happening::Told(told));
        }
        self.plan_incidents(begin);
        let look_at = begin + self.random.between(0, DAY);
        self.plan(look_at, Happening::Look);
        while let Some(((at, _), next)) = self.pop_before(begin + DAY) {
            self.pass_time(at)?;
            self.happen(next)?;
        }
        self.pass_time(begin + DAY)?;
        let sizes = self.sizes();
        self.year.growth.note(day, sizes);
        Ok(())
    }

    fn plan(&mut self, at: i64, what: Happening) {
        self.happenings += 1;
        self.agenda.insert((at, self.happenings), what);
    }

    fn pop_before(&mut self, end: i64) -> Option<((i64, u64), Happening)> {
        let ((at, _), _) = self.agenda.first_key_value()?;
        if *at >= end {
            return None;
        }
        self.agenda.pop_first()
    }
}
