//! Functions that write files, keep checkpoints, and read what comes from elsewhere.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use keelboat::flow::{Config, Context, Fact, Flow, Future, OnClose, Remember};
use libtest_mimic::Trial;

use super::{Case, trial, wait_until};

/// Names the directory in which this program is to be the child of a test.
const CHILD: &str = "KEELBOAT_TEST_COUNTER";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("files::a_function_writes_files", a_function_writes_files),
        trial("files::what_it_wrote_is_remembered", what_it_wrote_is_remembered),
        trial("files::of_a_function_that_dies_nothing_is_seen", nothing_is_seen),
        trial("files::mistakes_are_told", mistakes_are_told),
        trial("files::each_kind_of_death_keeps_the_checkpoint", each_kind_of_death),
        trial("files::one_that_was_given_up_harms_nobody", one_that_was_given_up),
        trial("files::one_of_an_earlier_flow_harms_nobody", one_of_an_earlier_flow),
        trial("files::one_that_never_returns_keeps_nobody_waiting", one_that_never_returns),
        trial("files::a_checkpoint_is_saved_while_it_runs", saved_while_it_runs),
        trial("files::a_torn_checkpoint_is_not_restored", a_torn_checkpoint),
        trial("files::a_checkpoint_is_of_one_build", a_checkpoint_is_of_one_build),
        trial("files::a_killed_program_counts_each_number_once", a_killed_program_counts),
        trial("files::what_comes_from_elsewhere_has_its_name", what_comes_from_elsewhere),
    ]
}

/// What is in a directory of the flow's own, with all below it.
fn left_in(root: &Path, directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.join(".keelboat").join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            found.push(entry.path());
            open.push(entry.path());
        }
    }
    found
}

fn check_nothing_in(root: &Path, directory: &str) {
    let left = left_in(root, directory);
    assert!(left.is_empty(), "{left:?}");
}

fn squares(context: Context, upto: u64) -> io::Result<u64> {
    let mut rows = fs::File::create(context.output("rows")?)?;
    (1..=upto).try_for_each(|x| writeln!(rows, "{}", x * x))?;
    Ok(upto)
}

async fn folder(context: Context, names: Vec<String>) -> io::Result<()> {
    let folder = context.output("folder")?;
    fs::create_dir(&folder)?;
    names.iter().try_for_each(|name| fs::write(folder.join(name), name))
}

fn a_function_writes_files() {
    let case = Case::new();
    let flow = &case.flow;
    let elsewhere = case.path().join("elsewhere/copy.txt");
    let made: Future<u64> = flow
        .function(squares)
        .output("rows", "out/deep/rows.txt")
        .to(elsewhere.to_str().unwrap())
        .try_call((flow.call(|| 3u64, ()),));
    let path = made.output("rows").wait().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n4\n9\n");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "1\n4\n9\n");
    assert_eq!(made.wait().unwrap(), 3);
    let names = vec!["a".to_owned(), "b".to_owned()];
    let folder = flow.function(folder).output_directory("folder", "out/folder").try_call((names,));
    let count = |folder: PathBuf| fs::read_dir(folder).map_or(0, Iterator::count);
    assert_eq!(flow.call(count, (folder.output("folder"),)).wait().unwrap(), 2);
    let joined = flow
        .command("cat {{ inputs.rows }} {{ inputs.folder }}/b > {{ outputs.all }}")
        .input("rows", made.output("rows"))
        .input("folder", folder.output("folder"))
        .output("all", "all.txt")
        .submit();
    joined.output("all").wait().unwrap();
    assert_eq!(case.read("all.txt"), "1\n4\n9\nb");
}

fn noted(context: Context, note: PathBuf) -> io::Result<u32> {
    fs::File::options().create(true).append(true).open(note)?.write_all(b".")?;
    fs::write(context.output("x")?, "made")?;
    Ok(context.attempt())
}

