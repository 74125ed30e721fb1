//! Records of a stage's input that no client can read: the alert about them.

use spendfuse_bus::Unreadable;
use spendfuse_domain::{Severity, UnixMillis};
use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind};

/// Tells people that these records were passed by.
pub fn alert(lost: &Unreadable, at: UnixMillis) -> Alert {
    Alert {
        v: 1,
        key: format!("unreadable|{}|{}|{}", lost.topic, lost.partition, lost.from),
        kind: AlertKind::UnreadableInput,
        severity: Severity::Critical,
        scope: "*".to_owned(),
        subject: format!("{} partition {}", lost.topic, lost.partition),
        message: format!("{lost}; they are not counted"),
        at,
        count: None,
        details: AlertDetails::default(),
    }
}
