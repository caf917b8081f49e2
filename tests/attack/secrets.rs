//! Secrets that are looked for in all that is written, said and shown by `/proc`; and what others
//! may read of the store.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use libtest_mimic::Trial;
use walkdir::WalkDir;

use crate::bout::{Bout, attack};
use crate::project::{Project, Run};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        attack("secrets::are_nowhere", are_nowhere),
        attack("secrets::the_store_is_private", the_store_is_private),
    ]
}

/// A server that takes all, and tells all that it was told when it says no.
struct Echo {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    /// With the secret that it gives to those whom it sends elsewhere.
    fn start(given: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&heads);
        std::thread::spawn(move || {
            let files = Arc::new(Mutex::new(BTreeMap::new()));
            for stream in listener.incoming().flatten() {
                let (heads, files) = (Arc::clone(&shared), Arc::clone(&files));
                let given = given.clone();
                std::thread::spawn(move || serve(&stream, &heads, &files, &given));
            }
        });
        Self { port, heads }
    }

    fn heads(&self) -> String {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

fn serve(stream: &TcpStream, heads: &Mutex<Vec<String>>, files: &Files, given: &str) {
    let mut reader = BufReader::new(stream);
    while answer(stream, &mut reader, heads, files, given).is_some() {}
}

type Files = Mutex<BTreeMap<String, Vec<u8>>>;

/// `None`: the connection is over.
fn answer(
    mut stream: &TcpStream,
    reader: &mut BufReader<&TcpStream>,
    heads: &Mutex<Vec<String>>,
    files: &Files,
    given: &str,
) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).ok().filter(|count| *count > 0)?;
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?.split('?').next()?.to_owned());
    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = if method == "PUT" {
        files.insert(path, body);
        ("201 Created".to_owned(), Vec::new())
    } else if path.contains("/refused") {
        ("403 Forbidden".to_owned(), format!("you said: {head}").into_bytes())
    } else if path.starts_with("/elsewhere") {
        (format!("302 Found\r\nLocation: /final.txt?signature={given}"), Vec::new())
    } else if path.starts_with("/lost") {
        (format!("302 Found\r\nLocation: /refused?signature={given}"), Vec::new())
    } else if path.starts_with("/put") && !files.contains_key(&path) {
        ("404 Not Found".to_owned(), Vec::new())
    } else {
        let body = files.get(&path).cloned().unwrap_or_else(|| path.clone().into_bytes());
        ("200 OK\r\nETag: \"1\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT".to_owned(), body)
    };
    let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(reply.as_bytes()).ok()?;
    if method != "HEAD" {
        stream.write_all(&body).ok()?;
    }
    Some(())
}

/// Secrets by what they are.
struct Secrets(BTreeMap<&'static str, String>);

const KINDS: [&str; 20] = [
    "password in an address",
    "user in an address",
    "query token",
    "query signature",
    "header",
    "basic password",
    "bearer token",
    "token file",
    "token in the environment",
    "netrc password",
    "AWS secret",
    "AWS session",
    "bucket secret",
    "Azure key",
    "Google key",
    "SFTP password",
    "FTP password",
    "password of an output",
    "query of an output",
    "signature of the server",
];

impl Secrets {
    fn new(bout: &mut Bout) -> Self {
        let mut secret = || format!("canary{:016x}", bout.chance.below(u64::MAX));
        Self(KINDS.map(|kind| (kind, secret())).into())
    }

    fn get(&self, kind: &str) -> &str {
        &self.0[kind]
    }

    /// Puts secrets in the place of their kinds, `<KIND>`.
    fn fill(&self, text: &str, port: u16) -> String {
        let start = text.replace("<port>", &port.to_string());
        self.0.iter().fold(start, |text, (kind, secret)| text.replace(&format!("<{kind}>"), secret))
    }

    /// The kinds of secrets that are in these bytes, also in the form of basic authentication.
    fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let is_in = |sought: &[u8]| bytes.windows(sought.len()).any(|window| window == sought);
        let found = self.0.iter().filter(|(_, secret)| {
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("ann:{secret}"));
            is_in(secret.as_bytes()) || is_in(basic.trim_end_matches('=').as_bytes())
        });
        found.map(|(kind, _)| *kind).collect()
    }

    #[track_caller]
    fn assert_not_in(&self, bytes: &[u8], place: &str) {
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "{found:?} in {place}: {}", String::from_utf8_lossy(bytes));
    }
}

