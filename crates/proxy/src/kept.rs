//! What a provider keeps by its own key, as the body of a call may name it: earlier responses,
//! conversations, caches, files.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[cfg(test)]
mod tests;

/// Members whose texts, or whose objects' `id`, name something that is kept.
const NAMES: [&str; 14] = [
    "previous_response_id",
    "previous_interaction_id",
    "conversation",
    "cachedContent",
    "cached_content",
    "file_id",
    "file_ids",
    "vector_store_ids",
    "fileSearchStoreNames",
    "file_search_store_names",
    "library_ids",
    "container",
    "container_id",
    "s3Location",
];
/// Members that do so as objects with an `id` only: as texts they are what is said.
const OBJECTS: [&str; 2] = ["prompt", "audio"];
/// Members with an address, which may be that of a file that is kept.
const ADDRESSES: [&str; 3] = ["fileUri", "file_uri", "uri"];
/// What is in them is the app's own, whatever it is called.
const APPS: [&str; 21] = [
    "args",
    "arguments",
    "response",
    // What a tool has answered, as Bedrock has it.
    "json",
    "parameters",
    "parametersJsonSchema",
    "parameters_json_schema",
    "input_schema",
    "inputSchema",
    "schema",
    "responseSchema",
    "response_schema",
    "responseJsonSchema",
    "response_json_schema",
    "json_schema",
    "input_examples",
    "metadata",
    "requestMetadata",
    "labels",
    // What an answer is to be found in, as Cohere has it, and what is to be ranked.
    "documents",
    "data",
];

/// What a call with this body names; `None` where it names nothing. Nothing of the body is kept meanwhile.
pub(crate) fn named_in(body: &[u8]) -> Option<&'static str> {
    match serde_json::from_slice::<Found>(body) {
        Ok(found) => found.kept,
        // Nested deeper than any language nests: nobody knows what it names.
        Err(_) => Some("what is nested too deep to be read"),
    }
}

