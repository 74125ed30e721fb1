//! Of several entries of one call the one that stands, and what it takes over from the others.

use spendfuse_domain::correction::EntryPlace;
use spendfuse_domain::event::{Flags, MAX_TAGS};
use spendfuse_domain::growth::{Growth, ToldCall, Who};
use spendfuse_domain::{Attribution, UnixMillis};

use super::super::entry::Standing;

/// An entry of the call that is not void.
pub struct Candidate {
    pub place: EntryPlace,
    pub received_at: UnixMillis,
    pub standing: Standing,
}

/// The place of the one that stands: an entry of an older epoch, which nobody can correct any more;
/// else one of a session; of several the one that came first.
pub fn stands(candidates: &[Candidate], epoch: u32) -> Option<usize> {
    let order = |at: &usize| {
        let one = &candidates[*at];
        let session = &one.standing.event.attribution.session;
        let is_here = one.place.epoch == epoch;
        (is_here, session.is_empty(), one.received_at, one.place)
    };
    (0..candidates.len()).min_by_key(order)
}

/// What stands, with what only others tell: dimensions and tags that it lacks, and larger counts, or
/// measured ones where it has an estimate. `None` where they tell nothing more.
pub fn enriched<'a>(
    stands: &Standing,
    others: impl Iterator<Item = &'a Standing>,
    told_again: impl Iterator<Item = &'a Attribution<'static>>,
) -> Option<Standing> {
    let mut enriched = stands.clone();
    for other in others {
        take_dimensions(&mut enriched.event.attribution, &other.event.attribution);
        take_counts(&mut enriched, other);
    }
    for other in told_again {
        take_dimensions(&mut enriched.event.attribution, other);
    }
    let is_same = enriched.event.attribution == stands.event.attribution
        && enriched.event.flags == stands.event.flags
        && enriched.event.body == stands.event.body;
    (!is_same).then_some(enriched)
}

fn take_dimensions(mine: &mut Attribution<'static>, theirs: &Attribution<'static>) {
    for dimension in Who::TAKEN_OVER {
        let value = mine.text_mut(dimension);
        if value.is_empty() {
            *value = theirs.texts()[dimension as usize].clone();
        }
    }
    for tag in &theirs.tags {
        let is_known = mine.tags.iter().any(|(name, _)| *name == tag.0);
        if !is_known && mine.tags.len() < MAX_TAGS {
            mine.tags.push(tag.clone());
        }
    }
    mine.tags.sort();
}

fn take_counts(stands: &mut Standing, other: &Standing) {
    if growth(stands, other) != Growth::More {
        return;
    }
    stands.event.body = other.event.body.clone();
    stands.event.flags = other.event.flags;
    stands.cost = other.cost;
    stands.at_ceiling = other.at_ceiling;
    stands.priced = other.priced;
    stands.price_version.clone_from(&other.price_version);
    stands.priced_as.clone_from(&other.priced_as);
}

/// Whether two entries cannot be one call: by the meter's rule, but that instruments may name the model
/// each in its way where they count the same.
pub fn contradict(stands: &Standing, other: &Standing) -> bool {
    growth(stands, other) == Growth::Conflict || is_estimated_for_another(stands, other)
}

/// Whether one estimates and the other has measured, each for somebody else: the measured counts are not
/// those of whom the estimate names.
fn is_estimated_for_another(stands: &Standing, other: &Standing) -> bool {
    let of = [stands, other].map(|one| &one.event);
    let [mine, theirs] = of.map(|event| event.flags.contains(Flags::USAGE_ESTIMATED));
    let [own, others] = of.map(|event| &event.attribution);
    mine != theirs && Who::disagree(own, others)
}

