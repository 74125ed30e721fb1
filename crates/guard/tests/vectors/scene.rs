//! A guard whose pages and decisions are written down.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use spendfuse_domain::scope::Dimension;
use spendfuse_domain::{Attribution, UnixMillis};
use spendfuse_guard::{CheckRequest, ColdStart, Guard, GuardConfig, GuardWriter, Now};

/// When the first page is answered.
const TIME: &str = "2026-11-22T10:15:30Z";
pub const END_OF_DAY: &str = "2026-11-23T05:00:00Z";

/// A guard whose pages and decisions are written down.
pub struct Scene {
    pub name: &'static str,
    pub writer: GuardWriter,
    guard: Guard,
    cold_start: ColdStart,
    /// Milliseconds since [`TIME`].
    pub clock: i64,
    pub record: u64,
    cursor: Option<String>,
    pub imposed: BTreeMap<String, String>,
    steps: Vec<Value>,
}

fn time() -> UnixMillis {
    UnixMillis::parse_rfc3339(TIME).unwrap()
}

pub fn millis_to(later: &str) -> i64 {
    UnixMillis::parse_rfc3339(later).unwrap().since(time())
}

impl Scene {
    pub fn new(name: &'static str) -> Self {
        Self::cold(name, ColdStart::Allow).live()
    }

    pub fn cold(name: &'static str, cold_start: ColdStart) -> Self {
        let (writer, guard) = Guard::new(GuardConfig {
            cold_start,
            ..GuardConfig::new(1)
        });
        Self {
            name,
            writer,
            guard,
            cold_start,
            clock: 0,
            record: 0,
            cursor: None,
            imposed: BTreeMap::new(),
            steps: Vec::new(),
        }
    }

    pub fn live(mut self) -> Self {
        self.writer.caught_up();
        self.beat();
        self
    }

    pub fn now(&self) -> Now {
        Now {
            wall: time().plus(self.clock),
            monotonic_millis: self.clock,
        }
    }

    /// How old the state is, milliseconds.
    pub fn age(&self) -> i64 {
        let state = self.guard.state(self.clock);
        state.age_millis.unwrap().cast_signed()
    }

    /// Every stage has counted everything until now. What a meter says is taken once all have said
    /// more later.
    pub fn beat(&mut self) {
        for before in [60, 40, 20, 0] {
            let now = self.now();
            let at = Now {
                wall: now.wall.plus(-before),
                monotonic_millis: now.monotonic_millis - before,
            };
            for stage in ["meter", "ledger"] {
                let beat = json!({"v": 1, "partition": 0, "complete_to": at.wall, "lag_ms": 0, "version": 1});
                let key = format!("heartbeat|{stage}|0");
                let beat = serde_json::to_vec(&beat).unwrap();
                let applied = self.writer.apply(&key, Some(&beat), at.wall, at);
                applied.unwrap();
            }
        }
        let wall = self.now().wall;
        self.writer.publish(wall);
    }

    pub fn budget(&mut self, id: &str, scope: Value, changes: Value) {
        let mut record = json!({
            "v": 1, "scope": scope, "limit": "5.00", "window": "day",
            "timezone": "America/New_York", "counted_from": "2026-11-01T00:00:00Z",
            "steps": [{"at": 80, "do": "warn"}, {"at": 100, "do": "block"}],
        });
        for (field, value) in changes.as_object().unwrap() {
            record[field] = value.clone();
        }
        if changes.get("limit_tokens").is_some() {
            record.as_object_mut().unwrap().remove("limit");
        }
        self.record += 1;
        let value = serde_json::to_vec(&record).unwrap();
        let applied = self.writer.apply_budget(id, Some(&value), self.record);
        applied.unwrap();
    }

    /// What a scope has spent of its limit.
    pub fn entry(&mut self, budget: &str, scope: &str, spent: &str, changes: Value) {
        let mut entry = json!({
            "v": 1, "budget": budget, "scope": scope, "where": null, "verdict": "ok",
            "action": "block", "spent_usd": spent, "limit_usd": "5.00", "percent": 1.0,
            "window": "day:2026-11-22", "window_start": "2026-11-22T05:00:00Z",
            "resets_at": END_OF_DAY, "expires_at": END_OF_DAY,
            "counted_from": "2026-11-22T05:00:00Z", "downgrade_to": null, "version": 1,
            "decided_at": TIME, "caused_by": null,
        });
        for (field, value) in changes.as_object().unwrap() {
            entry[field] = value.clone();
        }
        if changes.get("spent_tokens").is_some()
            || changes["limit_usd"].is_null() && changes.get("limit_usd").is_some()
        {
            let members = entry.as_object_mut().unwrap();
            members.remove("limit_usd");
            if changes.get("spent_tokens").is_some() {
                members.remove("spent_usd");
            }
        }
        self.put(&format!("{budget}|{scope}"), Some(&entry));
    }

