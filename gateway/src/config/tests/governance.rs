//! Documents of governance: users, rules, roles, limits everywhere, stores.

use super::bad::{below, changed, key};

#[test]
fn right_ones() {
    below(
        "routing_rules: [{name: a, when: \"model == 'gpt' && budget_used > 80.0\", targets: [{provider: openai, model: gpt, key: main}], fallbacks: [openai/gpt]}]\n",
        "",
    );
    below(
        "routing_rules: [{name: a, scope: customer, subject: acme, priority: 3, chain: true, enabled: false, shadow: true, targets: [{model: gpt, weight: 0}]}]\n",
        "",
    );
    below(
        "governance: {global: {rate_limits: [{requests: 1, every: 1m, shadow: true}]}, models: [{name: gpt, budgets: [{limit_usd: 1, every: 1d, enforcement: strict, on_tight: clamp}]}], users: {trusted_from: [10.0.0.0/8, '::1/128'], rate_limits: [{concurrent: 1}]}}\n",
        "",
    );
    below(
        "admin: {roles: [{name: keys, permissions: [{resource: virtual-keys, operations: ['*']}, {resource: '*', operations: [read]}]}], tokens: [{name: a, role: keys, value: 0123456789abcdef}]}\n",
        "",
    );
    below(
        "store: {type: postgres, url: env.URL, pool: 3, migrate: false, tls: {mode: verify-full, ca: file.ca}}\n",
        "",
    );
    below(
        "store: {type: postgres, host: db, user: a, password: file.p, database: b}\n",
        "",
    );
    key(
        "not_before: 2027-01-01T00:00:00Z, expires_at: 2027-01-01T02:00:00+01:00, providers: [{name: openai, rate_limits: [{tokens: 1, every: 1m, enforcement: strict, on_tight: refuse}], budgets: [{limit_usd: 1, every: 1d}]}]",
        "",
    );
    changed(
        "{name: gpt,",
        "{name: gpt, rate_limits: [{requests: 1, every: 1m}], budgets: [{limit_usd: 1, every: 1M}],",
        "",
    );
    changed(
        "keys: [{name: main",
        "budgets: [{limit_usd: 1, every: 1M}]\n    keys: [{name: main",
        "",
    );
}

const RULES: &[[&str; 2]] = &[
    ["{name: a}", ": `targets` is missing"],
    ["{name: a, targets: []}", ".targets: must not be empty"],
    [
        "{name: a, when: 'model ==', targets: [{model: gpt}]}",
        ".when: syntax error",
    ],
    [
        "{name: a, when: 'modle == \"gpt\"', targets: [{model: gpt}]}",
        ".when: unknown variable 'modle'",
    ],
    [
        "{name: a, when: 'budget_used', targets: [{model: gpt}]}",
        ".when: ",
    ],
    [
        "{name: a, when: 'model > 1', targets: [{model: gpt}]}",
        ".when: ",
    ],
    [
        "{name: a, targets: [{model: gtp}]}",
        ".targets[0].model: there is no model 'gtp', did you mean 'gpt'?",
    ],
    [
        "{name: a, targets: [{provider: opena}]}",
        ".targets[0].provider: there is no provider 'opena', did you mean 'openai'?",
    ],
    [
        "{name: a, targets: [{provider: openai, key: man}]}",
        ".targets[0].key: there is no key of provider 'openai' called 'man', did you mean 'main'?",
    ],
    [
        "{name: a, targets: [{key: main}]}",
        ".targets[0].key: needs `provider`: whose key is meant?",
    ],
    [
        "{name: a, targets: [{model: gpt}], fallbacks: [gpt]}",
        ".fallbacks[0]: 'gpt' names no provider: choices are `provider/model`",
    ],
    [
        "{name: a, subject: x, targets: [{model: gpt}]}",
        ".subject: has no meaning with `scope: global`",
    ],
    [
        "{name: a, scope: team, targets: [{model: gpt}]}",
        ": `subject` is missing: whose requests are meant?",
    ],
    [
        "{name: a, scope: team, subject: serch, targets: [{model: gpt}]}",
        ".subject: there is no team 'serch', did you mean 'search'?",
    ],
    [
        "{name: a, scope: virtual_key, subject: none, targets: [{model: gpt}]}",
        ".subject: there is no virtual key 'none'",
    ],
];

