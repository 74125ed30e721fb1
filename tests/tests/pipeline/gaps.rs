//! What retention removed before it was counted or loaded: its partition stops, the others go on, one
//! command accepts it, and it is on record for ever.

use serde_json::Value;
use spendfuse_bus::committed_offsets;
use spendfuse_tests::load::Sender;
use spendfuse_tests::traffic::Record;
use spendfuse_tests::{Lab, Load, PATIENCE, Traffic, eventually};

#[test]
fn lost_input_stops_one_partition_until_it_is_accepted_and_the_audit_names_it() {
    let lab = Lab::new("gaps");
    let mut traffic = Traffic::new(&lab, 12);
    let sender = Sender::new(&lab);
    let mut send = |count: usize| {
        for _ in 0..count {
            sender.send(&traffic.good());
        }
        sender.flush();
        traffic.expected().clone()
    };
    let mut processor = lab.processor("1");
    let mut loader = lab.loader();
    lab.settle(&send(200), PATIENCE);
    processor.stop();
    loader.stop();

    // While nobody counts, records come to one partition and are gone before anybody is back.
    let usage = lab.topic("usage");
    let rows = lab.topic("rows");
    for number in 0..20 {
        sender.send(&Record {
            partition: Some(2),
            key: None,
            value: format!("lost {number}").into_bytes(),
        });
    }
    sender.flush();
    lab.delete_records(&usage, 2);
    let expected = send(200);
    processor.restart();
    let command = format!("spendfuse gaps accept --topic {usage} --partition 2");
    processor.await_line(&command, PATIENCE);
    loader.restart();
    let rows_of = |partitions: &str| {
        let count = format!("SELECT count() FROM spend WHERE meter_partition {partitions}");
        lab.warehouse().numbers(&count).unwrap_or_default()
    };
    let (stopped, others) = (rows_of("= 2"), rows_of("!= 2"));
    eventually("the other partitions go on", PATIENCE, || {
        match rows_of("!= 2") > others {
            true => Ok(()),
            false => Err(lab.run(&["gaps", "list"]).stdout),
        }
    });
    assert_eq!(rows_of("= 2"), stopped);

    let listed = lab.run(&["gaps", "list", "--json"]);
    assert_eq!(listed.code, Some(1), "{listed:?}");
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed["open"][0]["topic"], usage.as_str(), "{listed}");
    assert_eq!(
        listed["accepted"].as_array().map(Vec::len),
        Some(0),
        "{listed}"
    );
    let accept_nothing = ["gaps", "accept", "--topic", &usage, "--partition", "1"];
    let named: [&[&str]; 2] = [&[], &["--to", "5"]];
    for named in named {
        let refused = lab.run(&[&accept_nothing[..], named].concat());
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("nothing of"), "{refused:?}");
    }

    lab.must(&["gaps", "accept", "--topic", &usage, "--partition", "2"]);
    let noted = spendfuse_tests::Expected {
        rejected: 1,
        ..expected
    };
    lab.settle(&noted, PATIENCE);
    // The same for rows that nobody has loaded.
    loader.stop();
    let before = rows_of("= 2");
    let blocks = |lab: &Lab| {
        let blocks = lab.read("rows").into_iter();
        blocks.filter(|block| block.partition == 2).count()
    };
    let known = blocks(&lab);
    send(200);
    eventually("rows to lose", PATIENCE, || match blocks(&lab) > known {
        true => Ok(()),
        false => Err(processor.log()),
    });
    lab.delete_records(&rows, 2);
    loader.restart();
    let line = loader.await_line("spendfuse gaps accept", PATIENCE);
    let (_, to) = line.rsplit_once("--to ").expect("where it goes on");
    let to: String = to.chars().take_while(char::is_ascii_digit).collect();
    let accept = [
        "gaps",
        "accept",
        "--topic",
        &rows,
        "--partition",
        "2",
        "--to",
        &to,
    ];
    lab.must(&accept);
    loader.await_line("goes on behind what was accepted", PATIENCE);
    assert_eq!(rows_of("= 2"), before);
    send(200);
    eventually("what comes later", PATIENCE, || {
        match rows_of("= 2") > before {
            true => Ok(()),
            false => Err(loader.log()),
        }
    });

    assert_eq!(lab.run(&["gaps", "list"]).code, Some(0));
    let audit = lab.run(&["audit", "--json"]);
    let audit: Value = serde_json::from_str(&audit.stdout).expect("JSON");
    let gaps = audit["accepted_gaps"].as_array().expect("a list");
    let names: Vec<&str> = gaps
        .iter()
        .filter_map(|gap| gap["topic"].as_str())
        .collect();
    assert_eq!(names, [rows.as_str(), usage.as_str()], "{audit}");
}

/// What stops partitions is known to Kafka alone.
#[test]
fn what_is_lost_is_shown_while_clickhouse_is_away() {
    let lab = Lab::new("gaps_alone");
    let (mut traffic, sender) = (Traffic::new(&lab, 13), Sender::new(&lab));
    let usage = lab.topic("usage");
    let mut send = || {
        let record = traffic.good();
        sender.send(&Record {
            partition: Some(1),
            ..record
        });
        sender.flush();
    };
    send();
    let processor = lab.processor("1");
    let group = "gaps_alone-meter";
    eventually("the position is committed", PATIENCE, || {
        let committed = committed_offsets(&lab.kafka_config(), group, &usage, PATIENCE);
        match committed.map_err(|error| error.to_string())?[1] {
            Some(1..) => Ok(()),
            other => Err(format!("{other:?}\n{}", processor.log())),
        }
    });
    processor.stop();
    send();
    lab.delete_records(&usage, 1);

    let nowhere = "http://127.0.0.1:1";
    let list = |is_json: bool| {
        let mut all = vec!["gaps".to_owned(), "list".to_owned()];
        all.extend(is_json.then(|| "--json".to_owned()));
        all.extend(lab.setting_arguments());
        all.extend(["--set".to_owned(), format!("clickhouse.url={nowhere}")]);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let said = lab.run_alone(&all);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(nowhere), "{said:?}");
        said.stdout
    };
    let shown = list(false);
    for part in [usage.as_str(), "no: the partition is stopped"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let listed: Value = serde_json::from_str(&list(true)).expect("JSON");
    assert_eq!(listed["open"][0]["topic"], usage.as_str(), "{listed}");
    assert_eq!(listed["open"][0]["partition"], 1, "{listed}");
    assert_eq!(listed["accepted"], Value::Null, "{listed}");
}

/// Only a loader knows what stops it at rows that are there: whoever names an offset to one that goes on
/// is told so, and it loads all.
#[test]
fn a_partition_that_is_loaded_cannot_be_passed_by() {
    let lab = Lab::new("gaps_loading");
    let _processor = lab.processor("1");
    let loader = lab.loader();
    let rows = lab.topic("rows");
    let load = Load::start(&lab, Traffic::new(&lab, 14), 400, 2_400);
    load.await_sent(400);
    let accept = [
        "gaps",
        "accept",
        "--topic",
        &rows,
        "--partition",
        "2",
        "--to",
        "1",
    ];
    // At a moment at which everything is loaded nobody can tell a partition that goes on.
    eventually("it is refused", PATIENCE, || {
        let said = lab.run(&accept);
        match said.code == Some(1) && said.stderr.contains("is not stopped") {
            true => Ok(()),
            false => Err(format!("{said:?}\n{}", loader.log())),
        }
    });
    lab.settle(&load.finish(), PATIENCE);
}