    /// A scope that has spent its five dollars, and a little.
    pub fn blocked(&mut self, budget: &str, scope: &str) {
        self.entry(budget, scope, "5.01", json!({"verdict": "block"}));
    }

    /// Five dollars a day for each customer.
    pub fn customers(&mut self, changes: Value) {
        let scope = json!({"workspace": "acme", "customer": "*"});
        self.budget("by-customer", scope, changes);
    }

    /// What a customer has spent of them.
    pub fn customer(&mut self, name: &str, spent: &str, changes: Value) {
        let scope = format!("acme/customer={name}");
        self.entry("by-customer", &scope, spent, changes);
    }

    pub fn put(&mut self, key: &str, entry: Option<&Value>) {
        let entry = entry.map(|entry| serde_json::to_vec(entry).unwrap());
        let now = self.now();
        let applied = self.writer.apply(key, entry.as_deref(), now.wall, now);
        applied.unwrap();
    }

    /// A detector stops a session for ten minutes.
    pub fn stopped(&mut self, scope: &str) {
        let until = "2026-11-22T10:25:30Z";
        let entry = json!({
            "v": 1, "budget": "loops", "scope": scope, "where": null, "verdict": "block",
            "action": "block_session", "spent_usd": "0.00", "percent": null,
            "window": "cooldown:retry_loop", "window_start": TIME, "resets_at": until,
            "expires_at": until, "counted_from": TIME, "downgrade_to": null, "version": 3,
            "decided_at": TIME, "caused_by": null,
        });
        self.put(&format!("finding|retry_loop|{scope}"), Some(&entry));
    }

    /// What a follower gets that asks now; `false` where it must begin again.
    pub fn page(&mut self) -> bool {
        let now = self.now();
        self.writer.publish(now.wall);
        let state = self.guard.state(now.monotonic_millis);
        let Ok(page) = self
            .guard
            .standings(self.cursor.as_deref(), usize::MAX / 8, now.wall)
        else {
            self.cursor = None;
            return false;
        };
        self.cursor = Some(page.cursor.clone());
        let mut page = serde_json::to_value(&page).unwrap();
        let told = json!({
            "state": state.state.name(), "state_age_ms": state.age_millis,
            "complete_to": state.complete_to, "stale_after_ms": 10_000, "time": now.wall,
            "cold_start": if self.cold_start == ColdStart::Block { "block" } else { "allow" },
            "waited_ms": 0, "workspace": "acme", "imposed": self.imposed, "cursor": "c",
        });
        let members = page.as_object_mut().unwrap();
        members.extend(told.as_object().unwrap().clone());
        // The guard's own order changes from run to run.
        let entries = members["entries"].as_array_mut().unwrap();
        entries.sort_by_key(|entry| entry["key"].to_string());
        self.steps.push(json!({"at_ms": self.clock, "page": page}));
        true
    }

    /// What the guard says of a call now, in the follower's words.
    pub fn call(&mut self, call: Value) {
        let mut who = json!({"workspace": "acme"});
        let members = who.as_object_mut().unwrap();
        members.extend(call.as_object().unwrap().clone());
        for (name, value) in &self.imposed {
            members.insert(name.clone(), json!(value));
        }
        let answer = {
            let request = CheckRequest {
                attribution: attribution(members),
                ..CheckRequest::default()
            };
            let reasoned = self.guard.check_with_reasons(&request, self.now());
            serde_json::to_value(reasoned.explain()).unwrap()
        };
        let lines = answer["budgets"].as_array().unwrap().iter();
        let lines = lines.filter(|line| line["verdict"] != "ok");
        let line = |line: &Value| {
            let names = [
                "budget",
                "scope",
                "verdict",
                "window",
                "resets_at",
                "message",
            ];
            let members = names.map(|name| (name.to_owned(), line[name].clone()));
            Value::Object(members.into_iter().collect())
        };
        self.steps.push(json!({
            "at_ms": self.clock, "call": call, "decision": answer["decision"],
            "downgrade_to": answer["downgrade_to"], "budgets": lines.map(line).collect::<Vec<_>>(),
            "retry_after_seconds": answer["retry_after_seconds"], "state": answer["state"],
        }));
    }

    pub fn written(self) -> Value {
        json!({"name": self.name, "steps": self.steps})
    }
}

fn attribution(who: &Map<String, Value>) -> Attribution<'_> {
    let mut read = Attribution::default();
    for (name, value) in who {
        if name == "tags" {
            for (tag, value) in value.as_object().unwrap() {
                read.tags
                    .push((tag.as_str().into(), value.as_str().unwrap().into()));
            }
            continue;
        }
        let dimension = Dimension::from_name(name).unwrap();
        let Ok(fixed) = dimension.fixed() else {
            panic!("{name}");
        };
        *read.text_mut(fixed) = value.as_str().unwrap().into();
    }
    read
}
