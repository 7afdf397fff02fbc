//! A configuration as text, section by section, so that a test changes only
//! what it is about.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// The virtual key of most tests.
pub const KEY: &str = "sk-tyr-test-0000000000000001";
/// A second virtual key, in the same configuration.
pub const OTHER_KEY: &str = "sk-tyr-test-0000000000000002";
/// The admin token.
pub const ADMIN: &str = "admin-token-of-the-tests-0001";
/// What tyr sends to the OpenAI provider.
pub const OPENAI_SECRET: &str = "upstream-secret-openai-0001";
/// What tyr sends to the Anthropic provider.
pub const ANTHROPIC_SECRET: &str = "upstream-secret-anthropic-0001";

/// The sections of one file; each holds its lines with their indentation.
#[derive(Clone)]
pub struct Conf {
    pub server: Vec<String>,
    pub admin: String,
    pub providers: String,
    pub models: String,
    pub customers: String,
    pub teams: String,
    pub keys: String,
    /// Where entities and usage are kept; empty: SQLite in the node's folder.
    pub store: String,
    /// Whole top-level sections.
    pub more: String,
}

impl Conf {
    /// Both providers at one address; two keys without limits.
    pub fn for_upstream(upstream: SocketAddr) -> Self {
        let mut conf = Self::empty();
        conf.providers = provider("openai", "openai", upstream, OPENAI_SECRET, "")
            + &provider("anthropic", "anthropic", upstream, ANTHROPIC_SECRET, "");
        conf.models = model(
            "gpt-4o-mini",
            "openai",
            "{input: 0.15, cached_input: 0.075, output: 0.60}",
            16384,
        ) + &model(
            "text-embedding-3-small",
            "openai",
            "{input: 0.02, output: 0}",
            8192,
        ) + &model(
            "gpt-3.5-turbo-instruct",
            "openai",
            "{input: 1.5, output: 2}",
            4096,
        ) + &model(
            "claude-haiku-4-5",
            "anthropic",
            "{input: 1.00, cache_read: 0.10, cache_write: 1.25, cache_write_1h: 2.00, output: 5.00}",
            64000,
        );
        conf.keys = key("demo", KEY, "") + &key("other", OTHER_KEY, "");
        conf
    }

    /// No providers, models or keys.
    pub fn empty() -> Self {
        Self {
            server: vec!["max_body: 32MiB".into(), "drain_grace: 20s".into()],
            admin: format!("  tokens: [{{name: ops, role: admin, value: {ADMIN}}}]\n"),
            providers: String::new(),
            models: String::new(),
            customers: String::new(),
            teams: String::new(),
            keys: String::new(),
            store: String::new(),
            more: String::new(),
        }
    }

    /// The same with another line under `server:`; an earlier one of that name goes.
    pub fn server(mut self, line: &str) -> Self {
        let name = line.split(':').next().unwrap_or(line).to_string();
        self.server
            .retain(|old| old.split(':').next() != Some(&name));
        self.server.push(line.to_string());
        self
    }

    /// The same with the demo key limited by `lines`, such as `rate_limits: [...]`.
    pub fn limited(mut self, lines: &str) -> Self {
        self.keys = key("demo", KEY, lines) + &key("other", OTHER_KEY, "");
        self
    }

    /// The file, for a node with these addresses and this folder.
    pub fn render(&self, data: SocketAddr, admin: SocketAddr, folder: &Path) -> String {
        let folder = folder.display();
        let mut text = format!(
            "version: 1\nserver:\n  listen: {data}\n  admin_listen: {admin}\n  data_dir: {folder}/data\n"
        );
        for line in &self.server {
            writeln!(text, "  {line}").expect("a string takes everything");
        }
        let store = match self.store.as_str() {
            "" => format!("  type: sqlite\n  path: {folder}/tyr.db\n"),
            store => store.to_string(),
        };
        for (name, section) in [
            ("admin", &self.admin),
            ("store", &store),
            ("providers", &self.providers),
            ("models", &self.models),
            ("customers", &self.customers),
            ("teams", &self.teams),
            ("virtual_keys", &self.keys),
        ] {
            if !section.is_empty() {
                write!(text, "{name}:\n{section}").expect("a string takes everything");
            }
        }
        text + &self.more
    }
}

/// One provider with one credential; `lines` are more fields, each on its own line.
pub fn provider(name: &str, kind: &str, at: SocketAddr, secret: &str, lines: &str) -> String {
    let base = if kind == "openai" { "/v1" } else { "" };
    format!(
        "  - name: {name}\n    kind: {kind}\n    base_url: http://{at}{base}\n    \
         allow_private_addresses: true\n    keys: [{{name: main, value: {secret}}}]\n{}",
        indented(lines)
    )
}

/// One model of one provider.
pub fn model(name: &str, provider: &str, price: &str, max_output_tokens: u64) -> String {
    format!(
        "  - {{name: {name}, provider: {provider}, price: {price}, max_output_tokens: {max_output_tokens}}}\n"
    )
}

/// One virtual key for both providers; `lines` are more fields, each on its own line.
pub fn key(name: &str, value: &str, lines: &str) -> String {
    format!(
        "  - name: {name}\n    value: {value}\n    providers: [{{name: openai}}, {{name: anthropic}}]\n{}",
        indented(lines)
    )
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("    {line}\n")).collect()
}
