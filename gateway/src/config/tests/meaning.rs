//! Documents of the right form that mean something wrong.

use super::bad::{below, changed, key};

#[test]
fn server() {
    below(
        "server: {listen: localhost:8080}\n",
        "t.yaml:12: server.listen: expected an IP address and a port such as `0.0.0.0:8080`, found `localhost:8080`",
    );
    below(
        "server: {listen: [127.0.0.1:1, 127.0.0.1:1]}\n",
        "t.yaml:12: server.listen[1]: 127.0.0.1:1 is listed twice",
    );
    below(
        "server: {listen: 127.0.0.1:9090}\n",
        "t.yaml:12: server.admin_listen: is also an address of `server.listen`",
    );
    below(
        "server: {header_timeout: 0s}\n",
        "t.yaml:12: server.header_timeout: must be more than zero",
    );
    below(
        "server: {max_body: 0}\n",
        "t.yaml:12: server.max_body: must be more than zero",
    );
    below(
        "server: {data_dir: env.9X}\n",
        "t.yaml:12: server.data_dir: expected the name of an environment variable after `env.`",
    );
    below(
        "admin: {tokens: [{name: a, role: admin, value: short}]}\n",
        "t.yaml:12: admin.tokens[0].value: the value must have 16 or more characters",
    );
    below(
        "admin: {tokens: [{name: a, role: god, value: 0123456789abcdef}]}\n",
        "t.yaml:12: admin.tokens[0].role: there is no role 'god'",
    );
    below(
        "admin:\n  tokens:\n  - {name: a, role: admin, value: 0123456789abcdef}\n  - {name: a, role: admin, value: 0123456789abcdef}\n",
        "t.yaml:15: admin.tokens[1].name: admin token 'a' is already defined at t.yaml:14\nt.yaml:15: admin.tokens[1].value: has the same value as admin token 'a'",
    );
    below(
        "encryption: {keys: [{id: a, value: short}]}\n",
        "t.yaml:12: encryption.keys[0].value: the value must have 32 or more characters",
    );
    below(
        "cluster: {secret: short, peers: [nowhere]}\n",
        "t.yaml:12: cluster.peers[0]: expected `host:port`\nt.yaml:12: cluster.secret: the value must have 32 or more characters",
    );
}

const PROVIDERS: &[[&str; 3]] = &[
    [
        "https://api.openai.com/v1",
        "http://127.0.0.1:1/v1",
        "t.yaml:5: providers[0].base_url: is a loopback or private address: set `allow_private_addresses: true` if that is meant",
    ],
    [
        "https://api.openai.com/v1",
        "https://[fd00::1]/v1",
        "t.yaml:5: providers[0].base_url: is a loopback or private address: set `allow_private_addresses: true` if that is meant",
    ],
    [
        "https://api.openai.com/v1",
        "http://localhost/v1",
        "t.yaml:5: providers[0].base_url: is a loopback or private address: set `allow_private_addresses: true` if that is meant",
    ],
    [
        "https://api.openai.com/v1",
        "ftp://api.openai.com",
        "t.yaml:5: providers[0].base_url: must begin with http:// or https://",
    ],
    [
        "https://api.openai.com/v1",
        "https://user:pass@api.openai.com",
        "t.yaml:5: providers[0].base_url: must not carry a user or password",
    ],
    [
        "https://api.openai.com/v1",
        "https://api.openai.com/v1?x=1",
        "t.yaml:5: providers[0].base_url: must not carry a query or fragment",
    ],
    [
        "https://api.openai.com/v1",
        "api.openai.com",
        "t.yaml:5: providers[0].base_url: must begin with http:// or https://",
    ],
    [
        "https://api.openai.com/v1",
        "http://169.254.169.254\n    allow_private_addresses: true",
        "t.yaml:5: providers[0].base_url: is an address at which a cloud hands out credentials",
    ],
    [
        "keys: [{name: main, value: sk-upstream}]",
        "keys: []",
        "t.yaml:6: providers[0].keys: must not be empty",
    ],
    [
        "keys: [{name: main, value: sk-upstream}]",
        "keys: [{name: a, value: x}, {name: a, value: y}]",
        "t.yaml:6: providers[0].keys[1].name: key 'a' is already defined at t.yaml:6",
    ],
    [
        "value: sk-upstream",
        "value: sk-upstream, models: [gtp]",
        "t.yaml:6: providers[0].keys[0].models[0]: there is no model of provider 'openai' called 'gtp', did you mean 'gpt'?",
    ],
    [
        "value: sk-upstream",
        "value: sk-upstream, models: ['*', gpt]",
        "t.yaml:6: providers[0].keys[0].models: \"*\" allows everything and must stand alone",
    ],
    [
        "value: sk-upstream",
        "value: \"sk\\nupstream\"",
        "t.yaml:6: providers[0].keys[0].value: the value must be printable ASCII characters",
    ],
    [
        "keys: [{name: main",
        "retries: {backoff_min: 3s}\n    keys: [{name: main",
        "t.yaml:6: providers[0].retries.backoff_min: is longer than `backoff_max` (3s > 2s)",
    ],
    [
        "keys: [{name: main",
        "timeouts: {connect: 0s}\n    keys: [{name: main",
        "t.yaml:6: providers[0].timeouts.connect: must be more than zero",
    ],
    [
        "keys: [{name: main",
        "tls: {ca: nothing}\n    keys: [{name: main",
        "t.yaml:6: providers[0].tls.ca: holds no certificate in PEM form",
    ],
    [
        "models:",
        "  - {name: openai, kind: openai, base_url: https://a.example, keys: [{name: a, value: x}]}\nmodels:",
        "t.yaml:7: providers[1].name: provider 'openai' is already defined at t.yaml:3",
    ],
];

