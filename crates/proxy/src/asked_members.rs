//! The members of a call's body that matter here, each of which is there once.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The members of a call's body that matter here; but for `stream_options`, null is as good as none.
#[derive(Debug, Default)]
pub(crate) struct Members<'a> {
    pub(crate) model: Option<&'a RawValue>,
    pub(crate) stream: Option<&'a RawValue>,
    /// Where null stands another member may not be put.
    pub(crate) stream_options: Option<&'a RawValue>,
    pub(crate) max_tokens: Option<&'a RawValue>,
    pub(crate) max_completion_tokens: Option<&'a RawValue>,
    pub(crate) max_output_tokens: Option<&'a RawValue>,
    pub(crate) n: Option<&'a RawValue>,
    pub(crate) best_of: Option<&'a RawValue>,
    pub(crate) generation_config: Option<&'a RawValue>,
    pub(crate) inference_config: Option<&'a RawValue>,
    pub(crate) service_tier: Option<&'a RawValue>,
    pub(crate) agent: Option<&'a RawValue>,
    pub(crate) background: Option<&'a RawValue>,
    pub(crate) request_id: Option<&'a RawValue>,
    pub(crate) user: Option<&'a RawValue>,
    pub(crate) safety_identifier: Option<&'a RawValue>,
    pub(crate) metadata: Option<&'a RawValue>,
}

impl<'a> Members<'a> {
    /// The member of this name, in small letters. Servers in Go take a name in any letter case.
    fn named(&mut self, name: &str) -> Option<&mut Option<&'a RawValue>> {
        Some(match name {
            "model" => &mut self.model,
            "stream" => &mut self.stream,
            "stream_options" => &mut self.stream_options,
            "max_tokens" => &mut self.max_tokens,
            "max_completion_tokens" => &mut self.max_completion_tokens,
            "max_output_tokens" => &mut self.max_output_tokens,
            "n" => &mut self.n,
            "best_of" => &mut self.best_of,
            "generationconfig" | "generation_config" => &mut self.generation_config,
            "inferenceconfig" => &mut self.inference_config,
            "service_tier" => &mut self.service_tier,
            "agent" => &mut self.agent,
            "background" => &mut self.background,
            // SGLang's is the second name.
            "request_id" | "rid" => &mut self.request_id,
            "user" => &mut self.user,
            "safety_identifier" => &mut self.safety_identifier,
            "metadata" => &mut self.metadata,
            _ => return None,
        })
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        let mut known: Vec<String> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<&'de RawValue>()?;
            let name = name.to_ascii_lowercase();
            let Some(member) = members.named(&name) else {
                continue;
            };
            if known.contains(&name) || member.is_some() {
                return Err(A::Error::custom(format_args!("`{name}` is there twice")));
            }
            if value.get() != "null" || name == "stream_options" {
                *member = Some(value);
            }
            known.push(name);
        }
        Ok(members)
    }
}
