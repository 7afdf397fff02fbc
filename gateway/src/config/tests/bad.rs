//! Documents of a wrong form, and what is said about each.

use super::judge;

/// Lines 1 to 11; tables add to it from line 12 on.
pub(super) const BASE: &str = "\
version: 1
providers:
  - name: openai
    kind: openai
    base_url: https://api.openai.com/v1
    keys: [{name: main, value: sk-upstream}]
models:
  - {name: gpt, provider: openai, price: {input: 1, output: 2}}
customers: [{name: acme}]
teams: [{name: search, customer: acme}]
# until here
";

/// `BASE` with `more` below gives exactly `expected`.
#[track_caller]
pub(super) fn below(more: &str, expected: &str) {
    assert_eq!(judge(&format!("{BASE}{more}")), expected, "\n{more}");
}

#[track_caller]
fn alone(text: &str, expected: &str) {
    assert_eq!(judge(text), expected, "\n{text}");
}

/// `BASE` with one text replaced by another.
#[track_caller]
pub(super) fn changed(from: &str, to: &str, expected: &str) {
    assert!(BASE.contains(from), "{from}");
    assert_eq!(judge(&BASE.replace(from, to)), expected, "\n{to}");
}

/// One virtual key with these fields on line 12; problems are below its path.
#[track_caller]
pub(super) fn key(fields: &str, expected: &str) {
    let text = format!("{BASE}virtual_keys: [{{name: a, value: sk-tyr-0123456789, {fields}}}]");
    let expected: Vec<String> = expected
        .lines()
        .map(|line| format!("t.yaml:12: virtual_keys[0]{line}"))
        .collect();
    assert_eq!(judge(&text), expected.join("\n"), "\n{fields}");
}

#[test]
fn right_ones() {
    below("", "");
    key("providers: [{name: openai, models: [gpt]}]", "");
    key(
        "rate_limits: [{requests: 1, every: 2d}, {requests: 1, every: 48h, name: x}]",
        "",
    );
    key("budgets: [{limit_usd: '0.000000001', every: 90m}]", "");
    key(
        "budgets: [{limit_usd: 1e-9, every: 1Y, fiscal_start: 4}]",
        "",
    );
    below("routing_rules: []\n", "");
    below("cluster: {enabled: false, secret: env.NOT_SET}\n", "");
    below(
        "server: {listen: [127.0.0.1:1, '[::1]:1'], max_body: 1000}\n",
        "",
    );
}

#[test]
fn yaml() {
    alone("", "t.yaml:1: document: the file is empty");
    alone("# only this\n", "t.yaml:1: document: the file is empty");
    alone("---\n", "t.yaml:1: document: the file is empty");
    alone(
        "- a\n",
        "t.yaml:1: document: expected a mapping, found a list",
    );
    alone(
        "version: 1\n---\nversion: 1\n",
        "t.yaml:2: document: a second document (`---`) in one file is not supported",
    );
    alone(
        "version: 1\nserver: {\n",
        "t.yaml:3: server: not valid YAML: while parsing a node, did not find expected node content",
    );
    alone(
        "version: 1\n\tserver: 1\n",
        "t.yaml:1: version: not valid YAML: while scanning a plain scalar, found a tab",
    );
    alone(
        "a: &x 1\nb: *x\n",
        "t.yaml:1: a: anchors (`&name`) are not supported: write the value out\nt.yaml:2: b: aliases (`*name`) are not supported: write the value out",
    );
    alone(
        "a: {<<: {b: 1}}\n",
        "t.yaml:1: a.<<: merge keys (`<<`) are not supported: write the fields out",
    );
    alone(
        "version: !!str 1\n",
        "t.yaml:1: version: tags (`!name`) are not supported",
    );
    alone(
        "? [a, b]\n: 1\n",
        "t.yaml:1: document: a field's name must be plain text",
    );
    alone(
        "version: 1\nserver: {}\nversion: 1\nserver: {}\n",
        "t.yaml:3: version: `version` stands twice in one mapping, first in line 1\nt.yaml:4: server: `server` stands twice in one mapping, first in line 2",
    );
}

const FIELDS_AND_TYPES_ALONE: &[[&str; 2]] = &[
    ["server: {}\n", "t.yaml:1: document: `version` is missing"],
    ["version: 2\n", "t.yaml:1: version: expected `1`, found `2`"],
    [
        "version: '1'\n",
        "t.yaml:1: version: expected a whole number, found text",
    ],
];

const FIELDS_AND_TYPES_BELOW: &[[&str; 2]] = &[
    [
        "sever: {}\n",
        "t.yaml:12: sever: unknown field `sever`, did you mean `server`?",
    ],
    [
        "server:\n  lisen: 127.0.0.1:1\n",
        "t.yaml:13: server.lisen: unknown field `lisen`, did you mean `listen`?",
    ],
    [
        "admin: {x: 1}\n",
        "t.yaml:12: admin.x: unknown field `x`; known are `roles`, `tokens`",
    ],
    [
        "server:\n",
        "t.yaml:12: server: has no value: give it one or remove the line",
    ],
    [
        "server: {max_body: lots}\n",
        "t.yaml:12: server.max_body: expected a size such as `512KiB` or `32MiB`, found `lots`",
    ],
    [
        "server: {max_body: -1}\n",
        "t.yaml:12: server.max_body: must be 0 or more, is -1",
    ],
    [
        "server: {drain_grace: 5 minutes}\n",
        "t.yaml:12: server.drain_grace: expected a length of time such as `250ms`, `30s`, `5m` or `1h`, found `5 minutes`",
    ],
    [
        "server: {threads: 0}\n",
        "t.yaml:12: server.threads: must be 1 or more, is 0",
    ],
    [
        "server: {listen: []}\n",
        "t.yaml:12: server.listen: must not be empty",
    ],
    [
        "server: {listen: 8080}\n",
        "t.yaml:12: server.listen: expected text or a list, found a number",
    ],
    [
        "server: {max_connections: yes}\n",
        "t.yaml:12: server.max_connections: expected a whole number, found text",
    ],
];

