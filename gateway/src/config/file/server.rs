//! `server`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::{AddressText, Length, Size};

/// Addresses, and the bounds on connections and requests.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Where clients connect: `IP:port`, or a list of them. Read at the start only.
    pub listen: Listen,
    /// Where health, metrics and the admin API are served. Read at the start only.
    pub admin_listen: AddressText,
    /// Largest decoded body of a request.
    pub max_body: Size,
    /// How long requests in flight may go on after a stop was asked for. Read at the start only.
    pub drain_grace: Length,
    /// Certificate of the data plane; without it clients connect in the clear. Read at the start only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Folder of the usage file and the node's lock, relative to the working folder. Read at the start only.
    pub data_dir: AddressText,
    /// Unix socket over which a new process takes the listeners over; default: none. Read at the start only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_socket: Option<AddressText>,
    /// Threads of the data plane; default: one per core. Read at the start only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<u16>,
    /// A request's head must be complete within this time. Read at the start only.
    pub header_timeout: Length,
    /// A kept connection without a request is closed after this time. Read at the start only.
    pub idle_timeout: Length,
    /// Connections at the same time. Read at the start only.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_connections: u32,
    /// Connections at the same time from one IP address. Read at the start only.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_connections_per_address: u32,
    /// Most bytes of request bodies that all requests may hold together.
    pub max_held_bodies: Size,
    /// Slowest accepted upload of a body, per second.
    pub body_min_rate: Size,
    /// Deepest nesting of a JSON body.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_json_depth: u32,
    /// How long a client may refuse to read before it is cut.
    pub write_stall: Length,
    /// Silence on a stream after which a keep-alive comment is sent.
    pub keep_alive: Length,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: Listen(vec![AddressText("127.0.0.1:8080".to_owned())]),
            admin_listen: AddressText("127.0.0.1:9090".to_owned()),
            max_body: Size::mib(32),
            drain_grace: Length::seconds(60),
            tls: None,
            data_dir: AddressText("data".to_owned()),
            upgrade_socket: None,
            threads: None,
            header_timeout: Length::seconds(10),
            idle_timeout: Length::seconds(60),
            max_connections: 10_000,
            max_connections_per_address: 1_024,
            max_held_bodies: Size::kib(1024 * 1024),
            body_min_rate: Size::kib(1),
            max_json_depth: 128,
            write_stall: Length::seconds(60),
            keep_alive: Length::seconds(15),
        }
    }
}

/// One address, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub Vec<AddressText>);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a list of them")
            }

            fn visit_str<E>(self, text: &str) -> Result<Listen, E> {
                Ok(Listen(vec![AddressText(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Listen, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Listen(all))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => only.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

impl JsonSchema for Listen {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "minLength": 1,
            "minItems": 1,
            "items": {"type": "string", "minLength": 1},
        })
    }
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// The certificate chain: `file.PATH` or a path.
    pub cert: AddressText,
    /// Its private key: `file.PATH` or a path.
    pub key: AddressText,
}
