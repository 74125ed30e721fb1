//! The spool against crashes and full disks.

use tempfile::TempDir;

use super::*;

fn config(directory: &TempDir) -> SpoolConfig {
    SpoolConfig {
        directory: directory.path().join("spool"),
        max_bytes: 10_000,
        segment_bytes: 300,
    }
}

fn events(numbers: std::ops::Range<u32>) -> Vec<SpooledEvent> {
    let event = |number: u32| SpooledEvent {
        partition: number % 4,
        key: format!("s-{number}").into_bytes(),
        value: format!("{{\"id\":{number},\"fill\":\"{}\"}}", "x".repeat(50)).into_bytes(),
    };
    numbers.map(event).collect()
}

fn replay(spool: &mut Spool, at_most: usize) -> Vec<SpooledEvent> {
    let mut all = Vec::new();
    while !spool.is_empty() {
        all.extend(spool.next_batch(at_most).unwrap());
        spool.confirm().unwrap();
    }
    all
}

#[test]
fn events_come_out_in_order_over_segments_and_restarts() {
    let directory = TempDir::new().unwrap();
    let mut spool = Spool::open(config(&directory)).unwrap();
    for number in 0..20 {
        spool.append(&events(number..number + 1)).unwrap();
    }
    assert_eq!(spool.next_batch(3).unwrap(), events(0..3));
    assert_eq!(
        spool.next_batch(3).unwrap(),
        events(0..3),
        "not confirmed yet"
    );
    spool.confirm().unwrap();
    drop(spool);
    let mut spool = Spool::open(config(&directory)).unwrap();
    spool.append(&events(20..25)).unwrap();
    assert_eq!(replay(&mut spool, 2), events(3..25));
    drop(spool);
    assert!(Spool::open(config(&directory)).unwrap().is_empty());
}

#[test]
fn a_torn_tail_of_any_length_is_cut_and_what_was_promised_stays() {
    let whole = {
        let mut bytes = Vec::new();
        events(7..8)[0].write(&mut bytes);
        bytes
    };
    for torn in 0..whole.len() {
        let directory = TempDir::new().unwrap();
        let mut spool = Spool::open(config(&directory)).unwrap();
        spool.append(&events(0..2)).unwrap();
        let path = segment_path(&config(&directory).directory, spool.last().number);
        drop(spool);
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(&whole[..torn]).unwrap();
        if torn % 2 == 0 {
            file.write_all(&[0; 64]).unwrap();
        }
        let mut spool = Spool::open(config(&directory)).unwrap();
        spool.append(&events(2..3)).unwrap();
        assert_eq!(
            replay(&mut spool, 10),
            events(0..3),
            "torn after {torn} bytes"
        );
    }
}

#[test]
fn an_event_that_the_disk_did_not_keep_is_lost_alone() {
    let mut whole = Vec::new();
    events(0..1)[0].write(&mut whole);
    let frame = whole.len();
    // In its length, its checksum, its content; before the spool is opened, and while it is open.
    for (place, is_open) in [(2, false), (7, false), (20, false), (2, true), (20, true)] {
        let directory = TempDir::new().unwrap();
        let mut spool = Spool::open(config(&directory)).unwrap();
        spool.append(&events(0..4)).unwrap();
        let path = segment_path(&config(&directory).directory, spool.last().number);
        let mut bytes = fs::read(&path).unwrap();
        bytes[frame + place] ^= 0x40;
        let harm = || fs::write(&path, &bytes).unwrap();
        if is_open {
            harm();
        } else {
            drop(spool);
            harm();
            spool = Spool::open(config(&directory)).unwrap();
        }
        spool.append(&events(4..5)).unwrap();
        let expected = [events(0..1), events(2..5)].concat();
        let mut waiting = Vec::new();
        spool.each_waiting(|event| waiting.push(event)).unwrap();
        assert_eq!(waiting, expected, "{place}");
        assert_eq!(replay(&mut spool, 10), expected, "{place}");
    }
}

#[test]
fn nothing_readable_at_all_ends_the_replay_and_not_the_sidecar() {
    let directory = TempDir::new().unwrap();
    let mut spool = Spool::open(config(&directory)).unwrap();
    spool.append(&events(0..2)).unwrap();
    let path = segment_path(&config(&directory).directory, spool.last().number);
    let length = fs::read(&path).unwrap().len();
    fs::write(&path, vec![0xff; length]).unwrap();
    assert!(replay(&mut spool, 10).is_empty());
    fs::write(config(&directory).directory.join("position"), [0xff; 8]).unwrap();
    drop(spool);
    let mut spool = Spool::open(config(&directory)).unwrap();
    spool.append(&events(2..3)).unwrap();
    assert_eq!(replay(&mut spool, 10), events(2..3));
}