fn what_it_wrote_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let note = directory.path().join("note");
    let start = || {
        let flow = Flow::open(Config::new(directory.path())).unwrap();
        let made = flow.function(noted).output("x", "x.txt").try_call((note.clone(),));
        let text = fs::read_to_string(made.output("x").wait().unwrap()).unwrap();
        flow.close().unwrap();
        (text, fs::read(&note).unwrap().len())
    };
    assert_eq!(start(), ("made".to_owned(), 1));
    assert_eq!(start(), ("made".to_owned(), 1), "it is remembered");
    fs::remove_file(directory.path().join("x.txt")).unwrap();
    assert_eq!(start(), ("made".to_owned(), 1), "it is brought back");
    check_nothing_in(directory.path(), "scratch");
}

fn nothing_is_seen() {
    let case = Case::new();
    let flow = &case.flow;
    let half = |path: PathBuf| fs::write(path, "half").unwrap();
    let panics = move |context: Context| -> u8 {
        half(context.output("x").unwrap());
        panic!("in the middle");
    };
    let fails = move |context: Context| -> io::Result<u8> {
        half(context.output("x")?);
        Err(io::Error::other("in the middle"))
    };
    let forgets = move |context: Context| -> io::Result<u8> {
        half(context.output("x")?);
        Ok(1)
    };
    let endless = move |context: Context| async move {
        half(context.output("x").unwrap());
        std::future::pending::<u8>().await
    };
    let of = |name: &str| format!("{name}.txt");
    let died = flow.function(panics).output("x", &of("panics")).call(());
    let failed = flow.function(fails).output("x", &of("fails")).try_call(());
    let forgot = flow.function(forgets).output("x", &of("x")).output("y", &of("y")).try_call(());
    let late = flow.function(endless).output("x", &of("late")).timeout(Duration::from_millis(50));
    let late = late.call(());
    for (future, cause) in
        [(&died, "in the middle"), (&failed, "in the middle"), (&forgot, "y"), (&late, "timed out")]
    {
        let error = future.output("x").wait().unwrap_err();
        assert!(error.to_string().contains(cause), "{error}");
    }
    assert!(forgot.wait().is_err(), "an output is missing");
    for name in ["panics", "fails", "x", "y", "late"] {
        assert!(!case.path().join(of(name)).exists(), "{name}");
    }
    case.flow.close().unwrap();
    check_nothing_in(case.directory.path(), "scratch");
}

fn mistakes_are_told() {
    let case = Case::new();
    let flow = &case.flow;
    let untold = flow.function(|| 1u8).output("x", "x.txt").call(());
    let error = untold.wait().unwrap_err();
    assert!(error.to_string().contains("its first parameter has to be a `Context`"), "{error}");
    let own = flow.clone();
    let join = move || own.call(|| 1u8, ());
    let error = flow.function(join).checkpoint("state").join(()).wait().unwrap_err();
    assert!(error.to_string().contains("a join has no output"), "{error}");
    let wrong = |context: Context| context.output("y").map(|_| ());
    let error = flow.function(wrong).output("x", "x2.txt").try_call(()).wait().unwrap_err();
    assert!(error.to_string().contains("the task has no output \"y\""), "{error}");
    let none = |context: Context| context.save();
    let error = flow.function(none).try_call(()).wait().unwrap_err();
    assert!(error.to_string().contains("the task has no checkpoint"), "{error}");
    let error = flow.call(|| 1u8, ()).output("x").wait().unwrap_err();
    assert!(error.to_string().contains("it has no output \"x\", none at all"), "{error}");
    let inside = flow.function(squares).output("rows", "state/rows").checkpoint("state");
    let error = inside.try_call((1,)).wait().unwrap_err();
    assert!(error.to_string().contains("would be in one place"), "{error}");
}

/// The numbers in a file, one on each line.
fn numbers(file: &Path) -> Vec<u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

/// Counts to the next multiple of a hundred for each try, in which it then dies in another way.
async fn count(context: Context, upto: u64) -> io::Result<Vec<u64>> {
    let file = context.checkpoint()?.join("counted");
    let mut counted = fs::File::options().create(true).append(true).open(&file)?;
    for number in numbers(&file).len() as u64 + 1..=upto {
        writeln!(counted, "{number}")?;
        if number % 100 == 0 && number < upto {
            match context.attempt() {
                1 => return Err(io::Error::other("it had enough")),
                2 => panic!("it had enough"),
                _ => std::future::pending::<()>().await,
            }
        }
    }
    fs::copy(&file, context.output("all")?)?;
    Ok(vec![u64::from(context.attempt())])
}

