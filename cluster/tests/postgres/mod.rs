//! A private Postgres for tests, from the binaries that are installed.
//!
//! Promise: a database folder and a port of its own, nobody else's data touched; the server ends and
//! its folder goes when the value is dropped or the test process ends, however it ends: a shell that
//! waits for the other end of a pipe does both. Missing binaries are an error, never a skip.
//! Nothing here sleeps: a start waits for the line in which the server says that it is ready.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// The only role that may come over TCP, with this password until a test sets another.
pub const USER: &str = "tyr";
pub const PASSWORD: &str = "first password";

/// Waits for a signal's name, or for the end of whoever started it, and ends the server.
const KEEPER: &str = r#"
folder=$1; shift
"$@" </dev/null 2>&1 &
server=$!
read -r signal keep
kill "-${signal:-QUIT}" "$server" 2>/dev/null
wait "$server"
[ "$keep" = keep ] || rm -rf "$folder"
"#;

/// Certificate and key of the server, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// One server with a folder of its own.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    keeper: Child,
    orders: ChildStdin,
}

/// The server that all tests of this process share, each with a database of its own.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(None))
}

impl Postgres {
    /// A new server; with an identity it speaks TLS, too.
    pub fn start(identity: Option<&Identity>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tyr-postgres-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder for Postgres");
        give(&folder);
        let mut server = Self {
            folder,
            port: free_port(),
            running: None,
        };
        server.initialise();
        if let Some(identity) = identity {
            server.set_identity(identity);
        }
        server.resume();
        server.admin("postgres", &format!("CREATE ROLE {USER} LOGIN CREATEDB"));
        server.set_password(PASSWORD);
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new, empty database that [`USER`] owns; its name.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.admin("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        name
    }

    /// The address of a database, with the first password.
    pub fn url(&self, database: &str) -> String {
        let password = PASSWORD.replace(' ', "%20");
        format!(
            "postgres://{USER}:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// What a new connection needs from now on.
    pub fn set_password(&self, password: &str) {
        self.admin(
            "postgres",
            &format!("ALTER ROLE {USER} PASSWORD '{password}'"),
        );
    }

    /// Runs statements as the superuser, over the Unix socket; what they print, a row a line.
    pub fn admin(&self, database: &str, statements: &str) -> String {
        let run = Command::new(binary("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-U", "postgres", "-p", &self.port.to_string(), "-h"])
            .arg(&self.folder)
            .args(["-d", database, "-c", statements])
            .output()
            .expect("psql runs");
        let complaint = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{statements}: {complaint}");
        String::from_utf8_lossy(&run.stdout).trim_end().to_owned()
    }

    /// Ends the server as an operator does; its data stays.
    pub fn stop(&mut self) {
        self.end("INT keep");
    }

    /// Ends the server as a power cut does; its data stays.
    pub fn crash(&mut self) {
        self.end("QUIT keep");
    }

    /// Starts a stopped server on its port again; returns when it takes connections.
    pub fn resume(&mut self) {
        assert!(self.running.is_none(), "it is running");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.folder)
            .args(as_user())
            .arg(binary("postgres"))
            .arg("-D")
            .arg(self.path("data"))
            .arg("-k")
            .arg(&self.folder)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-c", "fsync=off", "-c", "max_connections=60"])
            .args(["-c", "shared_buffers=16MB", "-c", "log_statement=none"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let orders = keeper.stdin.take().expect("a pipe");
        let mut log = BufReader::new(keeper.stdout.take().expect("a pipe")).lines();
        self.running = Some(Running { keeper, orders });
        let mut said = String::new();
        while !said.contains("database system is ready to accept connections") {
            let line = log.next().and_then(Result::ok);
            let line = line.unwrap_or_else(|| panic!("Postgres ended by itself: {said}"));
            said = format!("{said}\n{line}");
        }
        // Goes on reading, so that the server never waits to be heard.
        thread::spawn(move || log.map_while(Result::ok).for_each(drop));
    }

    fn end(&mut self, order: &str) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        // An error means that the shell is gone already.
        let _ = writeln!(running.orders, "{order}");
        drop(running.orders);
        running.keeper.wait().expect("the shell ends");
    }

    fn initialise(&self) {
        let mut words = as_user();
        words.push(binary("initdb").display().to_string());
        let run = Command::new(&words[0])
            .args(&words[1..])
            .arg("-D")
            .arg(self.path("data"))
            .args(["-U", "postgres", "--no-sync", "--auth=trust"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"])
            .output()
            .expect("initdb runs");
        let complaint = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "initdb: {complaint}");
        let rules = format!("local all all trust\nhost all {USER} 127.0.0.1/32 scram-sha-256\n");
        self.put("data/pg_hba.conf", &rules);
    }

    fn set_identity(&self, identity: &Identity) {
        self.put("data/server.crt", &identity.certificate);
        self.put("data/server.key", &identity.key);
        self.put("data/postgresql.auto.conf", "ssl = on\n");
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file of the server");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
        give(&path);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The newest one installed, else the one on the path.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().filter_map(Result::ok);
    let installed = versions
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin").join(name);
            path.exists().then_some((version, path))
        })
        .max();
    if let Some((_, path)) = installed {
        return path;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: run scripts/setup-test"))
}

/// User and group that the server runs as; `None`: who runs the tests. Postgres refuses root.
fn server_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let own = std::fs::metadata("/proc/self").expect("/proc");
        if own.uid() != 0 {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let ids = |name: &str| {
            let line = users
                .lines()
                .find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2).map_while(|id| id.parse().ok());
            Some((fields.next()?, fields.next()?))
        };
        let found = ids("postgres").or_else(|| ids("nobody"));
        Some(found.expect("a user `postgres` or `nobody`"))
    })
}

/// The start of a command line that runs as the server's user.
fn as_user() -> Vec<String> {
    match server_user() {
        None => Vec::new(),
        Some((user, group)) => vec![
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--clear-groups".to_owned(),
        ],
    }
}

fn give(path: &Path) {
    if let Some((user, group)) = server_user() {
        chown(path, Some(user), Some(group)).expect("root gives files away");
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end("QUIT");
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