#[test]
fn a_file_that_has_become_shorter_ends_with_what_is_left() {
    for kept in [0, 1] {
        let directory = TempDir::new().unwrap();
        let mut spool = Spool::open(config(&directory)).unwrap();
        let mut whole = Vec::new();
        events(0..1)[0].write(&mut whole);
        // The first segment is full with these.
        spool.append(&events(0..4)).unwrap();
        let path = segment_path(&config(&directory).directory, spool.last().number);
        spool.append(&events(4..5)).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(whole.len() as u64 * kept).unwrap();
        let mut sent = Vec::new();
        for _ in 0..10 {
            sent.extend(spool.next_batch(10).unwrap());
            spool.confirm().unwrap();
        }
        let expected = [events(0..u32::try_from(kept).unwrap()), events(4..5)].concat();
        assert_eq!(sent, expected, "{kept}");
        assert!(spool.is_empty());
    }
}

#[test]
fn an_event_behind_more_damage_than_is_read_at_once_is_sent() {
    let directory = TempDir::new().unwrap();
    let config = SpoolConfig {
        max_bytes: 100_000_000,
        segment_bytes: 100_000_000,
        ..config(&directory)
    };
    drop(Spool::open(config.clone()).unwrap());
    // The event begins in what is read at once, and ends behind it.
    let mut bytes = vec![0xff; usize::try_from(MAX_READ_BYTES).unwrap() - 20];
    events(0..1)[0].write(&mut bytes);
    let numbers = segment_numbers(&config.directory).unwrap();
    fs::write(segment_path(&config.directory, numbers[0]), &bytes).unwrap();
    let mut spool = Spool::open(config).unwrap();
    assert_eq!(replay(&mut spool, 10), events(0..1));
}

#[test]
fn a_full_spool_takes_nothing_until_the_broker_has_taken_something() {
    let directory = TempDir::new().unwrap();
    let mut spool = Spool::open(config(&directory)).unwrap();
    let mut taken = 0;
    let full = loop {
        match spool.append(&events(taken..taken + 1)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SpoolError::Full { held, .. } if held <= 10_000));
    assert!(spool.append(&events(0..2)).is_err());
    assert_eq!(spool.next_batch(5).unwrap(), events(0..4), "one segment");
    spool.confirm().unwrap();
    spool.append(&events(taken..taken + 1)).unwrap();
    assert_eq!(replay(&mut spool, 7), events(4..taken + 1));
}

#[test]
fn a_disk_that_fails_in_the_middle_leaves_no_half_event() {
    let directory = TempDir::new().unwrap();
    let mut spool = Spool::open(config(&directory)).unwrap();
    spool.append(&events(0..1)).unwrap();
    let path = segment_path(&config(&directory).directory, spool.last().number);
    // A handle that cannot be written to stands for the disk that fails.
    let healthy = spool.writer.replace(File::open(&path).unwrap());
    assert!(matches!(
        spool.append(&events(1..2)),
        Err(SpoolError::Io { .. })
    ));
    spool.writer = healthy;
    spool.append(&events(2..3)).unwrap();
    assert_eq!(
        replay(&mut spool, 10),
        [events(0..1), events(2..3)].concat()
    );
}

#[test]
fn a_spool_that_found_the_disk_full_takes_events_once_there_is_room() {
    let directory = TempDir::new().unwrap();
    let mut spool = Spool::open(config(&directory)).unwrap();
    spool.append(&events(0..2)).unwrap();
    drop(spool);
    let mut spool = Spool::open(config(&directory)).unwrap();
    // As `open` leaves it on a full disk.
    fs::remove_file(segment_path(
        &config(&directory).directory,
        spool.last().number,
    ))
    .unwrap();
    spool.writer = None;
    spool.append(&events(2..3)).unwrap();
    assert_eq!(replay(&mut spool, 10), events(0..3));
}

#[test]
fn two_processes_cannot_share_a_spool() {
    let directory = TempDir::new().unwrap();
    let _first = Spool::open(config(&directory)).unwrap();
    assert!(Spool::open(config(&directory)).is_err());
}

#[test]
fn the_spool_is_its_owners_alone_also_one_that_was_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let outside = TempDir::new().unwrap();
    let directory = config(&outside).directory;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let assert_private = || {
        assert_eq!(mode(&directory), 0o700);
        let mut files = 0;
        for file in fs::read_dir(&directory).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            files += 1;
        }
        assert!(files >= 3, "lock, position and a segment");
    };
    let mut spool = Spool::open(config(&outside)).unwrap();
    spool.append(&events(0..2)).unwrap();
    spool.next_batch(1).unwrap();
    spool.confirm().unwrap();
    assert_private();
    drop(spool);
    for file in fs::read_dir(&directory).unwrap() {
        fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let mut spool = Spool::open(config(&outside)).unwrap();
    spool.next_batch(1).unwrap();
    spool.confirm().unwrap();
    assert_private();
}
