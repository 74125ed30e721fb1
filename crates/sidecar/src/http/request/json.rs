//! A question as a JSON object, and a body that may be a provider's request.

use std::borrow::Cow;
use std::fmt;
use std::mem::swap;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::faults::shown;
use super::{ESTIMATE_FIELDS, Field, Kind, Misplaced, Question};
use crate::http::ApiError;

/// The members of an object in the order of their names. Of several with one name the last counts, as
/// everywhere in JSON.
struct Members<'b>(Vec<(Cow<'b, str>, &'b RawValue)>);

/// Most questions have fewer.
const USUAL_MEMBERS: usize = 16;

/// Members of which providers' requests have at least one, and questions none.
const OF_PROVIDERS_REQUESTS: [&str; 6] = [
    "messages",
    "input",
    "contents",
    "prompt",
    "inputs",
    "instances",
];

impl Question {
    /// Reads the body of a check; what else there is of it was not read.
    ///
    /// # Errors
    /// 400 where it is no JSON object, or a known field has a wrong type.
    pub(in crate::http) fn from_json(body: &[u8], other: Misplaced) -> Result<Self, ApiError> {
        let mut question = Self {
            unknown: other.0,
            ..Self::default()
        };
        question.add_members(members(body)?)?;
        Ok(question)
    }

    /// Reads what a gateway passes on: a question, or its caller's own request to a provider. Of the
    /// latter only what is named and typed like a question's field is taken; the rest is the
    /// provider's business.
    ///
    /// # Errors
    /// As [`Question::from_json`].
    pub(in crate::http) fn from_gateway(body: &[u8]) -> Result<Self, ApiError> {
        let members = members(body)?;
        let mut question = Self::default();
        let mut names = members.0.iter().map(|(name, _)| &**name);
        let is_providers = names.any(|name| OF_PROVIDERS_REQUESTS.contains(&name));
        if !is_providers {
            question.add_members(members)?;
            return Ok(question);
        }
        for (name, value) in members.0 {
            let field = Field::named(&name).filter(|field| field.kind() == Kind::Text);
            if let (Some(field), Ok(Some(text))) = (field, scalar(&name, Kind::Text, value)) {
                question.set(field, text)?;
            }
        }
        Ok(question)
    }

    fn add_members(&mut self, members: Members<'_>) -> Result<(), ApiError> {
        for (name, value) in members.0 {
            match &*name {
                "tags" => self.add_object(&name, value)?,
                "estimate" => {
                    self.add_object(&name, value)?;
                    if value.get() != "null" {
                        self.estimate.get_or_insert_default();
                    }
                }
                _ => self.add_member(&name, value)?,
            }
        }
        Ok(())
    }

    /// Adds the members of `tags` or `estimate`.
    fn add_object(&mut self, name: &str, value: &RawValue) -> Result<(), ApiError> {
        if value.get() == "null" {
            return Ok(());
        }
        let members: Members<'_> = serde_json::from_str(value.get()).map_err(|_| {
            ApiError::bad_request(format!("{name} is {}; write an object", article(value)))
        })?;
        for (member, value) in members.0 {
            self.add_member(&format!("{name}.{member}"), value)?;
        }
        Ok(())
    }

    fn add_member(&mut self, name: &str, value: &RawValue) -> Result<(), ApiError> {
        let Some(field) = Field::named(name) else {
            match name.strip_prefix("estimate.") {
                Some(field) => {
                    let known = ESTIMATE_FIELDS.map(|(name, _)| name);
                    self.unknown.add(name, field, &known, "estimate.");
                }
                // A tag without a name says nothing.
                None if name == "tags." => {}
                None => self.unknown.add_field(name),
            }
            return Ok(());
        };
        match scalar(name, field.kind(), value)? {
            Some(text) => self.set(field, text),
            None => Ok(()),
        }
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Members<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyOrder;
        impl<'de> Visitor<'de> for AnyOrder {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(USUAL_MEMBERS);
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }
        let mut members = deserializer.deserialize_map(AnyOrder)?;
        // Those of one name stay in their order.
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        members.dedup_by(|later, kept| {
            let is_again = later.0 == kept.0;
            if is_again {
                swap(later, kept);
            }
            is_again
        });
        Ok(Self(members))
    }
}

/// A member's name, which is seldom escaped.
#[derive(serde::Deserialize)]
struct Name<'b>(#[serde(borrow)] Cow<'b, str>);

fn members(body: &[u8]) -> Result<Members<'_>, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!(
            "the body is not a JSON object ({error}); write {{\"workspace\": …, \"customer\": …}}"
        );
        ApiError::bad_request(message)
    })
}

/// The text of a member, `None` for null. A number may stand where a text is wanted: customer 42 is
/// customer "42", to the digit as it was written, in events as in questions.
fn scalar(name: &str, kind: Kind, value: &RawValue) -> Result<Option<String>, ApiError> {
    let text = value.get();
    let first = text.as_bytes().first().copied().unwrap_or_default();
    let is_number = first == b'-' || first.is_ascii_digit();
    let wanted = match (kind, first) {
        (_, b'n') => return Ok(None),
        (Kind::Text | Kind::Money, b'"') => {
            // As it stands between its quotes, where nothing is escaped.
            if !text.contains('\\') {
                return Ok(Some(text[1..text.len() - 1].to_owned()));
            }
            let text = serde_json::from_str(text);
            return text.map(Some).map_err(|error| {
                ApiError::bad_request(format!("{} cannot be read: {error}", shown(name)))
            });
        }
        (Kind::Text | Kind::Count, _) if is_number => return Ok(Some(text.to_owned())),
        (Kind::Flag, b't' | b'f') => return Ok(Some(text.to_owned())),
        (Kind::Text, _) => "a string",
        (Kind::Money, _) => "a decimal string such as \"0.50\"",
        (Kind::Count, _) => "a whole number",
        (Kind::Flag, _) => "true or false",
    };
    let message = format!("{} is {}; write {wanted}", shown(name), article(value));
    Err(ApiError::bad_request(message))
}

/// What a value is, in words.
fn article(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_members_with_one_name_the_last_counts_however_it_is_written() {
        let body =
            br#"{"plan":"a","customer":{},"\u0070lan":"b\n","customer":"c-1","customer":"c-2"}"#;
        let question = Question::from_json(body, Misplaced::default()).unwrap();
        assert_eq!(question.who.plan, "b\n");
        assert_eq!(question.who.customer, "c-2");
    }
}
