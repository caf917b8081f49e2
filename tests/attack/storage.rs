//! Random damage to all that is stored.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::bout::{Bout, attack};
use crate::project::{Project, Run};
use crate::saved::Saved;
use crate::server::Server;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        attack("storage::objects_are_damaged", |bout| {
            damaged(bout, "objects", Knowledge::Journals)
        }),
        attack("storage::the_memo_store_is_damaged", |bout| {
            damaged(bout, "memo", Knowledge::Journals)
        }),
        attack("storage::a_memo_store_without_journals_is_damaged", |bout| {
            damaged(bout, "memo", Knowledge::MemoStore)
        }),
        attack("storage::anything_is_damaged", |bout| damaged(bout, "", Knowledge::Journals)),
    ]
}

/// Two that fetch, a directory, one that is an executable, and one over all.
const WORKFLOW: &str = r#"
[workflow]
name = "storage"
params = { base = "" }
[task.raw]
foreach = { at = { range = [0, 2] } }
inputs = { raw = "{{ params.base }}/{{ at }}.txt" }
outputs = { raw = "out/raw-{{ at }}.txt" }
run = "tr a-z A-Z < {{ inputs.raw }} > {{ outputs.raw }}"
[task.plain]
foreach = { at = { range = [0, 8] } }
outputs = { out = "out/{{ at }}.txt" }
run = "seq {{ at }} 200 > {{ outputs.out }}"
[task.tree]
inputs = { plain = { from = "plain.out" } }
outputs = { tree = { path = "out/tree", directory = true } }
run = "mkdir -p {{ outputs.tree }}/deep; cp {{ inputs.plain }} {{ outputs.tree }}/deep; echo top > {{ outputs.tree }}/top; ln -s deep/1.txt {{ outputs.tree }}/link"
[task.tool]
outputs = { tool = "out/tool.sh" }
run = "echo 'cat \"$@\"' > {{ outputs.tool }}; chmod +x {{ outputs.tool }}"
[task.all]
inputs = { raw = { from = "raw.raw" }, tree = "out/tree", tool = "out/tool.sh" }
outputs = { all = "out/all.txt" }
run = "sh {{ inputs.tool }} {{ inputs.raw }} {{ inputs.tree }}/deep/*.txt > {{ outputs.all }}"
"#;

const TASKS: usize = 2 + 8 + 1 + 1 + 1;

/// What knows of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    /// Journals, and the memo store.
    Journals,
    /// The memo store alone: journals of old runs may be removed.
    MemoStore,
}

/// What `verify` says of a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// That it is there.
    Damage,
    /// That all is whole.
    Nothing,
}

/// A project that has run, on a server that only it knows.
struct Subject {
    project: Project,
    server: Server,
    outputs: BTreeMap<PathBuf, Vec<u8>>,
    /// What `verify` says when all is whole.
    verified: String,
}

impl Subject {
    fn new(knowledge: Knowledge) -> Self {
        let server = Server::start(0, 0);
        for at in 0..2 {
            server.put(&format!("/{at}.txt"), format!("raw {at}\n").repeat(300));
        }
        let project = Project::new(WORKFLOW);
        let mut subject =
            Self { project, server, outputs: BTreeMap::new(), verified: String::new() };
        let run = subject.run();
        run.assert_code(0);
        assert_eq!(run.tasks("completed").len(), TASKS);
        if knowledge == Knowledge::MemoStore {
            // Brings all that is known to the memo store.
            subject.keelboat("verify").assert_code(0);
            std::fs::remove_dir_all(subject.project.path(".keelboat/runs")).unwrap();
        }
        let verified = subject.keelboat("verify");
        verified.assert_code(0);
        subject.verified = verified.stdout;
        subject.outputs = subject.project.files("out");
        subject
    }

    fn run(&self) -> Run {
        self.project.run(&["--set", &format!("base={}", self.server.base())])
    }

    fn keelboat(&self, command: &str) -> Run {
        self.project.start(self.project.command(&["cache", command])).wait()
    }