#[test]
fn providers() {
    for [from, to, expected] in PROVIDERS {
        changed(from, to, expected);
    }
}

const MODELS: &[[&str; 3]] = &[
    [
        ", price: {input: 1, output: 2}",
        "",
        "t.yaml:8: models[0]: `price` is missing; `price: free` says that it costs nothing",
    ],
    [
        "provider: openai, price",
        "provider: opnai, price",
        "t.yaml:8: models[0].provider: there is no provider 'opnai', did you mean 'openai'?",
    ],
    [
        "provider: openai, ",
        "",
        "t.yaml:8: models[0]: needs `provider` (a model) or `choices` (an alias)",
    ],
    [
        "input: 1,",
        "input: -1,",
        "t.yaml:8: models[0].price.input: `-1`: must not be negative",
    ],
    [
        "input: 1,",
        "input: 0.0000000001,",
        "t.yaml:8: models[0].price.input: `0.0000000001`: has more than nine digits after the point",
    ],
    [
        "input: 1,",
        "input: 1e400,",
        "t.yaml:8: models[0].price.input: `1e400`: is larger than 18446744073.709551615",
    ],
    [
        "input: 1,",
        "input: one,",
        "t.yaml:8: models[0].price.input: `one`: not a decimal number",
    ],
    [
        "input: 1,",
        "input: 1, cache_read: 1, cached_input: 1,",
        "t.yaml:8: models[0].price.cached_input: means the same as `cache_read`: give one of them",
    ],
    [
        "customers:",
        "  - {name: gpt, provider: openai, price: free}\ncustomers:",
        "t.yaml:9: models[1].name: model 'gpt' of provider 'openai' is already defined at t.yaml:8",
    ],
    [
        "customers:",
        "  - {name: openai/gpt, provider: openai, price: free}\ncustomers:",
        "t.yaml:9: models[1].name: 'openai/gpt' is also the full name of another model",
    ],
    [
        "customers:",
        "  - {name: fast, choices: [openai/gtp]}\ncustomers:",
        "t.yaml:9: models[1].choices[0]: there is no model of provider 'openai' called 'gtp', did you mean 'gpt'?",
    ],
    [
        "customers:",
        "  - {name: fast, choices: [other/gpt]}\ncustomers:",
        "t.yaml:9: models[1].choices[0]: there is no provider 'other'",
    ],
    [
        "customers:",
        "  - {name: fast, choices: [gpt]}\ncustomers:",
        "t.yaml:9: models[1].choices[0]: 'gpt' names no provider: choices are `provider/model`",
    ],
    [
        "customers:",
        "  - {name: fast, choices: [fast]}\ncustomers:",
        "t.yaml:9: models[1].choices[0]: 'fast' is an alias: choices are `provider/model`",
    ],
    [
        "customers:",
        "  - {name: fast, choices: []}\ncustomers:",
        "t.yaml:9: models[1].choices: must not be empty",
    ],
    [
        "customers:",
        "  - {name: gpt, choices: [openai/gpt]}\ncustomers:",
        "t.yaml:9: models[1].name: 'gpt' is also the name of a model",
    ],
    [
        "customers:",
        "  - {name: fast, choices: [openai/gpt, openai/gpt], price: free}\ncustomers:",
        "t.yaml:9: models[1].choices[1]: is listed twice\nt.yaml:9: models[1].price: an alias has only `name` and `choices`",
    ],
    [
        "customers:",
        "  - {name: fast, choices: [openai/gpt], provider: openai}\ncustomers:",
        "t.yaml:9: models[1]: has both `provider` and `choices`: a model has a provider, an alias has choices",
    ],
];

#[test]
fn models() {
    for [from, to, expected] in MODELS {
        changed(from, to, expected);
    }
}