const CREDENTIALS: &str = r#"
[[credential]]
scope = "http://127.0.0.1:<port>/header"
headers = { X-Api-Key = "<header>" }
[[credential]]
scope = "http://127.0.0.1:<port>/basic"
user = "ann"
password = "<basic password>"
[[credential]]
scope = "http://127.0.0.1:<port>/bearer"
token = "<bearer token>"
[[credential]]
scope = "http://127.0.0.1:<port>/refused"
token_file = "token"
[[credential]]
scope = "s3://second"
settings = { aws_access_key_id = "id", aws_secret_access_key = "<bucket secret>" }
[[credential]]
scope = "sftp://127.0.0.1:<port>"
user = "ann"
password = "<SFTP password>"
"#;

/// All that is well.
const GOOD: &str = r#"
[workflow]
name = "good"
[task.userinfo]
inputs = { i = "http://ann:<password in an address>@127.0.0.1:<port>/a.txt" }
outputs = { o = { path = "o/a.txt", to = "http://ann:<password of an output>@127.0.0.1:<port>/put/a.txt?sig=<query of an output>" } }
run = "cp {{ inputs.i }} {{ outputs.o }}"
[task.user]
inputs = { i = "http://<user in an address>@127.0.0.1:<port>/b.txt" }
outputs = { o = "o/b.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
[task.query]
inputs = { i = "http://127.0.0.1:<port>/c.txt?token=<query token>&X-Amz-Signature=<query signature>" }
outputs = { o = "o/c.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
[task.entries]
inputs = { i = ["http://127.0.0.1:<port>/header/d.txt", "http://127.0.0.1:<port>/basic/e.txt", "http://127.0.0.1:<port>/bearer/f.txt", "http://localhost:<port>/g.txt", "s3://first/h.txt", "s3://second/i.txt", "http://127.0.0.1:<port>/elsewhere/j.txt"] }
outputs = { o = "o/all.txt" }
run = "cat {{ inputs.i }} > {{ outputs.o }}; sleep 0.2"
"#;

/// All that goes wrong: errors are where secrets come out.
const BAD: &str = r#"
[workflow]
name = "bad"
[defaults]
retries = 1
backoff = "1ms"
[task.refused]
inputs = { i = "http://ann:<password in an address>@127.0.0.1:<port>/refused/a?token=<query token>" }
outputs = { o = "a.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
[task.token]
inputs = { i = "http://127.0.0.1:<port>/refused/b" }
outputs = { o = "o/b.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
[task.lost]
inputs = { i = "http://127.0.0.1:<port>/lost/b" }
outputs = { o = "l.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
[task.ftp]
inputs = { i = "ftp://ann:<FTP password>@127.0.0.1:<port>/c" }
outputs = { o = "o/c.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
[task.sftp]
inputs = { i = "sftp://127.0.0.1:<port>/c" }
outputs = { o = "d.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
[task.bucket]
inputs = { i = "s3://first/refused" }
outputs = { o = "e.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
"#;

/// Mistakes are shown with their lines.
const MISTAKEN: [&str; 6] = [
    "[task.t]\ninputs = { i = \"http://ann:<password in an address>@h/a?t=<query token>\", j = \"http://b/a\" }\nrun = \"x\"\n",
    "[task.t]\ninputs = { i = \"http:/ann:<password in an address>@h/a?t=<query token>\" }\nrun = \"x\"\n",
    "[task.t]\ninputs = { i = { url = \"http://<user in an address>@h/a?<query token>\", shaw = \"x\" } }\nrun = \"x\"\n",
    "[task.t]\ninputs = { i = \"nope://ann:<password in an address>@h/a?t=<query token>\" }\nrun = \"x\"\n",
    "[task.t]\noutputs = { o = { path = \"o\", to = \"http://ann:<password of an output>@h/a?t=<query of an output>\" }\nrun = \"x\"\n",
    "[task.t]\ninputs = { i = \"http://ann:<password in an address>@h/{{ nope }}?t=<query token>\" }\nrun = \"x\"\n",
];

/// Short, since nothing answers as FTP and SFTP.
const SETTINGS: &str = "[staging]\ntries = 2\nretry_for = \"3s\"\nconnect_timeout = \"2s\"\nfirst_byte_timeout = \"2s\"\n";

/// Where a user keeps secrets, beside a project.
struct Desk {
    project: Project,
    echo: Echo,
    secrets: Secrets,
}

impl Desk {
    fn new(bout: &mut Bout) -> Self {
        let secrets = Secrets::new(bout);
        let echo = Echo::start(secrets.get("signature of the server").to_owned());
        let desk = Self { project: Project::new(""), echo, secrets };
        desk.write_secrets();
        desk
    }

    fn home(&self) -> PathBuf {
        self.project.outside("home")
    }

    fn write_secrets(&self) {
        fs::create_dir_all(self.home()).unwrap();
        let write = |name: &str, text: &str| {
            let path = self.home().join(name);
            fs::write(&path, self.secrets.fill(text, self.echo.port)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        };
        write("credentials.toml", CREDENTIALS);
        write("token", "<token file>\n");
        write("netrc", "machine localhost login ann password <netrc password>\n");
        self.project.write("keelboat.toml", SETTINGS);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command(arguments);
        let endpoint = format!("http://127.0.0.1:{}", self.echo.port);
        command.env("KEELBOAT_CREDENTIALS", self.home().join("credentials.toml"));
        command.env("NETRC", self.home().join("netrc")).env("HOME", self.home());
        command.env("KEELBOAT_TOKEN_127_0_0_1", self.secrets.get("token in the environment"));
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_ENDPOINT_URL", endpoint);
        command.env("AWS_SECRET_ACCESS_KEY", self.secrets.get("AWS secret"));
        command.env("AWS_SESSION_TOKEN", self.secrets.get("AWS session"));
        command.env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "us-east-1");
        command.env("AZURE_STORAGE_ACCOUNT_KEY", self.secrets.get("Azure key"));
        command.env("GOOGLE_SERVICE_ACCOUNT_KEY", self.secrets.get("Google key"));
        command
    }

    fn set_workflow(&self, text: &str) {
        self.project.write("flow.toml", self.secrets.fill(text, self.echo.port));
    }

    /// Runs a command and looks for secrets in what it says.
    fn say(&self, arguments: &[&str]) -> Run {
        let run = self.project.start(self.command(arguments)).wait();
        self.secrets.assert_not_in(run.said().as_bytes(), &format!("{arguments:?}"));
        run
    }

    /// Looks into all files but those in which secrets were written here.
    fn search_files(&self) -> usize {
        let mut files = 0;
        for entry in WalkDir::new(self.project.outside("")).into_iter().flatten() {
            let own = entry.path().starts_with(self.home()) || entry.file_name() == "flow.toml";
            if !entry.file_type().is_file() || own {
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            self.secrets.assert_not_in(&bytes, &entry.path().display().to_string());
            let path = entry.path().as_os_str().as_encoded_bytes();
            self.secrets.assert_not_in(path, "the path of a file");
            files += 1;
        }
        files
    }

    /// The key of each task of a run.
    fn keys(run: &Run) -> BTreeMap<String, String> {
        let events = run.events().into_iter().filter(|event| event.get("key").is_some());
        events.map(|event| (event["task"].to_string(), event["key"].to_string())).collect()
    }
}

/// Looks at the command lines of all processes until it is told to stop.
fn watch_command_lines(
    secrets: Vec<String>,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<(usize, Vec<String>)> {
    std::thread::spawn(move || {
        let (mut looks, mut found) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                if secrets.iter().any(|secret| line.contains(secret.as_str())) {
                    found.push(line);
                }
            }
            looks += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        (looks, found)
    })
}

fn are_nowhere(bout: &mut Bout) -> String {
    let rounds = bout.times(1, 50);
    let (mut files, mut looks) = (0, 0);
    for _ in 0..rounds {
        let mut desk = Desk::new(bout);
        let stop = Arc::new(AtomicBool::new(false));
        let watched = desk.secrets.0.values().cloned().collect();
        let watching = watch_command_lines(watched, Arc::clone(&stop));
        desk.set_workflow(GOOD);
        let run = desk.say(&["run", "flow.toml", "--json"]);
        run.assert_code(0);
        desk.check_that_secrets_were_used();
        let keys = Desk::keys(&run);
        assert_eq!(keys.len(), 4);
        files += desk.search_files();
        for arguments in [
            &["run", "flow.toml", "--verbose", "--force", "query"][..],
            &["plan", "flow.toml", "--verbose", "--force", "query"],
            &["why", "query"],
            &["why", "entries", "--json"],
            &["status"],
            &["log", "entries"],
            &["graph", "--files"],
            &["cache", "stats"],
        ] {
            desk.say(arguments).assert_code(0);
        }
        for text in MISTAKEN {
            desk.set_workflow(text);
            for command in ["run", "plan", "graph"] {
                let said = desk.say(&[command, "flow.toml"]);
                assert_eq!(said.code(), Some(2), "{}", said.said());
            }
        }
        desk.set_workflow(BAD);
        let run = desk.say(&["run", "flow.toml", "--json", "--keep-going"]);
        run.assert_code(1);
        assert_eq!(run.tasks("failed").len(), 6, "{}", run.said());
        for task in ["refused", "token", "lost", "ftp", "sftp", "bucket"] {
            desk.say(&["why", task]);
        }
        for arguments in [
            &["status"][..],
            &["plan", "flow.toml"],
            &["fetch", &desk.secrets.fill("http://ann:<password in an address>@127.0.0.1:<port>/refused?token=<query token>", desk.echo.port)],
            &["put", "flow.toml", &desk.secrets.fill("ftp://ann:<FTP password>@127.0.0.1:<port>/x", desk.echo.port)],
            &["ls", &desk.secrets.fill("http://127.0.0.1:<port>/refused/?token=<query token>", desk.echo.port)],
        ] {
            // What is typed is in a command line.
            stop.store(arguments[0] != "status" && arguments[0] != "plan", Ordering::Relaxed);
            desk.say(arguments);
        }
        let (looked, found) = watching.join().unwrap();
        assert!(looked > 0 && found.is_empty(), "secrets in command lines: {found:?}");
        looks += looked;
        files += desk.search_files();
        desk.rotate(bout, &keys);
        files += desk.search_files();
    }
    format!(
        "20 secrets, {rounds} rounds: in none of {files} files, nor in what was said, nor in {looks} looks at all command lines; rotating them changed no key"
    )
}

impl Desk {
    /// Else it would be easy to keep them.
    fn check_that_secrets_were_used(&self) {
        let heads = self.echo.heads();
        let used = self.secrets.found_in(heads.as_bytes());
        for kind in [
            "query token",
            "header",
            "basic password",
            "bearer token",
            "netrc password",
            "AWS session",
            "password in an address",
            "password of an output",
            "signature of the server",
        ] {
            assert!(used.contains(&kind), "{kind} was not sent: {heads}");
        }
    }

    /// With other secrets the same results are there, and a new project has the same keys.
    fn rotate(&mut self, bout: &mut Bout, keys: &BTreeMap<String, String>) {
        let old = std::mem::replace(&mut self.secrets, Secrets::new(bout));
        // The server's own is what it was.
        let given = old.get("signature of the server").to_owned();
        self.secrets.0.insert("signature of the server", given);
        self.write_secrets();
        self.set_workflow(GOOD);
        let run = self.say(&["run", "flow.toml", "--json"]);
        run.assert_code(0);
        assert_eq!(run.tasks("reused").len(), 4, "{}", run.said());
        assert_eq!(Self::keys(&run), *keys);
        fs::remove_dir_all(self.project.path(".keelboat")).unwrap();
        let run = self.say(&["run", "flow.toml", "--json"]);
        run.assert_code(0);
        assert_eq!((run.tasks("completed").len(), Self::keys(&run)), (4, keys.clone()));
        old.assert_not_in(run.said().as_bytes(), "a run with others");
    }
}

/// Whoever may look at a project may not look into its store.
fn the_store_is_private(bout: &mut Bout) -> String {
    let desk = Desk::new(bout);
    desk.set_workflow(&(GOOD.to_owned() + MORE));
    // What others may read by their umask.
    let mut command = desk.command(&["run", "flow.toml", "--json", "--keep-going"]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(command.get_program());
    shell.args(command.get_args()).current_dir(desk.project.path(""));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    command = shell;
    desk.project.start(command).wait().assert_code(1);
    // Brings the memo store about.
    desk.say(&["cache", "verify"]).assert_code(0);
    let store = desk.project.path(".keelboat");
    let (mut count, mut bad) = (0, Vec::new());
    for entry in WalkDir::new(&store).into_iter().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.is_symlink() {
            continue;
        }
        let mode = metadata.permissions().mode() & 0o7777;
        // An object may be one file with an output, and has its mode, without writing.
        let is_object = is_object(&store, entry.path());
        let good = match (metadata.is_dir(), is_object) {
            (true, _) => mode == 0o700,
            (false, true) => mode & 0o222 == 0,
            (false, false) => mode == 0o600,
        };
        // What a task has left is as it made it; nobody comes there.
        let is_state = entry.path().iter().any(|part| part == "state");
        if !good && !is_state {
            bad.push(format!("{} has the mode {mode:o}", entry.path().display()));
        }
        count += 1;
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(count > 30, "only {count} files");
    format!("{count} files and folders with an umask of 000: 0700, 0600, objects without writing")
}

fn is_object(store: &Path, path: &Path) -> bool {
    path.starts_with(store.join("objects")) && !path.ends_with("used")
}

/// A checkpoint that stays, a log, a file that is kept aside.
const MORE: &str = r#"
[task.saves]
checkpoint = "state/"
outputs = { o = "saves.txt" }
run = "echo saved > state/file; echo said; echo cried >&2; exit 3"
[task.tree]
outputs = { o = "tree/" }
run = "mkdir -p {{ outputs.o }}/deep; echo 1 > {{ outputs.o }}/deep/one"
"#;
