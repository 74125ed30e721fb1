//! Schemas with nothing left open, for the tests of several crates.

use serde_json::Value;

/// Forbids members that the schema does not name.
pub fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            let kind = members.get("type");
            let is_object = kind.is_some_and(|kind| kind.to_string().contains("\"object\""));
            if is_object && members.contains_key("properties") {
                let closed = members.entry("additionalProperties");
                closed.or_insert(Value::Bool(false));
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(close),
        _ => {}
    }
}
