//! `admin`: tokens, roles, and what each token may do.

use std::collections::BTreeMap;

use policy::KeyHash;

use super::key::from_hex;
use super::server::LEAST_TOKEN;
use super::{Checks, unknown};
use crate::admin::rights::Rights;
use crate::config::file::{AdminTokenEntry, File, RoleEntry};
use crate::config::problem::FieldPath;
use crate::state::{AdminAccess, AdminToken};

const BUILT_IN: [&str; 3] = ["admin", "operator", "viewer"];

pub(super) fn admin(checks: &mut Checks<'_>, file: &File) -> AdminAccess {
    let at = FieldPath::root().key("admin");
    let roles = roles(checks, &at.key("roles"), &file.admin.roles);
    let entries = &file.admin.tokens;
    let mut names = BTreeMap::new();
    let mut tokens: Vec<AdminToken> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = at.key("tokens").index(index);
        checks.once(&mut names, "admin token", &entry.name, &at.key("name"));
        let rights = rights(checks, &at, entry, &roles);
        let Some((hash, field)) = hash(checks, &at, entry) else {
            continue;
        };
        if let Some(twin) = tokens.iter().find(|token| token.hash == hash) {
            let message = format!("has the same value as admin token '{}'", twin.name);
            checks.problem(&at.key(field), message);
        }
        tokens.push(AdminToken {
            name: entry.name.as_str().into(),
            role: entry.role.as_str().into(),
            rights,
            hash,
        });
    }
    AdminAccess { tokens }
}

fn roles<'f>(
    checks: &mut Checks<'_>,
    all: &FieldPath,
    entries: &'f [RoleEntry],
) -> BTreeMap<&'f str, Rights> {
    let mut seen = BTreeMap::new();
    let mut roles = BTreeMap::new();
    for (index, role) in entries.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "role", &role.name, &at.key("name"));
        if BUILT_IN.contains(&role.name.as_str()) {
            let message = format!(
                "`{}` is a built-in role: give this one another name",
                role.name
            );
            checks.problem(&at.key("name"), message);
        }
        let mut rights = Rights::NONE;
        for (index, permission) in role.permissions.iter().enumerate() {
            for operation in &permission.operations {
                let text = format!("{}:{}", permission.resource.as_str(), operation.as_str());
                match Rights::parse(&text) {
                    Ok(more) => rights = rights.union(more),
                    Err(error) => {
                        checks.problem(&at.key("permissions").index(index), error.to_string());
                    }
                }
            }
        }
        roles.insert(role.name.as_str(), rights);
    }
    roles
}

fn rights(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    entry: &AdminTokenEntry,
    roles: &BTreeMap<&str, Rights>,
) -> Rights {
    let of_role = Rights::built_in(&entry.role).or_else(|| roles.get(&*entry.role).copied());
    let of_role = of_role.unwrap_or_else(|| {
        let known = BUILT_IN.iter().chain(roles.keys());
        checks.problem(&at.key("role"), unknown("role", &entry.role, known));
        Rights::NONE
    });
    let Some(ceiling) = &entry.ceiling else {
        return of_role;
    };
    let ceiling = Rights::parse_all(ceiling.iter().map(String::as_str));
    of_role.intersection(ceiling.unwrap_or_else(|error| {
        checks.problem(&at.key("ceiling"), error.to_string());
        Rights::NONE
    }))
}

/// The token's hash, and the field that gives it.
fn hash(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    entry: &AdminTokenEntry,
) -> Option<(KeyHash, &'static str)> {
    match (&entry.value, &entry.sha256) {
        (Some(value), None) => {
            let secret = checks.secret(&at.key("value"), &value.0, LEAST_TOKEN);
            Some((KeyHash::of(secret.expose().as_bytes()), "value"))
        }
        (None, Some(text)) => {
            let hash = from_hex(checks, &at.key("sha256"), text)?;
            Some((hash, "sha256"))
        }
        _ => {
            checks.problem(at, "needs exactly one of `value`, `sha256`");
            None
        }
    }
}