const FIELDS_AND_TYPES_CHANGED: &[[&str; 3]] = &[
    [
        "name: openai\n    kind: openai",
        "name: openai\n    kind: gemini",
        "t.yaml:4: providers[0].kind: expected `openai` or `anthropic`, found `gemini`",
    ],
    [
        "name: openai\n    kind: openai",
        "name: open/ai\n    kind: openai",
        "t.yaml:3: providers[0].name: expected 1 to 63 letters, digits, `.`, `_` or `-`, starting with a letter or digit, found `open/ai`",
    ],
    [
        "price: {input: 1, output: 2}",
        "price: {input: 1, output: 2, outptu: 3}",
        "t.yaml:8: models[0].price.outptu: unknown field `outptu`, did you mean `output`?",
    ],
    [
        "price: {input: 1, output: 2}",
        "price: {input: 1}",
        "t.yaml:8: models[0].price: `output` is missing",
    ],
    [
        "price: {input: 1, output: 2}",
        "price: cheap",
        "t.yaml:8: models[0].price: expected `free` or `catalogue` or a mapping, found `cheap`",
    ],
    [
        "price: {input: 1, output: 2}",
        "price: 3",
        "t.yaml:8: models[0].price: expected `free` or `catalogue` or a mapping, found `3`",
    ],
    [
        "value: sk-upstream",
        "value: 12345",
        "t.yaml:6: providers[0].keys[0].value: expected text, found a number; put it in quotes",
    ],
];

const FIELDS_AND_TYPES_KEY: &[[&str; 2]] = &[
    [
        "active: 1",
        ".active: expected true or false, found a number",
    ],
    [
        "rate_limits: [{requests: 1.5, every: 1m}]",
        ".rate_limits[0].requests: expected a whole number, found `1.5`",
    ],
    [
        "rate_limits: [{requests: 0, every: 1m}]",
        ".rate_limits[0].requests: must be 1 or more, is 0",
    ],
    [
        "rate_limits: [{requests: 1, every: 0m}]",
        ".rate_limits[0].every: expected a period such as `30s`, `1m`, `1h`, `1d`, `1w`, `1M`, `1Q` or `1Y`, found `0m`",
    ],
    [
        "rate_limits: [{requests: 1, every: 1m, window: rolling}]",
        ".rate_limits[0].window: expected `sliding` or `smooth` or `fixed`, found `rolling`",
    ],
    [
        "budgets: [{limit_usd: [1], every: 1d}]",
        ".budgets[0].limit_usd: expected a number or text, found a list",
    ],
    [
        "budgets: [{limit_usd: 1, every: 1d, fiscal_start: 13}]",
        ".budgets[0].fiscal_start: must be 12 or less, is 13",
    ],
];

#[test]
fn fields_and_types() {
    for [text, expected] in FIELDS_AND_TYPES_ALONE {
        alone(text, expected);
    }
    for [text, expected] in FIELDS_AND_TYPES_BELOW {
        below(text, expected);
    }
    for [from, to, expected] in FIELDS_AND_TYPES_CHANGED {
        changed(from, to, expected);
    }
    for [text, expected] in FIELDS_AND_TYPES_KEY {
        key(text, expected);
    }
}

const NOT_BUILT_YET: &[[&str; 2]] = &[
    [
        "cluster: {type: broker}\n",
        "t.yaml:12: cluster.type: `broker` is not supported by this version of Tyr",
    ],
    [
        "cluster: {discovery: {enabled: true, type: dns}}\n",
        "t.yaml:12: cluster.discovery.enabled: discovery is not supported by this version of Tyr: set `enabled: false`",
    ],
];

#[test]
fn not_built_yet() {
    for [text, expected] in NOT_BUILT_YET {
        below(text, expected);
    }
}

#[test]
fn all_at_once() {
    below(
        "sever: {}\nadmin: {tokens: 1}\nvirtual_keys: [{nam: a}]\n",
        "t.yaml:12: sever: unknown field `sever`, did you mean `server`?\nt.yaml:13: admin.tokens: expected a list, found a number\nt.yaml:14: virtual_keys[0]: `name` is missing\nt.yaml:14: virtual_keys[0].nam: unknown field `nam`, did you mean `name`?",
    );
    below(
        "server: {listen: nowhere}\nvirtual_keys:\n  - name: a\n    value: short\n    team: none\n    budgets:\n      - {limit_usd: 1, every: 1d}\n      - {limit_usd: -1, every: 1M}\n",
        "t.yaml:12: server.listen: expected an IP address and a port such as `0.0.0.0:8080`, found `nowhere`\nt.yaml:15: virtual_keys[0].value: the value must have 16 or more characters\nt.yaml:16: virtual_keys[0].team: there is no team 'none'\nt.yaml:19: virtual_keys[0].budgets[1].limit_usd: `-1`: must not be negative",
    );
}