/// A member of an object, as far as its name matters.
#[derive(Clone, Copy)]
enum Member {
    Name(&'static str),
    Object(&'static str),
    Address(&'static str),
    Apps,
    Skill,
    Type,
    Id,
    Role,
    Input,
    Result,
    Model,
    ToolUse,
    Other,
}

impl Member {
    fn of(name: &str) -> Self {
        let one_of = |names: &[&'static str]| names.iter().find(|one| **one == name).copied();
        if let Some(name) = one_of(&NAMES) {
            return Self::Name(name);
        }
        if let Some(name) = one_of(&OBJECTS) {
            return Self::Object(name);
        }
        if let Some(name) = one_of(&ADDRESSES) {
            return Self::Address(name);
        }
        match name {
            "skill_id" => Self::Skill,
            "type" => Self::Type,
            "id" => Self::Id,
            "role" => Self::Role,
            "input" => Self::Input,
            "result" => Self::Result,
            "model" => Self::Model,
            "toolUseId" => Self::ToolUse,
            name if APPS.contains(&name) => Self::Apps,
            _ => Self::Other,
        }
    }
}

/// Kinds of objects that matter, by their `type`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    Reference,
    Image,
    ToolUse,
}

/// What a value says, as far as whatever it stands in has to know.
#[derive(Default)]
struct Found {
    /// The first that is named within.
    kept: Option<&'static str>,
    is_null: bool,
    is_text: bool,
    /// A text that says something, or a list with a text.
    is_name: bool,
    kind: Kind,
    is_kept_address: bool,
    /// Others than the providers' own are uploaded, and have names like this.
    is_skill: bool,
    /// An object that is named by its `id`.
    has_id: bool,
    /// An item of OpenAI's responses that stands for another: it need not say that it does.
    is_reference: bool,
    /// A list with such an item.
    has_reference: bool,
}

impl Found {
    fn in_text(text: &str, is_address: bool) -> Self {
        Self {
            is_text: true,
            is_name: !text.is_empty(),
            kind: match text {
                "item_reference" => Kind::Reference,
                "image_generation_call" => Kind::Image,
                text if text.ends_with("tool_use") => Kind::ToolUse,
                _ => Kind::Other,
            },
            is_kept_address: is_address && is_kept(text),
            is_skill: text.starts_with("skill_"),
            ..Self::default()
        }
    }
}

/// What was read of an object so far.
#[derive(Default)]
struct Object {
    kept: Option<&'static str>,
    /// In `input`, which is the app's own where a tool is called with it.
    kept_in_input: Option<&'static str>,
    is_reference: bool,
    is_image: bool,
    is_tool_use: bool,
    has_type: bool,
    says_type: bool,
    says_role: bool,
    says_id: bool,
    says_result: bool,
    has_id: bool,
    has_tool_use_id: bool,
    has_model: bool,
}

impl Object {
    fn take(&mut self, member: Member, value: &Found) {
        let named = match member {
            Member::Name(name) => (value.is_name || value.has_id).then_some(name),
            Member::Object(name) => value.has_id.then_some(name),
            Member::Address(name) => value.is_kept_address.then_some(name),
            Member::Skill => value.is_skill.then_some("skill_id"),
            _ => None,
        };
        match member {
            Member::Type => {
                self.is_reference |= value.kind == Kind::Reference;
                self.is_image |= value.kind == Kind::Image;
                // Said twice, nobody knows which is believed.
                self.is_tool_use = value.kind == Kind::ToolUse && !self.has_type;
                self.has_type = true;
                self.says_type |= !value.is_null;
            }
            Member::Id => {
                self.says_id |= !value.is_null;
                self.has_id |= value.is_text;
            }
            Member::Address("uri") => self.has_id |= value.is_text,
            Member::Role => self.says_role |= !value.is_null,
            Member::Result => self.says_result |= !value.is_null,
            Member::Model => self.has_model = true,
            Member::ToolUse => self.has_tool_use_id = true,
            _ => {}
        }
        if let Member::Input = member {
            let referred = value.has_reference.then_some("input");
            self.kept_in_input = self.kept_in_input.or(referred).or(value.kept);
        } else {
            self.kept = self.kept.or(named).or(value.kept);
        }
    }

    fn found(self) -> Found {
        // What a tool is called with; the whole call is none, whatever it says.
        let is_tool = (self.is_tool_use || self.has_tool_use_id) && !self.has_model;
        let in_input = self.kept_in_input.filter(|_| !is_tool);
        // An image that was made before is shown, or named by its id.
        let is_image = self.is_image && !self.says_result;
        let image = is_image.then_some("image_generation_call");
        let reference = self.is_reference.then_some("item_reference");
        let kept = reference.or(image).or(self.kept).or(in_input);
        Found {
            kept,
            has_id: self.has_id,
            is_reference: self.says_id && !self.says_type && !self.says_role,
            ..Found::default()
        }
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(name: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Member;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Member, E> {
                Ok(Member::of(name))
            }
        }

        name.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        Reader { is_address: false }.deserialize(value)
    }
}

struct Reader {
    /// Whether a text is an address.
    is_address: bool,
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Found, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Found, E> {
        Ok(Found {
            is_null: true,
            ..Found::default()
        })
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Found, E> {
        Ok(Found::in_text(text, self.is_address))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(item) = list.next_element::<Found>()? {
            found.is_name |= item.is_text;
            found.has_reference |= item.is_reference;
            found.kept = found.kept.or(item.kept);
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let mut object = Object::default();
        while let Some(member) = members.next_key::<Member>()? {
            if let Member::Apps = member {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let is_address = matches!(member, Member::Address(_));
            let value = members.next_value_seed(Reader { is_address })?;
            object.take(member, &value);
        }
        Ok(object.found())
    }
}

/// Of whatever else an address leads to, everybody may read it.
fn is_kept(address: &str) -> bool {
    let address = address.trim().to_ascii_lowercase();
    let is_in = |place: &&str| address.starts_with(*place);
    ["gs://", "s3://", "files/"].iter().any(is_in) || address.contains("googleapis.com")
}