#[test]
fn keys() {
    key(
        "sha256: abc",
        ".sha256: expected the SHA-256 of the key as 64 hexadecimal digits, found `abc`",
    );
    key(
        "team: search, customer: acme",
        ".customer: a key belongs to a `team` or to a `customer`, not to both",
    );
    key(
        "team: serach",
        ".team: there is no team 'serach', did you mean 'search'?",
    );
    key(
        "customer: acne",
        ".customer: there is no customer 'acne', did you mean 'acme'?",
    );
    key(
        "providers: [{name: openia}]",
        ".providers[0].name: there is no provider 'openia', did you mean 'openai'?",
    );
    key(
        "providers: [{name: openai, models: [gpt-5]}]",
        ".providers[0].models[0]: there is no model of provider 'openai' called 'gpt-5'",
    );
    key(
        "providers: [{name: openai}, {name: openai}]",
        ".providers[1].name: provider 'openai' is already defined at t.yaml:12",
    );
    below(
        "virtual_keys: [{name: a}]\n",
        "t.yaml:12: virtual_keys[0]: needs exactly one of `value`, `sha256`",
    );
    below(
        "virtual_keys: [{name: a, value: short}]\n",
        "t.yaml:12: virtual_keys[0].value: the value must have 16 or more characters",
    );
    below(
        "virtual_keys: [{name: a, value: sk-tyr-0123456789é}]\n",
        "t.yaml:12: virtual_keys[0].value: the value must be printable ASCII characters",
    );
    below(
        "virtual_keys:\n- {name: a, value: sk-tyr-0123456789}\n- {name: b, value: sk-tyr-0123456789}\n",
        "t.yaml:14: virtual_keys[1].value: has the same value as virtual key 'a'",
    );
    below(
        "virtual_keys:\n- {name: a, value: env.A}\n- {name: a, value: env.A}\n",
        "t.yaml:14: virtual_keys[1].name: virtual key 'a' is already defined at t.yaml:13\nt.yaml:14: virtual_keys[1].value: has the same value as virtual key 'a'",
    );
    changed(
        "teams: [{name: search, customer: acme}]",
        "teams: [{name: search, customer: acne}, {name: search}]",
        "t.yaml:10: teams[0].customer: there is no customer 'acne', did you mean 'acme'?\nt.yaml:10: teams[1].name: team 'search' is already defined at t.yaml:10",
    );
    changed(
        "customers: [{name: acme}]",
        "customers: [{name: acme}, {name: acme}]",
        "t.yaml:9: customers[1].name: customer 'acme' is already defined at t.yaml:9",
    );
}

#[test]
fn limits() {
    key(
        "rate_limits: [{requests: 1, tokens: 1, every: 1m}]",
        ".rate_limits[0]: needs exactly one of `requests`, `tokens`, `concurrent`",
    );
    key(
        "rate_limits: [{every: 1m}]",
        ".rate_limits[0]: needs exactly one of `requests`, `tokens`, `concurrent`",
    );
    key(
        "rate_limits: [{requests: 1}]",
        ".rate_limits[0]: `every` is missing",
    );
    key(
        "rate_limits: [{requests: 1, every: 1M}]",
        ".rate_limits[0].every: `1M` is for budgets: a rate limit counts s, m, h, d or w",
    );
    key(
        "rate_limits: [{requests: 1, every: 9000h}]",
        ".rate_limits[0].every: must be a year or less",
    );
    key(
        "rate_limits: [{concurrent: 1, every: 1m, window: fixed}]",
        ".rate_limits[0].every: has no meaning with `concurrent`\n.rate_limits[0].window: has no meaning with `concurrent`",
    );
    key(
        "rate_limits: [{requests: 1, every: 1m}, {requests: 2, every: 60s}]",
        ".rate_limits[1]: counts the same as the limit at t.yaml:12: give one of them a `name` to count apart",
    );
    key(
        "budgets: [{limit_usd: 0, every: 1d}]",
        ".budgets[0].limit_usd: must be more than zero",
    );
    key(
        "budgets: [{limit_usd: -1, every: 1d}]",
        ".budgets[0].limit_usd: `-1`: must not be negative",
    );
    key(
        "budgets: [{limit_usd: 1.0000000001, every: 1d}]",
        ".budgets[0].limit_usd: `1.0000000001`: has more than nine digits after the point",
    );
    key(
        "budgets: [{limit_usd: 20000000000, every: 1d}]",
        ".budgets[0].limit_usd: `20000000000`: is larger than 18446744073.709551615",
    );
    key(
        "budgets: [{limit_usd: ten, every: 1d}]",
        ".budgets[0].limit_usd: `ten`: not a decimal number",
    );
    key(
        "budgets: [{limit_usd: 1, every: 2d}]",
        ".budgets[0].every: `2d`: calendar periods have no multiples, only 1d, 1w, 1M, 1Q and 1Y",
    );
    key(
        "budgets: [{limit_usd: 1, every: 1d, fiscal_start: 4}]",
        ".budgets[0].fiscal_start: has a meaning with `1Q` and `1Y` only, not with `1d`",
    );
    key(
        "budgets: [{limit_usd: 1, every: 1d}, {limit_usd: 2, every: 1d, enforcement: strict}]",
        ".budgets[1]: counts the same as the limit at t.yaml:12: give one of them a `name` to count apart",
    );
}
