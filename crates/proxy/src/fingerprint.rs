//! The keyed fingerprint of a call's prompt: all of a prompt that is ever told. Of the same request it is
//! the same as that of `sdk/python/src/spendfuse/_fingerprint.py`.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer as _};
use serde_json::value::RawValue;
use spendfuse_domain::fingerprint::prompt_fingerprint;

use crate::request::parsed;
use crate::route::Call;

/// No language puts texts deeper into lists and parts of its messages.
const MOST_DEPTH: usize = 8;

/// The members of a body that hold its prompt, in every language.
#[derive(Deserialize)]
struct Prompt<'a> {
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    #[serde(borrow)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow, rename = "systemInstruction", alias = "system_instruction")]
    system_instruction: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    contents: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    role: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    parts: Option<&'a RawValue>,
}

impl Message<'_> {
    /// Items of a response that are no messages have no role; messages that have none are the user's.
    fn role(&self) -> &str {
        let is_message = matches!(self.kind.as_deref(), None | Some("message"));
        let usual = if is_message { "user" } else { "" };
        self.role.as_deref().unwrap_or(usual)
    }

    fn texts(&self) -> Texts {
        let mut texts = Texts::default();
        if let Some(content) = self.content.or(self.parts) {
            texts.take(content, MOST_DEPTH);
        }
        texts
    }
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    parts: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

/// Texts, joined with LF; `None` where there are none.
#[derive(Default)]
struct Texts(Option<String>);

impl Texts {
    /// Takes a text, or those of parts; images, files and tool results are left out.
    fn take(&mut self, content: &RawValue, depth: usize) {
        match content.get().as_bytes().first() {
            Some(b'"') => self.add(parsed(content)),
            Some(b'[') if depth > 0 => each(content, |part| self.take(part, depth - 1)),
            Some(b'{') if depth > 0 => match parsed::<Part<'_>>(content) {
                Some(Part {
                    parts: Some(parts), ..
                }) => self.take(parts, depth - 1),
                Some(Part {
                    text: Some(text), ..
                }) => self.add(parsed(text)),
                _ => {}
            },
            _ => {}
        }
    }

    fn add(&mut self, text: Option<String>) {
        let Some(text) = text else {
            return;
        };
        match &mut self.0 {
            Some(all) => {
                all.push('\n');
                all.push_str(&text);
            }
            None => self.0 = Some(text),
        }
    }
}

/// Of a call with this body; `None` where it is no step of an agent, or holds no message of a user.
pub(crate) fn of_call(key: &[u8], call: Call, body: &[u8]) -> Option<u64> {
    let is_step = matches!(
        call.operation(),
        "chat" | "completion" | "responses" | "generate_content"
    );
    is_step.then(|| of_request(key, body)).flatten()
}

fn of_request(key: &[u8], body: &[u8]) -> Option<u64> {
    let told: Prompt<'_> = serde_json::from_slice(body).ok()?;
    let mut system = Texts::default();
    let before = [told.system, told.instructions, told.system_instruction];
    for part in before.into_iter().flatten() {
        system.take(part, MOST_DEPTH);
    }
    let said = [told.messages, told.contents, told.input, told.prompt];
    let mut said = said.into_iter().flatten();
    let last_user = said.find_map(|said| last_user(said, &mut system))?;
    let system = system.0.unwrap_or_default();
    Some(prompt_fingerprint(key, &system, &last_user))
}

/// The last message of a user in `said`, a text or a list of messages; `system` takes what is the
/// system's in it.
fn last_user(said: &RawValue, system: &mut Texts) -> Option<String> {
    if let Some(text) = parsed::<String>(said) {
        return Some(text).filter(|text| !text.is_empty());
    }
    let mut last = None;
    each(said, |one| {
        if let Some(text) = parsed::<String>(one) {
            last = Some(text);
            return;
        }
        let Some(message) = parsed::<Message<'_>>(one) else {
            return;
        };
        match message.role() {
            "system" | "developer" => system.add(message.texts().0),
            // Tool results have the role of a user at Anthropic, but no text.
            "user" => last = message.texts().0.or(last.take()),
            _ => {}
        }
    });
    last
}

/// Takes each element of a list; what is no list has none.
fn each<'a>(list: &'a RawValue, take: impl FnMut(&'a RawValue)) {
    let mut list = serde_json::Deserializer::from_str(list.get());
    let _ = list.deserialize_seq(Each(take));
}

struct Each<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element::<&'de RawValue>()? {
            (self.0)(element);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Shape;
    use serde_json::{Value, json};
    use spendfuse_domain::fingerprint::to_hex;

    #[test]
    fn fingerprints_of_requests_are_those_of_the_published_vectors() {
        let vectors = include_str!("../../../schemas/fingerprint-vectors.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        let vectors = vectors["request"].as_array().unwrap();
        assert!(vectors.len() > 10);
        for vector in vectors {
            let key = vector["key"].as_str().unwrap().as_bytes();
            let body = vector["request"].to_string();
            let found = of_request(key, body.as_bytes()).map(to_hex);
            assert_eq!(json!(found), vector["fingerprint"], "{vector}");
        }
    }

    #[test]
    fn only_steps_of_agents_have_fingerprints() {
        let body = br#"{"model":"m","input":"x"}"#;
        for (path, wanted) in [
            ("/v1/responses", true),
            ("/v1/completions", true),
            ("/v1/embeddings", false),
            ("/v1/audio/speech", false),
        ] {
            let call = Call::of(Shape::OpenAi, path).unwrap();
            assert_eq!(of_call(b"k", call, body).is_some(), wanted, "{path}");
        }
    }

    #[test]
    fn a_body_that_nests_without_end_is_read_no_further() {
        let deep = 100_000;
        for (open, close) in [("[", "]"), (r#"{"parts":"#, "}")] {
            let content = format!(r#"{}"x"{}"#, open.repeat(deep), close.repeat(deep));
            let body = format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
            assert_eq!(of_request(b"k", body.as_bytes()), None);
        }
    }
}