    /// All files below a directory of the store, but the lock and what tasks have printed.
    fn stored(&self, below: &str) -> Vec<PathBuf> {
        let files = self.project.files(&format!(".keelboat/{below}")).into_iter();
        let files = files.filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| path);
        files.filter(|path| !path.ends_with("lock") && !path.iter().any(|p| p == "log")).collect()
    }

    /// What is damaged is found by `verify`, with its name, and mended by `repair`.
    fn verify_and_repair(&self, file: &Path, what: &str) -> Found {
        let verified = self.keelboat("verify");
        let torn = verified.said().contains("as a crash leaves it");
        let found = if verified.code() == Some(5) || torn { Found::Damage } else { Found::Nothing };
        let in_sled = file.starts_with(".keelboat/memo");
        // There are places in its files that it never reads; then it has all that it had.
        let all_there = verified.stdout == self.verified;
        let may_miss = in_sled && all_there;
        assert!(found == Found::Damage || may_miss, "{what}: not found: {}", verified.said());
        if is_object(file) {
            // `ab/cdef…`, perhaps with `.tree`.
            let name = file.with_extension("");
            let name = name.strip_prefix(".keelboat/objects").unwrap().display().to_string();
            let name = name.replace('/', "");
            assert!(verified.said().contains(&name), "{what}: {}", verified.said());
        }
        self.check_whole_after_repair(what);
        found
    }

    fn check_whole_after_repair(&self, what: &str) {
        let repaired = self.keelboat("repair");
        assert_eq!(repaired.code(), Some(0), "{what}: {}", repaired.said());
        let verified = self.keelboat("verify");
        let said = format!("{} {}", repaired.said(), verified.said());
        assert_eq!(verified.code(), Some(0), "{what}, repaired: {said}");
        let again = self.keelboat("repair");
        assert!(again.said().contains("nothing to mend"), "{what}: {}", again.said());
    }
}

/// One damage: what the file holds then, and what was done to it.
fn damage(bout: &mut Bout, bytes: &[u8]) -> (Vec<u8>, String) {
    let mut damaged = bytes.to_vec();
    // Most of sled's file is empty.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = bout.one_of(used);
    let until = (at + 1 + bout.one_of(600)).min(bytes.len());
    let what = match bout.one_of(6) {
        0 => {
            damaged[at] ^= 1 << bout.one_of(8);
            format!("a bit of byte {at} flipped")
        }
        1 => {
            damaged[at..until].fill(0);
            format!("bytes {at} to {until} zero")
        }
        2 => {
            for byte in &mut damaged[at..until] {
                *byte = u8::try_from(bout.one_of(256)).expect("a byte");
            }
            format!("bytes {at} to {until} random")
        }
        3 => {
            damaged.truncate(at);
            format!("cut at {at}")
        }
        4 => {
            damaged.extend_from_slice(&bytes[..used.min(700)]);
            format!("{} bytes of its own added", used.min(700))
        }
        _ => {
            drop(damaged.drain(at..until));
            format!("bytes {at} to {until} taken out")
        }
    };
    (damaged, what)
}

/// Writes to a file in place, whatever its mode: a link to it holds the same.
fn overwrite(path: &Path, bytes: &[u8]) {
    let mode = path.metadata().unwrap().permissions();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, mode).unwrap();
}

/// What a file is to the store.
fn is_object(path: &Path) -> bool {
    path.starts_with(".keelboat/objects") && !path.ends_with("used")
}

fn damaged(bout: &mut Bout, below: &str, knowledge: Knowledge) -> String {
    let subject = Subject::new(knowledge);
    let saved = Saved::of(&subject.project);
    let files = subject.stored(below);
    let times = bout.times(20, 1000);
    let (mut same, mut again, mut unseen) = (0, 0, 0);
    for _ in 0..times {
        saved.put_back(&subject.project);
        let file = files[bout.one_of(files.len())].clone();
        let bytes = std::fs::read(subject.project.path(&file)).unwrap();
        let (damaged, what) = damage(bout, &bytes);
        if damaged == bytes {
            same += 1;
            continue;
        }
        let what = format!("{}: {what}", file.display());
        overwrite(&subject.project.path(&file), &damaged);
        // Half of the time the outputs are gone, so that objects are all there is.
        let gone = bout.one_of(2) == 0;
        if gone {
            std::fs::remove_dir_all(subject.project.path("out")).unwrap();
        }
        let found = (bout.one_of(3) > 0).then(|| subject.verify_and_repair(&file, &what));
        let run = subject.run();
        assert_eq!(run.code(), Some(0), "{what}: {}", run.said());
        let ran = run.tasks("completed").len();
        again += ran;
        unseen += usize::from(found == Some(Found::Nothing));
        let may_run = match knowledge {
            Knowledge::Journals => is_object(&file),
            Knowledge::MemoStore => found != Some(Found::Nothing),
        };
        assert!(may_run || ran == 0, "{what}: {}", run.said());
        assert!(subject.project.files("out") == subject.outputs, "{what}: {}", run.said());
        subject.check_whole_after_repair(&what);
    }
    format!(
        "{} damages: none used, all found but {unseen} that sled never reads; {again} tasks ran again",
        times - same
    )
}