fn each_kind_of_death() {
    let case = Case::new();
    let events = case.flow.events();
    let moment = Duration::from_millis(1);
    let count =
        case.flow.function(count).name("count").checkpoint("state/").output("all", "all.txt");
    let count = count.retries(5).backoff(moment, moment).timeout(Duration::from_secs(2));
    let tries = count.try_call((400,));
    assert_eq!(tries.wait().unwrap(), [4]);
    assert!(numbers(&case.path().join("all.txt")).into_iter().eq(1..=400));
    case.flow.close().unwrap();
    let mut restored = Vec::new();
    while let Some(stamped) = events.wait_next() {
        if let Fact::CheckpointRestored { ordinal, from, .. } = stamped.unwrap().fact {
            restored.push((from.ordinal, ordinal));
        }
    }
    assert_eq!(restored, [(1, 2), (2, 3), (3, 4)]);
    for kept in ["checkpoints", "scratch"] {
        check_nothing_in(case.directory.path(), kept);
    }
}

/// The first try takes too long and, when the second one runs, still writes.
fn lingers(context: Context, project: PathBuf) -> io::Result<Vec<String>> {
    let file = context.checkpoint()?.join("counted");
    if context.attempt() == 1 {
        fs::write(&file, "one")?;
        wait_until("it is given up", || context.is_given_up());
        wait_until("the second try", || project.join("second").exists());
        fs::write(&file, "damage")?;
        fs::write(context.output("x")?, "damage")?;
        let error = context.save().expect_err("nobody waits for it");
        fs::write(project.join("said.new"), error.to_string())?;
        fs::rename(project.join("said.new"), project.join("said"))?;
        return Ok(Vec::new());
    }
    fs::write(project.join("second"), "")?;
    wait_until("the first one returns", || project.join("said").exists());
    fs::write(context.output("x")?, "whole")?;
    Ok(vec![fs::read_to_string(&file)?, fs::read_to_string(project.join("said"))?])
}

fn one_that_was_given_up() {
    let case = Case::new();
    let lingers = case.flow.function(lingers).checkpoint("state/").output("x", "x.txt").retries(1);
    let moment = Duration::from_millis(1);
    let lingers = lingers.timeout(Duration::from_secs(2)).backoff(moment, moment);
    let found = lingers.try_call((case.path().to_owned(),)).wait().unwrap();
    assert_eq!(found[0], "one");
    assert!(found[1].contains("the attempt ended"), "{found:?}");
    assert_eq!(case.read("x.txt"), "whole");
    case.flow.close().unwrap();
    wait_until("nothing is left", || left_in(case.directory.path(), "scratch").is_empty());
}

/// In the first flow it is given up, and still writes when it runs in the second one.
fn outlives(context: Context, project: PathBuf) -> io::Result<String> {
    let output = context.output("x")?;
    if !project.join("first").exists() {
        fs::write(project.join("first"), "")?;
        wait_until("it is given up", || context.is_given_up());
        wait_until("the second flow", || project.join("second").exists());
        let written = fs::write(output, "damage").is_ok();
        fs::write(project.join("said.new"), written.to_string())?;
        fs::rename(project.join("said.new"), project.join("said"))?;
        return Ok(String::new());
    }
    fs::write(output, "whole")?;
    fs::write(project.join("second"), "")?;
    wait_until("the first one writes", || project.join("said").exists());
    fs::read_to_string(project.join("said"))
}

fn one_of_an_earlier_flow() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let config = Config::new(directory.path()).cores(2).remember(Remember::Nothing);
        Flow::open(config).unwrap()
    };
    let begin = |flow: &Flow| {
        let outlives = flow.function(outlives).output("x", "x.txt");
        outlives.try_call((directory.path().to_owned(),))
    };
    let flow = open();
    let first = begin(&flow);
    wait_until("it runs", || directory.path().join("first").exists());
    flow.close_by(OnClose::Cancel).unwrap();
    first.wait().unwrap_err();
    let flow = open();
    assert_eq!(begin(&flow).wait().unwrap(), "false", "its directory is gone");
    assert_eq!(fs::read_to_string(directory.path().join("x.txt")).unwrap(), "whole");
}

