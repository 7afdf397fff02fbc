//! The description of the API, and every route held against it.

use http::Method;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::ledger::name_of;
use super::world::{ADMIN, Answer, OPERATOR, VIEWER, World};
use crate::admin::entities::{Kind, Source};
use crate::admin::openapi::document;
use crate::admin::rights::{Operation, Resource};
use crate::admin::routes::{Route, table};

const NONE: &[(&str, &str)] = &[];

/// The entity that the paths of a kind are called with.
fn entity_of(path: &str) -> Option<(Kind, Value)> {
    let kind = Kind::from_path(path.split('/').nth(1)?)?;
    Some((kind, body_for(&Method::POST, &format!("/{}", kind.path()))))
}

/// A path of the table with the name of that entity in it.
fn filled(path: &str) -> String {
    let name = entity_of(path).map(|(kind, body)| name_of(kind, &body));
    with_name(path, &name.unwrap_or_default())
}

fn with_name(path: &str, name: &str) -> String {
    let path = path.replace("{name}", name).replace("{*name}", name);
    format!("/api{}", path.replace("{request_id}", "r1"))
}

/// A world in which the entity of the path is there.
fn world_for(path: &str) -> World {
    let world = World::new();
    if let (Some((kind, body)), true) = (entity_of(path), path.contains("name}")) {
        world.ledger.put(kind, Source::Api, body);
    }
    world
}

/// The schema of a part of the document, with what it refers to.
fn validator(document: &Value, schema: &Value) -> Validator {
    let whole = json!({"allOf": [schema], "components": document["components"]});
    jsonschema::draft202012::new(&whole).expect("a schema")
}

