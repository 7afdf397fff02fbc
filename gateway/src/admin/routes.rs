//! The one table of everything under `/api/`.
//!
//! Promise: the router, the rights that a call needs and the description of
//! the API are all made from this table, so none of them can lag behind.

use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::answer::Refusal;
use super::auth::authorise;
use super::entities::{self, Kind};
use super::rights::{Operation, Resource};
use super::{
    Shared, audit, cluster, configuration, explain, health, limits, openapi, prices, usage,
};

/// Makes the schema of a body.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type.
pub(super) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A path, a method and everything that is to be known of them.
pub(super) struct Route {
    pub(super) method: Method,
    /// Below `/api`, as axum matches it.
    pub(super) path: String,
    /// The right that a call needs.
    pub(super) need: (Resource, Operation),
    /// One sentence.
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<&'static Parameter>,
    /// The body that a call has to have.
    pub(super) body: Option<Shape>,
    /// Status and body of each answer; none for an empty one.
    pub(super) answers: Vec<(u16, Option<Shape>)>,
    serve: MethodRouter<Shared>,
}

/// A parameter of a query, or a header.
#[derive(Debug)]
pub(super) struct Parameter {
    /// `query` or `header`.
    pub(super) place: &'static str,
    pub(super) name: &'static str,
    /// Of the value, in JSON Schema's words.
    pub(super) kind: &'static str,
    pub(super) says: &'static str,
}

const LIMIT: Parameter = Parameter {
    place: "query",
    name: "limit",
    kind: "integer",
    says: "Most entries in the answer, 1 to 1000; default: 100.",
};
const AFTER: Parameter = Parameter {
    place: "query",
    name: "after",
    kind: "string",
    says: "Only entries after this one: the `next` of the answer before.",
};
const KEY: Parameter = Parameter {
    place: "query",
    name: "key",
    kind: "string",
    says: "Only records of this virtual key.",
};
const IF_MATCH: Parameter = Parameter {
    place: "header",
    name: "If-Match",
    kind: "string",
    says: "The `ETag` that the entity must still have; `*`: it must be there.",
};
const IF_NONE_MATCH: Parameter = Parameter {
    place: "header",
    name: "If-None-Match",
    kind: "string",
    says: "On a read: the `ETag` that is known. On a write `*`: it must not be there.",
};

/// Refusals that any call may get.
const ALWAYS: [u16; 6] = [401, 403, 408, 413, 429, 500];

/// Every route of the API.
pub(super) fn table() -> Vec<Route> {
    let mut table = Vec::new();
    for kind in Kind::ALL {
        table.extend(of_kind(kind));
    }
    table.extend(of_keys());
    table.extend(of_limits());
    table.extend(of_node());
    table.extend(of_records());
    table.extend(of_cluster());
    table
}

/// The five calls that every kind of entity has.
fn of_kind(kind: Kind) -> [Route; 5] {
    let (all, one) = (format!("/{}", kind.path()), entities::path_of_one(kind));
    let resource = kind.resource();
    let shapes = entities::shapes(kind);
    [
        Route::new(Method::GET, &all, resource, Operation::Read, entities::list)
            .says("Those of this kind by name, a page at a time.")
            .takes(&[&LIMIT, &AFTER])
            .answers(200, shapes.page)
            .refuses(&[400]),
        Route::new(
            Method::POST,
            &all,
            resource,
            Operation::Create,
            entities::create,
        )
        .says("Makes one. A secret that Tyr made is shown in this answer only.")
        .takes(&[&IF_NONE_MATCH])
        .with_body(shapes.written)
        .answers(201, shapes.created)
        .refuses(&[400, 409, 412, 503]),
        Route::new(Method::GET, &one, resource, Operation::Read, entities::show)
            .says("One of them, with where its limits stand.")
            .takes(&[&IF_NONE_MATCH])
            .answers(200, shapes.shown)
            .answers_nothing(304)
            .refuses(&[400, 404]),
        Route::new(
            Method::PUT,
            &one,
            resource,
            Operation::Update,
            entities::replace,
        )
        .says("Puts this in the place of what is there, as a whole.")
        .takes(&[&IF_MATCH, &IF_NONE_MATCH])
        .with_body(shapes.written)
        .answers(200, shapes.created)
        .answers(201, shapes.created)
        .refuses(&[400, 404, 409, 412, 503]),
        Route::new(
            Method::DELETE,
            &one,
            resource,
            Operation::Delete,
            entities::delete,
        )
        .says("Takes it away.")
        .takes(&[&IF_MATCH])
        .answers_nothing(204)
        .refuses(&[400, 404, 409, 412, 503]),
    ]
    .map(|route| route.about(kind))
}

fn of_keys() -> [Route; 2] {
    let keys = Resource::VirtualKeys;
    let created = entities::shapes(Kind::VirtualKey).created;
    [
        Route::new(
            Method::POST,
            "/virtual-keys/{name}/rotate",
            keys,
            Operation::Update,
            entities::rotate,
        )
        .says("Gives a key a new value; the old one is accepted for the grace.")
        .takes(&[&IF_MATCH])
        .with_body(of::<entities::Rotation>)
        .answers(200, created)
        .refuses(&[400, 404, 409, 412, 503]),
        Route::new(
            Method::POST,
            "/virtual-keys/{name}/revoke",
            keys,
            Operation::Update,
            entities::revoke,
        )
        .says("Refuses a key from now on, one of the file too.")
        .answers(200, of::<entities::Revocation>)
        .refuses(&[400, 404, 503]),
    ]
}

