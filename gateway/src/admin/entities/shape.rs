//! The schemas of each kind, made from the types that the file is read with.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::Kind;
use crate::admin::routes::{Shape, of};
use crate::admin::standing::LimitStanding;
use crate::config::file;

/// The bodies of a kind's calls.
#[derive(Clone, Copy)]
pub(in crate::admin) struct Shapes {
    /// In a write.
    pub(in crate::admin) written: Shape,
    /// In a read.
    pub(in crate::admin) shown: Shape,
    /// In the answer that made or changed it.
    pub(in crate::admin) created: Shape,
    /// In a list.
    pub(in crate::admin) page: Shape,
}

/// The schemas of `kind`.
pub(in crate::admin) fn shapes(kind: Kind) -> Shapes {
    match kind {
        Kind::Customer => of_type::<file::Customer>(),
        Kind::Team => of_type::<file::Team>(),
        Kind::Provider => of_type::<file::Provider>(),
        Kind::Model => of_type::<file::ModelEntry>(),
        Kind::VirtualKey => of_type::<file::VirtualKey>(),
        Kind::RoutingRule => of_type::<file::RoutingRule>(),
        Kind::AdminToken => of_type::<file::AdminTokenEntry>(),
        Kind::Role => of_type::<file::RoleEntry>(),
        Kind::LimitOverride => of_type::<file::LimitOverride>(),
    }
}

fn of_type<T: JsonSchema>() -> Shapes {
    Shapes {
        written: of::<T>,
        shown: |generator| read::<T>(generator, "Shown"),
        created: |generator| read::<T>(generator, "Created"),
        page: |generator| {
            let shown = read::<T>(generator, "Shown");
            json_schema!({
                "type": "object",
                "properties": {
                    "data": {"type": "array", "items": shown},
                    "next": {
                        "type": ["string", "null"],
                        "description": "What `after` has to be for the next page; null: there is none.",
                    },
                },
                "required": ["data", "next"],
                "additionalProperties": false,
            })
        },
    }
}

/// The schema of a write and what a read adds to it.
fn read<T: JsonSchema>(generator: &mut SchemaGenerator, suffix: &str) -> Schema {
    let name = format!("{}{suffix}", T::schema_name());
    let reference = Schema::new_ref(format!("#/components/schemas/{name}"));
    if generator.definitions().contains_key(&name) {
        return reference;
    }
    let standing = generator.subschema_for::<LimitStanding>();
    let mut schema = T::json_schema(generator).to_value();
    let added = [
        (
            "source",
            json!({"type": "string", "enum": ["file", "api"], "readOnly": true}),
        ),
        (
            "revision",
            json!({"type": "integer", "minimum": 0, "readOnly": true}),
        ),
        (
            "standing",
            json!({"type": "array", "items": standing, "readOnly": true}),
        ),
    ];
    for (field, added) in added {
        schema["properties"][field] = added;
        if let Some(required) = schema["required"].as_array_mut() {
            required.push(Value::from(field));
        }
    }
    if suffix == "Created" {
        let says = "On how many of the live nodes it is in force, as `2/3`.";
        schema["properties"]["applied_on"] =
            json!({"type": "string", "description": says, "readOnly": true});
        let says = "The secret itself where Tyr made it: in this answer only.";
        schema["properties"]["value"] = json!({"type": "string", "description": says});
    }
    generator.definitions_mut().insert(name, schema);
    reference
}
