//! The real hour: arrival times and token counts of production calls, as they were measured.

use std::time::Duration;

/// Calls of an assistant that writes code, and of one that talks.
const CODE: &str = include_str!("../../../data/azure_llm_2023_code.csv");
const CONVERSATION: &str = include_str!("../../../data/azure_llm_2023_conv.csv");

/// Which of the two services was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Service {
    Code,
    Conversation,
}

/// One call of the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealCall {
    /// Since the first call of the hour.
    pub at: Duration,
    /// Who was called.
    pub service: Service,
    /// Tokens in.
    pub context: u64,
    /// Tokens out.
    pub generated: u64,
}

/// All calls in the order of their arrival.
pub fn calls() -> Vec<RealCall> {
    let mut calls = Vec::with_capacity(30_000);
    for (service, text) in [(Service::Code, CODE), (Service::Conversation, CONVERSATION)] {
        let lines = text.lines().skip(1);
        calls.extend(lines.map(|line| {
            read(service, line).expect("the files in the binary are well-formed; a test reads them")
        }));
    }
    calls.sort_by_key(|call| call.at);
    let first = calls.first().map_or(Duration::ZERO, |call| call.at);
    for call in &mut calls {
        call.at -= first;
    }
    calls
}

/// `2023-11-16 18:17:03.9799600,4808,10`; `at` is the time of day.
fn read(service: Service, line: &str) -> Option<RealCall> {
    let mut fields = line.trim().split(',');
    let (_, time) = fields.next()?.split_once(' ')?;
    let mut parts = time.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let (seconds, fraction) = parts.next()?.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(RealCall {
        at: Duration::new((hours * 60 + minutes) * 60 + seconds, nanos),
        service,
        context: fields.next()?.parse().ok()?,
        generated: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hour_is_complete_and_in_order() {
        let calls = calls();
        assert_eq!(calls.len(), 28_185);
        assert!(calls.is_sorted_by_key(|call| call.at));
        let tokens: u64 = calls.iter().map(|call| call.context + call.generated).sum();
        assert_eq!(tokens, 18_059_974 + 245_896 + 22_361_870 + 4_088_665);
        let length = calls.last().unwrap().at.as_secs();
        assert!((3500..3700).contains(&length), "{length} s");
    }
}
