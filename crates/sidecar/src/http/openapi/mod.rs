//! `GET /openapi.json`: what this interface is, for programs.
//!
//! Paths and answers stand in `paths.json`; what bodies hold stands in `schemas/`, which it refers to
//! by file name. Put together once, into one document that refers to nothing outside itself.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

const PATHS: &str = include_str!("paths.json");

/// The schemas that `paths.json` refers to, by name.
const SCHEMAS: [(&str, &str); 13] = [
    (
        "authz-error",
        include_str!("../../../../../schemas/authz-error.schema.json"),
    ),
    (
        "blocklist-page",
        include_str!("../../../../../schemas/blocklist-page.schema.json"),
    ),
    (
        "blocklist-standings",
        include_str!("../../../../../schemas/blocklist-standings.schema.json"),
    ),
    (
        "check-request",
        include_str!("../../../../../schemas/check-request.schema.json"),
    ),
    (
        "check-response",
        include_str!("../../../../../schemas/check-response.schema.json"),
    ),
    (
        "error",
        include_str!("../../../../../schemas/error.schema.json"),
    ),
    (
        "estimate-response",
        include_str!("../../../../../schemas/estimate-response.schema.json"),
    ),
    (
        "reservation",
        include_str!("../../../../../schemas/reservation.schema.json"),
    ),
    (
        "revenue-event",
        include_str!("../../../../../schemas/revenue-event.schema.json"),
    ),
    (
        "session-end-event",
        include_str!("../../../../../schemas/session-end-event.schema.json"),
    ),
    (
        "state-response",
        include_str!("../../../../../schemas/state-response.schema.json"),
    ),
    (
        "usage-event",
        include_str!("../../../../../schemas/usage-event.schema.json"),
    ),
    (
        "usage-response",
        include_str!("../../../../../schemas/usage-response.schema.json"),
    ),
];
/// The schema whose fields are parameters of the paths that ask for them.
const QUESTION: &str = "check-request";
/// Where `paths.json` says in which places a question's fields may stand.
const PARAMETERS: &str = "x-spendfuse-parameters";

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

pub(super) async fn openapi() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        DOCUMENT.as_str(),
    )
}

fn document() -> Value {
    let mut document = parsed(PATHS);
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    let mut components = Map::new();
    for (name, text) in SCHEMAS {
        add_schema(name, parsed(text), &mut components);
    }
    let question = components[QUESTION].clone();
    refer(&mut document, &|target| {
        let name = target.strip_suffix(".schema.json")?;
        Some(format!("#/components/schemas/{name}"))
    });
    add_parameters(&mut document["paths"], &question);
    document["components"]["schemas"] = Value::Object(components);
    document
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("what is compiled in is JSON: the tests read all of it")
}

/// Adds a schema, and its definitions as schemas of their own. Embedded `$id`s and `$defs` are
/// allowed here, but many programs that read such documents do not follow them.
fn add_schema(name: &str, mut schema: Value, components: &mut Map<String, Value>) {
    refer(&mut schema, &|target| {
        let definition = target.strip_prefix("#/$defs/")?;
        Some(format!("#/components/schemas/{name}.{definition}"))
    });
    let Value::Object(members) = &mut schema else {
        return;
    };
    members.remove("$schema");
    members.remove("$id");
    if let Some(Value::Object(definitions)) = members.remove("$defs") {
        let named = definitions.into_iter();
        components.extend(named.map(|(definition, one)| (format!("{name}.{definition}"), one)));
    }
    components.insert(name.to_owned(), schema);
}

/// Lets references lead to where `to` says, where it says something.
fn refer(value: &mut Value, to: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let target = member.as_str().filter(|_| name == "$ref").and_then(to);
                match target {
                    Some(target) => *member = Value::String(target),
                    None => refer(member, to),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|one| refer(one, to)),
        _ => {}
    }
}

/// Gives every operation that asks for them the question's fields as parameters.
fn add_parameters(paths: &mut Value, question: &Value) {
    let paths = paths.as_object_mut().into_iter().flatten();
    let operations = paths.filter_map(|(_, path)| path.as_object_mut()).flatten();
    for (_, operation) in operations {
        let Some(operation) = operation.as_object_mut() else {
            continue;
        };
        let Some(places) = operation.remove(PARAMETERS) else {
            continue;
        };
        let places = places.as_array().into_iter().flatten();
        let places = places.filter_map(Value::as_str);
        let added = places.flat_map(|place| parameters(place, question));
        let added: Vec<Value> = added.collect();
        if let Value::Array(parameters) = operation.entry("parameters").or_insert(json!([])) {
            parameters.extend(added);
        }
    }
}

/// The question's fields as parameters in `place`. Tags have names of their own, which a parameter
/// cannot express.
fn parameters(place: &str, question: &Value) -> Vec<Value> {
    let mut fields = Vec::new();
    for (name, field) in question["properties"].as_object().into_iter().flatten() {
        match field["properties"].as_object() {
            Some(inner) => {
                let dotted = |(field, schema)| (format!("{name}.{field}"), schema);
                fields.extend(inner.iter().map(dotted));
            }
            None => fields.push((name.clone(), field)),
        }
    }
    fields.retain(|(name, _)| name != "tags");
    let described = fields.into_iter().map(|(name, field)| {
        let name = match place {
            "header" => format!("x-spendfuse-{}", name.replace(['_', '.'], "-")),
            _ => name,
        };
        let mut parameter = json!({"name": name, "in": place, "schema": {"type": "string"}});
        if let Some(description) = field.get("description") {
            parameter["description"] = description.clone();
        }
        parameter
    });
    let tag = match place {
        "header" => "x-spendfuse-tag-NAME",
        _ => "tags.NAME",
    };
    let tag = json!({
        "name": tag, "in": place, "schema": {"type": "string"},
        "description": "The tag called NAME; any number of them.",
    });
    described.chain([tag]).collect()
}