fn of_limits() -> [Route; 2] {
    let limits = Resource::Limits;
    [
        Route::new(
            Method::GET,
            "/limits",
            limits,
            Operation::Read,
            limits::list,
        )
        .says("Where each limit stands, a page at a time.")
        .takes(&[&LIMIT, &AFTER])
        .answers(200, of::<limits::LimitPage>)
        .refuses(&[400]),
        Route::new(
            Method::POST,
            "/limits/reset",
            limits,
            Operation::Run,
            limits::reset,
        )
        .says("Starts the count of one limit at zero.")
        .with_body(of::<limits::Reset>)
        .answers(200, of::<limits::ResetDone>)
        .refuses(&[400, 404, 503]),
    ]
}

fn of_node() -> [Route; 6] {
    use Resource::{Config, Drain, Explain, Reload};
    let read = Operation::Read;
    let run = Operation::Run;
    [
        Route::new(Method::GET, "/config", Config, read, configuration::show)
            .says("The configuration in use, secrets masked.")
            .takes(&[&IF_NONE_MATCH])
            .answers(200, of::<configuration::ConfigurationShown>)
            .answers_nothing(304),
        Route::new(Method::GET, "/catalogue", Config, read, prices::show)
            .says("The price list, and how it fares.")
            .answers(200, of::<prices::CatalogueShown>),
        Route::new(Method::GET, "/openapi.json", Config, read, openapi::show)
            .says("This description.")
            .answers(200, of::<serde_json::Map<String, serde_json::Value>>),
        Route::new(Method::POST, "/reload", Reload, run, configuration::reload)
            .says("Reads the configuration again; a bad one changes nothing.")
            .answers(200, of::<configuration::ReloadDone>)
            .answers(400, of::<configuration::ReloadRefused>),
        Route::new(Method::POST, "/drain", Drain, run, health::drain)
            .says("Makes readiness fail from now on.")
            .answers(200, of::<health::Draining>),
        Route::new(Method::POST, "/explain", Explain, run, explain::run)
            .says("What would happen to a request; nothing is sent, taken or counted.")
            .with_body(of::<explain::Question>)
            .answers(200, of::<explain::Explanation>)
            .refuses(&[400]),
    ]
}

fn of_cluster() -> [Route; 2] {
    let resource = Resource::Cluster;
    [
        Route::new(
            Method::GET,
            "/cluster",
            resource,
            Operation::Read,
            cluster::show,
        )
        .says("The nodes of the cluster and its limits, as this node sees them.")
        .answers(200, of::<cluster::ClusterShown>),
        Route::new(
            Method::POST,
            "/cluster/diagnose",
            resource,
            Operation::Run,
            cluster::diagnose,
        )
        .says("Checks the way to every node: a line of JSON for each finding, as it comes.")
        .answers(200, of::<cluster::DiagnosisLine>)
        .refuses(&[409]),
    ]
}

fn of_records() -> [Route; 3] {
    use Resource::{Audit, Usage};
    let read = Operation::Read;
    [
        Route::new(Method::GET, "/usage", Usage, read, usage::list)
            .says("Usage records, newest first, a page at a time.")
            .takes(&[&LIMIT, &AFTER, &KEY])
            .answers(200, of::<usage::RecordPage>)
            .refuses(&[400, 503]),
        Route::new(Method::GET, "/usage/{request_id}", Usage, read, usage::show)
            .says("The usage record of one request.")
            .answers(200, of::<usage::Record>)
            .refuses(&[400, 404, 503]),
        Route::new(Method::GET, "/audit", Audit, read, audit::list)
            .says("Who changed what, oldest first, a page at a time.")
            .takes(&[&LIMIT, &AFTER])
            .answers(200, of::<audit::AuditPage>)
            .refuses(&[400, 503]),
    ]
}

/// The router of the whole table.
pub(super) fn router() -> Router<Shared> {
    let add = |router: Router<Shared>, route: Route| router.route(&route.path, route.serve);
    table().into_iter().fold(Router::new(), add)
}

// === impl Route ===

impl Route {
    fn new<H, T>(
        method: Method,
        path: &str,
        resource: Resource,
        operation: Operation,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone())
            .expect("the table holds methods that axum knows");
        let need = (resource, operation);
        let judged = move |request: Request, next: Next| authorise(need, request, next);
        Route {
            method,
            path: path.to_owned(),
            need,
            summary: "",
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            serve: on(filter, handler).route_layer(middleware::from_fn(judged)),
        }
        .refuses(&ALWAYS)
    }

    fn says(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    fn takes(mut self, parameters: &[&'static Parameter]) -> Self {
        self.parameters.extend(parameters);
        self
    }

    fn with_body(mut self, body: Shape) -> Self {
        self.body = Some(body);
        self
    }

    fn answers(mut self, status: u16, body: Shape) -> Self {
        self.answers.push((status, Some(body)));
        self
    }

    fn answers_nothing(mut self, status: u16) -> Self {
        self.answers.push((status, None));
        self
    }

    fn refuses(mut self, statuses: &[u16]) -> Self {
        let refusals = statuses
            .iter()
            .map(|status| (*status, Some(of::<Refusal> as Shape)));
        self.answers.extend(refusals);
        self
    }

    /// Tells the handler which kind it is about.
    fn about(mut self, kind: Kind) -> Self {
        self.serve = self.serve.layer(Extension(kind));
        self
    }
}