/// What is told of a rule begins with the table's text.
#[test]
fn rules() {
    for [rule, expected] in RULES {
        let text = format!("{}routing_rules: [{rule}]\n", super::bad::BASE);
        let told = super::judge(&text);
        let expected = format!("t.yaml:12: routing_rules[0]{expected}");
        assert!(told.starts_with(&expected), "{rule}\n{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    below(
        "routing_rules:\n- {name: a, targets: [{model: gpt}]}\n- {name: a, targets: [{model: gpt}]}\n",
        "t.yaml:14: routing_rules[1].name: routing rule 'a' is already defined at t.yaml:13",
    );
}

const BELOW: &[[&str; 2]] = &[
    [
        "governance: {models: [{name: gtp}]}\n",
        "t.yaml:12: governance.models[0].name: there is no model 'gtp', did you mean 'gpt'?",
    ],
    [
        "governance: {global: {budgets: [{limit_usd: -1, every: 1d}]}}\n",
        "t.yaml:12: governance.global.budgets[0].limit_usd: `-1`: must not be negative",
    ],
    [
        "governance: {users: {required: true}}\n",
        "t.yaml:12: governance.users: nobody may name a user: give `trusted_from` or `jwt`",
    ],
    [
        "governance: {users: {trusted_from: [10.0.0.1/8, here]}}\n",
        "t.yaml:12: governance.users.trusted_from[0]: has bits beyond its length: `10.0.0.0/8` is meant?\nt.yaml:12: governance.users.trusted_from[1]: expected a network such as `10.0.0.0/8`, found `here`",
    ],
    [
        "governance: {users: {jwt: {jwks: 'ftp://x', issuer: a, audience: ''}}}\n",
        "t.yaml:12: governance.users.jwt.audience: must not be empty\nt.yaml:12: governance.users.jwt.jwks: must begin with http:// or https://",
    ],
    [
        "admin: {roles: [{name: viewer}]}\n",
        "t.yaml:12: admin.roles[0].name: `viewer` is a built-in role: give this one another name",
    ],
    [
        "admin: {tokens: [{name: a, role: admin}]}\n",
        "t.yaml:12: admin.tokens[0]: needs exactly one of `value`, `sha256`",
    ],
    [
        "store: {url: env.X}\n",
        "t.yaml:12: store.url: has a meaning with `type: postgres` only",
    ],
    [
        "store: {type: postgres, path: x}\n",
        "t.yaml:12: store: `type: postgres` needs `url` or `host`\nt.yaml:12: store.path: has a meaning with `type: sqlite` only",
    ],
    [
        "store: {type: postgres, url: 'mysql://x', port: 1}\n",
        "t.yaml:12: store.port: stands in `url` already: give one of them\nt.yaml:12: store.url: must begin with postgres://",
    ],
];

#[test]
fn wrong_ones() {
    for [text, expected] in BELOW {
        below(text, expected);
    }
    changed(
        "{name: gpt,",
        "{name: a, choices: [b]}\n  - {name: b, choices: [a]}\n  - {name: gpt,",
        "t.yaml:8: models[0].choices[0]: 'b' is an alias: choices are `provider/model`\nt.yaml:9: models[1].choices[0]: 'a' is an alias: choices are `provider/model`",
    );
}

#[test]
fn keys() {
    key(
        "not_before: 2027-02-30T00:00:00Z, providers: [{name: openai}]",
        ".not_before: `2027-02-30T00:00:00Z` is no time of the calendar after 1970",
    );
    key(
        "expires_at: tomorrow, providers: [{name: openai}]",
        ".expires_at: expected a time such as `2027-01-31T18:00:00Z`, found `tomorrow`",
    );
    key(
        "not_before: 2027-01-02T00:00:00Z, expires_at: 2027-01-01T00:00:00Z, providers: [{name: openai}]",
        ".expires_at: is not after `not_before`",
    );
    key(
        "rate_limits: [{requests: 1, every: 1m, on_tight: clamp}]",
        ".rate_limits[0].on_tight: has a meaning with `enforcement: strict` of tokens or money only",
    );
    key(
        "budgets: [{limit_usd: 1, every: 1d, on_tight: clamp}]",
        ".budgets[0].on_tight: has a meaning with `enforcement: strict` of tokens or money only",
    );
}
