//! Records that are written, read and refused.

use super::*;

fn record(customer: &str, cost: &str) -> CorrectionRecord {
    let event = format!(
        r#"{{"specversion":"1.0","type":"spendfuse.usage","source":"app","id":"r-1","time":"2026-11-22T10:15:30.123Z","data":{{"workspace":"acme","customer":"{customer}","model":"gpt-4o","usage":{{"input_tokens":5}}}}}}"#
    );
    let standing = StandingRecord {
        event: RawValue::from_string(event).unwrap(),
        flags: vec!["backfilled".to_owned()],
        cost: CostRecord {
            input: Nanos::parse_usd(cost).unwrap().amount,
            ..CostRecord::default()
        },
        priced: "book".to_owned(),
        price_version: "2026-11-01".to_owned(),
        priced_as: String::new(),
    };
    let mut record = CorrectionRecord {
        v: 1,
        id: String::new(),
        job: String::new(),
        entry: "1/3/77/0".parse().unwrap(),
        number: 1,
        received_at: UnixMillis::parse_rfc3339("2026-11-22T10:15:31Z").unwrap(),
        budget_version: 4,
        judged_at: UnixMillis::parse_rfc3339("2026-11-23T00:00:00Z").unwrap(),
        by: "alice".to_owned(),
        reason: "sent twice".to_owned(),
        before: Some(standing),
        after: None,
    };
    record.id = record.derived_id();
    record
}

fn parse(record: &CorrectionRecord) -> Result<CorrectionRecord, CorrectionError> {
    CorrectionRecord::parse(&serde_json::to_vec(record).unwrap())
}

#[test]
fn what_is_written_is_read_and_has_its_id_from_what_it_does() {
    let one = record("c-1", "0.5");
    let read = parse(&one).unwrap();
    let stands = read
        .before
        .as_ref()
        .unwrap()
        .read(read.received_at)
        .unwrap();
    assert!(stands.event.flags.contains(Flags::BACKFILLED));
    assert_eq!(&*stands.event.attribution.customer, "c-1");
    let again = StandingRecord::of(&stands);
    assert_eq!(again.cost, one.before.as_ref().unwrap().cost);
    let elsewhere = CorrectionRecord {
        by: "bob".to_owned(),
        ..one.clone()
    };
    assert_eq!(elsewhere.derived_id(), one.id);
    assert_ne!(record("c-2", "0.5").id, one.id);
    assert_eq!(record("c-2", "0.5").identity(), one.identity());
    assert_ne!(record("c-2", "0.5").content(), one.content());
}

#[test]
fn what_contradicts_itself_is_refused() {
    let good = record("c-1", "0.5");
    let mut other = good.clone();
    other.reason = String::new();
    assert!(parse(&other).is_err());
    other = good.clone();
    other.number = 2;
    assert!(parse(&other).is_err(), "its id is of number 1");
    other = record("c-1", "-0.5");
    assert!(parse(&other).is_err());
    other = good.clone();
    other.before = None;
    other.id = other.derived_id();
    assert!(parse(&other).is_err());
    other = good.clone();
    other.after = other.before.clone();
    let moved = other.after.as_mut().unwrap();
    let text = moved.event.get().replace("acme", "globex");
    moved.event = RawValue::from_string(text).unwrap();
    other.id = other.derived_id();
    let error = parse(&other).unwrap_err().to_string();
    assert!(error.contains("cannot be corrected"), "{error}");
    assert!("1/2/3".parse::<EntryPlace>().is_err());
}

#[test]
fn a_rerating_changes_the_price_alone_and_has_its_id_from_job_entry_and_book() {
    let rerated = |cost: &str, book: &str, job: &str| {
        let mut one = record("c-1", cost);
        one.before = record("c-1", "0.5").before;
        one.after = record("c-1", cost).before;
        one.after.as_mut().unwrap().price_version = book.to_owned();
        one.job = job.to_owned();
        one.id = one.derived_id();
        one
    };
    let one = rerated("0.2", "2026-12-01", "prices-of-may");
    assert!(parse(&one).unwrap().is_rerate());
    assert_eq!(one.says(), "alice: sent twice (job prices-of-may)");
    assert_eq!(one.id, rerate_id(&one.job, one.entry, "2026-12-01"));
    assert_eq!(rerated("0.3", "2026-12-01", &one.job).id, one.id);
    assert_ne!(rerated("0.2", "2026-12-02", &one.job).id, one.id);
    assert_ne!(rerated("0.2", "2026-12-01", "another").id, one.id);

    let mut other = one.clone();
    other.after = record("c-2", "0.2").before;
    other.id = other.derived_id();
    let error = parse(&other).unwrap_err().to_string();
    assert!(error.contains("nothing but the price"), "{error}");
    other = one.clone();
    other.after = None;
    other.id = other.derived_id();
    assert!(parse(&other).unwrap_err().to_string().contains("voids"));
    let long = rerated("0.2", "2026-12-01", &"j".repeat(MAX_JOB_BYTES + 1));
    assert!(parse(&long).is_err());
}