/// Holds an answer against the document.
#[track_caller]
fn check(document: &Value, method: &Method, path: &str, answer: &Answer) {
    let described = described_path(path);
    let method = method.as_str().to_ascii_lowercase();
    let responses = &document["paths"][&described][&method]["responses"];
    let response = &responses[answer.status.as_str()];
    assert!(
        response.is_object(),
        "{method} {described} answers {}: {}",
        answer.status,
        answer.text
    );
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() {
        assert_eq!(answer.text, "", "{method} {described}");
        return;
    }
    let body = answer.json();
    let wrong: Vec<String> = validator(document, schema)
        .iter_errors(&body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(
        wrong.is_empty(),
        "{method} {described}: {wrong:?} in {body:#}"
    );
}

fn described_path(path: &str) -> String {
    format!("/api{}", path.replace("{*", "{"))
}

/// A body that the route takes, as far as one has to be made up.
fn body_for(method: &Method, path: &str) -> Value {
    match (method.as_str(), path) {
        ("POST", "/customers") => json!({"name": "new"}),
        ("POST", "/teams") => json!({"name": "new", "customer": "acme"}),
        ("POST", "/providers") => json!({
            "name": "new", "kind": "openai", "base_url": "https://new.example/v1",
            "keys": [{"name": "main", "value": "a-new-credential"}],
        }),
        ("POST", "/models") => json!({"name": "new", "provider": "openai", "price": "free"}),
        ("POST", "/virtual-keys") => json!({"name": "new", "providers": [{"name": "openai"}]}),
        ("POST", "/routing-rules") => json!({
            "name": "new", "when": "true", "targets": [{"model": "gpt-4o-mini"}],
        }),
        ("POST", "/admin-tokens") => json!({"name": "new", "role": "viewer"}),
        ("POST", "/roles") => json!({
            "name": "new", "permissions": [{"resource": "usage", "operations": ["read"]}],
        }),
        ("POST", "/limit-overrides") => {
            json!({"limit": "virtual_key/demo/requests/1m/sliding", "amount": 5})
        }
        ("POST", "/limits/reset") => json!({"limit": "virtual_key/demo/requests/1m/sliding"}),
        ("POST", "/explain") => json!({"key": "demo", "model": "fast"}),
        ("POST", "/virtual-keys/{name}/rotate") => json!({"grace": "1h"}),
        _ => Value::Null,
    }
}

/// The body of a call of this route that works.
async fn right_body(world: &World, route: &Route) -> Value {
    match route.method {
        Method::PUT => world.read(&filled(&route.path)).await.json(),
        _ => body_for(&route.method, &route.path),
    }
}

#[tokio::test]
async fn every_route_answers_as_it_is_described() {
    let document = document();
    for route in table() {
        let world = world_for(&route.path);
        let body = right_body(&world, &route).await;
        let call = async |path: &str| {
            let method = route.method.clone();
            world.write(method, path, ADMIN, NONE, &body).await
        };
        let path = filled(&route.path);
        let answer = call(&path).await;
        let shown = format!("{} {path}: {}", route.method, answer.text);
        assert!(answer.status.is_success(), "{shown}");
        check(&document, &route.method, &route.path, &answer);
        // What a read adds is ignored in a write, and not described for it.
        if route.body.is_some() && route.method != Method::PUT {
            let content = "/requestBody/content/application~1json/schema";
            let described = &document["paths"][described_path(&route.path)];
            let method = route.method.as_str().to_ascii_lowercase();
            let schema = described[method].pointer(content).expect("a body");
            let errors = validator(&document, schema).iter_errors(&body).count();
            assert_eq!(errors, 0, "{path}");
        }
        if route.path.contains("name}") {
            let answer = call(&with_name(&route.path, "none")).await;
            assert!(answer.status.is_client_error(), "{shown}");
            check(&document, &route.method, &route.path, &answer);
        }
    }
}

#[tokio::test]
async fn every_route_refuses_whoever_may_not() {
    let document = document();
    for route in table() {
        let world = world_for(&route.path);
        let path = filled(&route.path);
        let call = async |token| world.call(route.method.clone(), &path, token).await;
        for token in ["", "a-token-of-nobody-at-all"] {
            let answer = call(token).await;
            assert_eq!(answer.status.as_u16(), 401, "{} {path}", route.method);
            check(&document, &route.method, &route.path, &answer);
        }
        let (resource, operation) = route.need;
        let may_view = operation == Operation::Read || resource == Resource::Explain;
        let answer = call(VIEWER).await;
        assert_eq!(
            answer.status.as_u16() == 403,
            !may_view,
            "{} {path}: {}",
            route.method,
            answer.text
        );
        check(&document, &route.method, &route.path, &answer);
        let kept = [Resource::AdminTokens, Resource::Roles, Resource::Providers];
        let may_operate = operation == Operation::Read || !kept.contains(&resource);
        let answer = call(OPERATOR).await;
        assert_eq!(
            answer.status.as_u16() == 403,
            !may_operate,
            "{} {path}",
            route.method
        );
        let is_read = matches!(route.method, Method::GET);
        assert_eq!(
            is_read,
            operation == Operation::Read,
            "{} {path}",
            route.method
        );
    }
}

#[tokio::test]
async fn every_body_refuses_unknown_fields() {
    let document = document();
    let mut bodies = 0;
    for route in table().into_iter().filter(|route| route.body.is_some()) {
        let world = world_for(&route.path);
        let path = filled(&route.path);
        let mut body = right_body(&world, &route).await;
        body["surprise"] = json!(1);
        let answer = world
            .write(route.method.clone(), &path, ADMIN, NONE, &body)
            .await;
        let shown = format!("{} {path}: {}", route.method, answer.text);
        assert_eq!(answer.status.as_u16(), 400, "{shown}");
        check(&document, &route.method, &route.path, &answer);
        bodies += 1;
    }
    assert_eq!(bodies, 2 * Kind::ALL.len() + 3);
}

#[tokio::test]
async fn table_and_document_agree() {
    let document = document();
    let served = World::new().read("/api/openapi.json").await.json();
    assert_eq!(served, document);
    assert_eq!(document["openapi"], "3.1.0");
    let table = table();
    let mut described = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let is_this = |route: &&Route| {
                described_path(&route.path) == *path
                    && route.method.as_str().eq_ignore_ascii_case(method)
            };
            let route = table.iter().find(is_this).expect("a route of the table");
            let (resource, right) = route.need;
            let right = format!("{}:{}", resource.as_str(), right.as_str());
            assert_eq!(operation["x-right"], right, "{method} {path}");
            assert!(!route.summary.is_empty(), "{method} {path}");
            let in_path = path.matches('{').count();
            let parameters = operation["parameters"].as_array().expect("a list").iter();
            let named = parameters.filter(|one| one["in"] == "path").count();
            assert_eq!(named, in_path, "{method} {path}");
            described += 1;
        }
    }
    assert_eq!(described, table.len());
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a closing quote");
        assert!(!document["components"]["schemas"][name].is_null(), "{name}");
    }
}
