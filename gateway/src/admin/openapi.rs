//! `GET /api/openapi.json`: the description of this API.
//!
//! Promise: it is made from the route table that the router is made from, and
//! from the types that bodies are read and written with.

use std::sync::OnceLock;

use axum::Json;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::routes::{Parameter, Route, table};

pub(super) async fn show() -> Json<&'static Value> {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    Json(DOCUMENT.get_or_init(document))
}

/// The whole description, OpenAPI 3.1.
pub(super) fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in table() {
        let path = format!("/api{}", route.path.replace("{*", "{"));
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = operation(&mut generator, &route);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
    }
    let mut schemas = Value::Object(generator.take_definitions(true));
    accept_masks(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tyr admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Entities of the file are read-only here. `***` in a write stands for the secret that is kept.",
        },
        "security": [{"admin_token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"admin_token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(generator: &mut SchemaGenerator, route: &Route) -> Value {
    let (resource, right) = route.need;
    let mut responses = Map::new();
    for (status, body) in &route.answers {
        let reason = http::StatusCode::from_u16(*status);
        let reason = reason.ok().and_then(|status| status.canonical_reason());
        let mut response = json!({"description": reason.unwrap_or_default()});
        if let Some(body) = body {
            let schema = body(generator);
            response["content"] = json!({"application/json": {"schema": schema}});
        }
        responses.insert(status.to_string(), response);
    }
    let of_path = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let name = name.trim_start_matches('*');
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
    });
    let parameters: Vec<Value> = of_path
        .chain(route.parameters.iter().map(|one| parameter(one)))
        .collect();
    let mut operation = json!({
        "summary": route.summary,
        "tags": [resource.as_str()],
        "x-right": format!("{}:{}", resource.as_str(), right.as_str()),
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = route.body {
        let schema = body(generator);
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place,
        "required": false,
        "description": parameter.says,
        "schema": {"type": parameter.kind},
    })
}

/// A hash is shown as `***`, and so written back: its pattern takes both.
fn accept_masks(schemas: &mut Value) {
    match schemas {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get_mut("properties")
                && let Some(hash) = properties.get_mut("sha256")
                && let Some(pattern) = hash.get("pattern").and_then(Value::as_str)
            {
                hash["pattern"] = json!(format!("{pattern}|^\\*\\*\\*$"));
            }
            object.values_mut().for_each(accept_masks);
        }
        Value::Array(items) => items.iter_mut().for_each(accept_masks),
        _ => {}
    }
}