/// There is one core, and so one thread: each further try needs another.
fn one_that_never_returns() {
    let case = Case::with(|config| config.cores(1));
    let parks = |context: Context| {
        while context.attempt() < 3 {
            std::thread::park();
        }
        context.attempt()
    };
    let moment = Duration::from_millis(1);
    let parks = case.flow.function(parks).retries(2).backoff(moment, moment);
    let tries = parks.timeout(Duration::from_secs(1)).call(());
    assert_eq!(tries.wait().unwrap(), 3);
    assert_eq!(case.flow.call(|| 7, ()).wait().unwrap(), 7);
    case.flow.close().unwrap();
}

fn saved_while_it_runs() {
    let case = Case::new();
    let events = case.flow.events();
    let asks = |context: Context| {
        (1..=3u32).try_for_each(|number| {
            fs::write(context.checkpoint()?.join("number"), number.to_string())?;
            context.save()
        })
    };
    case.flow.function(asks).checkpoint("state").name("asks").try_call(()).wait().unwrap();
    let snapshots = case.path().join(".keelboat/checkpoints");
    let waits = move |context: Context| -> io::Result<()> {
        fs::write(context.checkpoint()?.join("number"), "1")?;
        wait_until("it is saved", || {
            let mut folders = fs::read_dir(&snapshots).into_iter().flatten().flatten();
            folders.any(|folder| folder.file_name().to_string_lossy().starts_with("waits"))
        });
        Ok(())
    };
    let waits = case.flow.function(waits).name("waits");
    waits.checkpoint_every("state", Duration::from_millis(20)).try_call(()).wait().unwrap();
    case.flow.close().unwrap();
    let mut asked = 0;
    while let Some(stamped) = events.wait_next() {
        if let Fact::CheckpointSaved { task, .. } = stamped.unwrap().fact {
            asked += u32::from(task.starts_with("asks"));
        }
    }
    assert_eq!(asked, 3);
}

/// Adds a line in each try, and fails until there are enough.
fn one_more(context: Context, enough: usize) -> io::Result<usize> {
    let file = context.checkpoint()?.join("lines");
    let before = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, format!("{before}line\n"))?;
    let lines = before.lines().count() + 1;
    if lines < enough { Err(io::Error::other(format!("{lines} lines"))) } else { Ok(lines) }
}

/// Snapshots lie under the key of the task, which says of which build they are, also where no results
/// are remembered.
fn a_checkpoint_is_of_one_build() {
    let key = |remember, version: Option<&str>| {
        let case = Case::with(|config| config.remember(remember));
        let mut task = case.flow.function(one_more).checkpoint("state");
        if let Some(version) = version {
            task = task.version(version);
        }
        task.try_call((9,)).wait().unwrap_err();
        case.flow.close().unwrap();
        let saved = left_in(case.directory.path(), "checkpoints").into_iter();
        let saved = saved.filter(|path| path.ends_with("state/lines")).min().expect("a snapshot");
        saved.ancestors().nth(3).and_then(Path::file_name).expect("its key").to_owned()
    };
    let build = key(Remember::All, None);
    assert_eq!(key(Remember::Nothing, None), build);
    assert_ne!(key(Remember::Nothing, Some("1")), build);
}

fn a_torn_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let flow = Flow::open(Config::new(directory.path())).unwrap();
        let one_more = flow.function(one_more).checkpoint("state").try_call((3,));
        one_more.wait().map_err(|error| error.root().to_string())
    };
    let said = |result: Result<usize, String>| result.unwrap_err();
    assert!(said(start()).contains("1 lines"));
    assert!(said(start()).contains("2 lines"));
    let saved = left_in(directory.path(), "checkpoints").into_iter();
    let mut files: Vec<_> = saved.filter(|path| path.ends_with("state/lines")).collect();
    files.sort();
    assert_eq!(files.len(), 2, "the last two are kept: {files:?}");
    fs::write(&files[1], "line\nlin?\n").unwrap();
    assert!(said(start()).contains("2 lines"), "the one before is restored");
    assert_eq!(start(), Ok(3));
}