fn growth(stands: &Standing, other: &Standing) -> Growth {
    let told = |one: &Standing| ToldCall::of(&one.event);
    let (Some(mine), Some(theirs)) = (told(stands), told(other)) else {
        return Growth::Conflict;
    };
    if mine.model == theirs.model {
        return mine.growth(&theirs);
    }
    let theirs = ToldCall {
        model: mine.model,
        ..theirs
    };
    match (mine.growth(&theirs), theirs.growth(&mine)) {
        (Growth::Echo, Growth::Echo) => Growth::Echo,
        _ => Growth::Conflict,
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_domain::event::{Body, decode};
    use spendfuse_domain::row::{CostParts, PriceBasis};
    use spendfuse_domain::{Call, Event, FixedDimension, Nanos, TokenClass};

    use super::*;

    fn counted(partition: u32, received_at: i64, data: &str) -> Candidate {
        let event = format!(
            r#"{{"specversion":"1.0","type":"spendfuse.usage","source":"openai","id":"resp-1",
                "time":"2026-11-29T10:00:00Z","data":{{"workspace":"acme","model":"gpt-4o",{data}}}}}"#
        );
        let arrival = UnixMillis(1_800_000_000_000);
        let event = decode(event.as_bytes(), &[], arrival).expect("an event");
        let mut attribution = Attribution::default();
        let texts = event.attribution.texts();
        for dimension in FixedDimension::BY_NUMBER {
            *attribution.text_mut(dimension) = texts[dimension as usize].to_string().into();
        }
        let tags = event.attribution.tags.iter();
        attribution.tags = tags
            .map(|(name, value)| (name.to_string().into(), value.to_string().into()))
            .collect();
        let Body::Usage(call) = &event.body else {
            panic!("a call")
        };
        let owned = Call {
            tokens: call.tokens,
            ..Call::default()
        };
        let cost = CostParts {
            input: Nanos::new(i128::from(call.tokens[TokenClass::ALL[0]])),
            ..CostParts::default()
        };
        Candidate {
            place: EntryPlace {
                epoch: 1,
                partition,
                seq: 7,
                index: 0,
            },
            received_at: UnixMillis(received_at),
            standing: Standing {
                event: Event {
                    identity: event.identity,
                    content: event.content,
                    source: "openai".into(),
                    id: "resp-1".into(),
                    time: event.time,
                    flags: event.flags,
                    attribution,
                    body: Body::Usage(owned),
                },
                cost,
                at_ceiling: Nanos::ZERO,
                priced: PriceBasis::Book,
                price_version: "v1".to_owned(),
                priced_as: String::new(),
            },
        }
    }

    #[test]
    fn a_session_stands_before_none_and_the_earlier_before_the_later() {
        let usage = r#""usage":{"input_tokens":5}"#;
        let of = |session: &str| format!(r#""session":"{session}",{usage}"#);
        let mut three = vec![
            counted(0, 10, usage),
            counted(1, 30, &of("s-1")),
            counted(2, 20, &of("s-2")),
        ];
        assert_eq!(stands(&three, 1), Some(2), "the earlier of the sessions'");
        three[0].place.epoch = 0;
        assert_eq!(stands(&three, 1), Some(0), "nobody can correct it any more");
        assert_eq!(stands(&[], 1), None);
    }

    #[test]
    fn what_only_others_tell_is_taken_over_and_nothing_that_places_or_prices_the_call() {
        let mine = counted(
            0,
            10,
            r#""session":"s-1","customer":"c-1","tags":{"b":"1"},"usage":{"input_tokens":5}"#,
        );
        let proxy = counted(
            1,
            20,
            r#""customer":"c-2","feature":"search","account":"a-1","tags":{"a":"2","b":"3"},
               "usage":{"input_tokens":5}"#,
        );
        let others = [&proxy.standing];
        let rich = enriched(&mine.standing, others.into_iter(), [].into_iter());
        let rich = rich.expect("a feature");
        let who = &rich.event.attribution;
        assert_eq!(
            (&*who.customer, &*who.feature, &*who.account),
            ("c-1", "search", "")
        );
        assert_eq!(
            who.tags,
            [("a".into(), "2".into()), ("b".into(), "1".into())]
        );
        assert_eq!(rich.cost, mine.standing.cost);
        let told = [&proxy.standing.event.attribution];
        let again = enriched(&rich, [].into_iter(), told.into_iter());
        assert!(again.is_none(), "nothing more");
    }

    #[test]
    fn what_was_measured_stands_for_an_estimate() {
        let usage = r#""usage":{"input_tokens":5}"#;
        let mut mine = counted(0, 10, &format!(r#""session":"s-1",{usage}"#));
        mine.standing.event.flags.insert(Flags::USAGE_ESTIMATED);
        let other = counted(1, 20, r#""usage":{"input_tokens":7}"#);
        let others = [&other.standing];
        let exact = enriched(&mine.standing, others.into_iter(), [].into_iter());
        let exact = exact.expect("exact counts");
        assert_eq!(exact.cost, other.standing.cost);
        assert!(!exact.event.flags.contains(Flags::USAGE_ESTIMATED));
        assert_eq!(&*exact.event.attribution.session, "s-1");
        assert!(!contradict(&mine.standing, &other.standing));
        // What was measured of one customer is not charged to another.
        for (one, contradicts) in [("c-1", false), ("c-2", true)] {
            mine.standing.event.attribution.customer = "c-1".into();
            let mut other = other.standing.clone();
            other.event.attribution.customer = one.into();
            assert_eq!(contradict(&mine.standing, &other), contradicts, "{one}");
            assert_eq!(contradict(&other, &mine.standing), contradicts, "{one}");
        }
    }

    #[test]
    fn two_calls_under_one_id_are_not_taken_for_one() {
        let of = |data: &str| counted(0, 10, data).standing;
        let mine = of(r#""usage":{"input_tokens":5,"output_tokens":9}"#);
        let more = of(r#""customer":"c-1","usage":{"input_tokens":5,"output_tokens":12}"#);
        let other = of(r#""usage":{"input_tokens":7,"output_tokens":2}"#);
        assert!(!contradict(&mine, &more) && !contradict(&more, &mine));
        assert!(contradict(&mine, &other));
        assert!(contradict(
            &more,
            &of(r#""customer":"c-2","usage":{"input_tokens":5,"output_tokens":12}"#)
        ));
        let rich = enriched(&mine, [&more].into_iter(), [].into_iter()).expect("more");
        assert_eq!(rich.event.body, more.event.body);
        // A snapshot's name, and the model's.
        let named = |mut one: Standing| {
            one.event.attribution.model = "gpt-4o-2024-08-06".into();
            one
        };
        assert!(!contradict(&mine, &named(mine.clone())));
        assert!(contradict(&mine, &named(more)));
    }
}
