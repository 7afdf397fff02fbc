//! The JSON Schema of the configuration, made from the types in `file`.
//!
//! Promise: `tyr schema`, `conf/tyr.schema.json` and the checks at load are
//! the same schema.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use jsonschema::Validator;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::Value;

use super::catalogue::Kind;
use super::file::File;

/// The schema as a JSON value.
pub fn schema() -> Value {
    SchemaSettings::draft2020_12()
        .with_transform(NullIsNoValue)
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value()
}

/// The schema as `tyr schema` prints it, with a newline at the end.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// The compiled schema; the same for every document of this process.
pub(super) fn validator() -> &'static Compiled {
    static COMPILED: OnceLock<Compiled> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let schema = schema();
        let validator = jsonschema::validator_for(&schema)
            .expect("the schema depends on nothing but our types, and a test compiles it");
        Compiled { schema, validator }
    })
}

/// The compiled schema of one entity, as the API takes it.
pub(super) fn entity_validator(kind: Kind) -> &'static Compiled {
    static COMPILED: OnceLock<BTreeMap<Kind, Compiled>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let kinds = Kind::ALL.into_iter();
        kinds.map(|kind| (kind, of_entity(kind))).collect()
    });
    &compiled[&kind]
}

fn of_entity(kind: Kind) -> Compiled {
    let schema = entity_schema(kind);
    let validator = jsonschema::validator_for(&schema)
        .expect("the schema depends on nothing but our types, and a test compiles it");
    Compiled { schema, validator }
}

/// The schema of one entity, as the API takes it.
pub fn entity_schema(kind: Kind) -> Value {
    let generator = SchemaSettings::draft2020_12()
        .with_transform(NullIsNoValue)
        .into_generator();
    let mut schema = kind.schema(generator).to_value();
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("$schema");
    }
    schema
}

/// The schema in both forms.
pub(super) struct Compiled {
    pub(super) schema: Value,
    pub(super) validator: Validator,
}

/// An optional field may be absent but not null: a name without a value is
/// more often a slip than a wish.
#[derive(Clone, Debug)]
struct NullIsNoValue;

impl Transform for NullIsNoValue {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else {
            return;
        };
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(words)) = object.get_mut("enum") {
            words.retain(|word| !word.is_null());
        }
        if object.get("default") == Some(&Value::Null) {
            object.remove("default");
        }
        let Some(Value::Array(branches)) = object.get_mut("anyOf") else {
            return;
        };
        branches.retain(|branch| branch.get("type") != Some(&Value::from("null")));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (keyword, value) in only {
                object.entry(keyword).or_insert(value);
            }
        }
    }
}