/// Counts to 6000, and waits to be killed at a thousand for each of five tries.
fn counter(context: Context, directory: String) -> io::Result<u32> {
    let outside = Path::new(&directory);
    let file = context.checkpoint()?.join("counted");
    let append = |file: &Path| fs::File::options().create(true).append(true).open(file);
    let (mut counted, mut work) = (append(&file)?, append(&outside.join("work"))?);
    for number in numbers(&file).len() as u64 + 1..=6000 {
        writeln!(work, "{number}")?;
        writeln!(counted, "{number}")?;
        if number == u64::from(context.attempt()) * 1000 && number < 6000 {
            fs::write(outside.join(format!("reached-{}", context.attempt())), "")?;
            loop {
                std::thread::park();
            }
        }
    }
    fs::copy(&file, context.output("all")?)?;
    Ok(context.attempt())
}

/// The program that is killed.
pub(super) fn run_if_child() -> Option<ExitCode> {
    let directory = std::env::var(CHILD).ok()?;
    let flow = Flow::open(Config::new(&directory).name("counter")).expect("a flow");
    let counter = flow.function(counter).checkpoint("state/").output("all", "all.txt");
    let tries = counter.try_call((directory,)).wait().expect("a value");
    flow.close().expect("the end");
    Some(ExitCode::from(u8::try_from(tries).expect("few tries")))
}

fn start(directory: &Path) -> Child {
    let own = std::env::current_exe().expect("this program");
    let mut command = std::process::Command::new(own);
    command.env(CHILD, directory).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("a child")
}

fn a_killed_program_counts() {
    let directory = tempfile::tempdir().unwrap();
    for attempt in 1..=5 {
        let mut child = start(directory.path());
        let reached = directory.path().join(format!("reached-{attempt}"));
        wait_until("it goes on", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            reached.exists()
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let code = start(directory.path()).wait().unwrap().code();
    assert_eq!(code, Some(6), "the sixth try ended well");
    assert!(numbers(&directory.path().join("all.txt")).into_iter().eq(1..=6000));
    assert!(numbers(&directory.path().join("work")).into_iter().eq(1..=6000), "each once");
    for kept in ["checkpoints", "scratch"] {
        check_nothing_in(directory.path(), kept);
    }
}

fn what_comes_from_elsewhere() {
    let elsewhere = tempfile::tempdir().unwrap();
    let root = elsewhere.path();
    fs::create_dir_all(root.join("reads/deep")).unwrap();
    for name in ["reads/a.txt", "reads/deep/b.txt", "c.txt"] {
        fs::write(root.join(name), name).unwrap();
    }
    let case = Case::new();
    let address = |path: &str| format!("file://{}/{path}", root.display());
    let reads = case.flow.file(&address("reads/")).directory();
    let single = case.flow.file(&address("c.txt"));
    fn look(reads: PathBuf, single: PathBuf) -> io::Result<[String; 3]> {
        // What it is given is its own.
        fs::write(single.with_extension("log"), "")?;
        let name = single.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let read = |name: &str| fs::read_to_string(reads.join(name));
        Ok([name, read("a.txt")?, read("deep/b.txt")?])
    }
    let found = case.flow.try_call(look, (reads, single)).wait().unwrap();
    assert_eq!(found, ["c.txt", "reads/a.txt", "reads/deep/b.txt"]);
    let own = case.flow.clone();
    let reads = case.flow.file(&address("reads/")).directory();
    let join = move |reads: PathBuf| {
        let names = fs::read_dir(reads).map_or(0, Iterator::count);
        own.call(|count: usize| count, (names,))
    };
    assert_eq!(case.flow.join(join, (reads,)).wait().unwrap(), 2);
    case.flow.close_by(OnClose::Wait).unwrap();
}
