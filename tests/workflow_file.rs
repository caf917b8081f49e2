//! The workflow file: what it becomes, and how its mistakes are shown.

#[path = "workflow_file/mistakes.rs"]
mod mistakes;

use keelboat::workflow::{LoadOptions, Workflow, WorkflowErrors};
use keelboat_engine::{Command, Kind, Source, TaskSpec};
use miette::{GraphicalReportHandler, GraphicalTheme};

/// A project directory with these files; the first is the workflow file.
struct Project(tempfile::TempDir);

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::fs::write(path, text).expect("a file");
        }
        Self(directory)
    }

    fn load_with(&self, set: &[(&str, &str)]) -> Result<Workflow, WorkflowErrors> {
        let set = set.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        let options =
            LoadOptions { set, project_dir: self.0.path().to_owned(), ..LoadOptions::default() };
        Workflow::load(&self.0.path().join("flow.toml"), &options)
    }

    fn shown(&self, errors: &WorkflowErrors) -> String {
        let mut text = String::new();
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .with_width(100)
            .render_report(&mut text, errors)
            .expect("rendering");
        let directory = format!("{}/", self.0.path().display());
        let text = text.replace(&directory, "");
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

fn load(text: &str) -> Workflow {
    let project = Project::new(&[("flow.toml", text)]);
    project.load_with(&[]).map_err(|errors| project.shown(&errors)).expect("a good file")
}

fn mistakes(files: &[(&str, &str)]) -> String {
    let project = Project::new(files);
    match project.load_with(&[]) {
        Ok(workflow) => format!("no mistake: {} tasks", workflow.tasks().len()),
        Err(errors) => project.shown(&errors),
    }
}

fn mistake(text: &str) -> String {
    mistakes(&[("flow.toml", text)])
}

fn names(tasks: &[TaskSpec]) -> Vec<&str> {
    tasks.iter().map(|task| task.name.as_ref()).collect()
}

fn script(task: &TaskSpec) -> &str {
    match &task.command {
        Command::Shell { script, .. } => script,
        Command::Argv(_) | Command::Template { .. } | Command::Function { .. } => "",
    }
}

const VARIANTS: &str = r#"
[workflow]
name = "variants"
params = { min_quality = 30 }

[task.index]
inputs  = { fa = { url = "https://host/ref.fa.gz", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" } }
outputs = { idx = "ref/ref.idx" }
run     = "build-index {{ inputs.fa }} > {{ outputs.idx }}"

[task.align]
foreach = { sample = ["a", "b c"] }
inputs  = { reads = "ftp://host/{{ sample | replace(' ', '_') }}.fq.gz", idx = "ref/ref.idx" }
outputs = { bam = "out/{{ sample }}.bam" }
run     = "align -q {{ min_quality }} {{ inputs.idx }} {{ inputs.reads }} > {{ outputs.bam }}"
cores = 2
memory = "4GiB"
timeout = "2h"
retries = 3

[task.merge]
inputs  = { bams = { from = "align.bam" } }
outputs = { all = { path = "out/all.bam", to = "file:///tmp/all.bam" } }
argv    = ["merge", "-o", "{{ outputs.all }}", "{{ inputs.bams }}"]
"#;

#[test]
fn a_whole_file_becomes_tasks() {
    let workflow = load(VARIANTS);
    assert_eq!(workflow.name(), "variants");
    let tasks = workflow.tasks();
    assert_eq!(names(tasks), ["index", "align[sample=a]", "align[sample=b c]", "merge"]);
    assert_eq!(script(&tasks[0]), "build-index ref.fa.gz > ref/ref.idx");
    assert_eq!(script(&tasks[2]), "align -q 30 ref/ref.idx b_c.fq.gz > 'out/b c.bam'");
    assert_eq!(tasks[1].options.resources.cores, 2);
    assert_eq!(tasks[1].options.resources.memory, 4 << 30);
    assert_eq!(tasks[1].options.retry.retries, 3);
    assert_eq!(tasks[1].inputs[1].source, Source::Path("ref/ref.idx".into()));
    let argv = ["merge", "-o", "out/all.bam", "out/a.bam", "out/b c.bam"].map(String::from);
    assert_eq!(tasks[3].command, Command::Argv(argv.into()));
    assert_eq!(tasks[3].inputs[0].kind, Kind::File);
}

/// Reports that `generator` is done; it has written `text` to each of its outputs.
fn grown(workflow: &mut Workflow, generator: &str, text: &str) -> Vec<TaskSpec> {
    let mut read = |_: &str| Ok(text.as_bytes().to_vec());
    let grown = workflow.grow(generator, &mut read);
    grown.map_err(|errors| errors.to_string()).expect("growth")
}

#[test]
fn foreach_combines_zips_and_reads_tables() {
    let project = Project::new(&[
        ("samples.csv", "sample,lane,url\na,1,https://h/1\na,2,https://h/2\n"),
        ("reads/s1.fq.gz", ""),
        ("reads/s2.fq.gz", ""),
        (
            "flow.toml",
            r#"
            [task.product]
            foreach = { a = ["x", "y"], n = { range = 2 } }
            run = "echo {{ a }} {{ n + 1 }}"
            [task.zipped]
            foreach = { zip = { a = ["x", "y"], n = { range = [1, 3] } } }
            run = "echo {{ a }} {{ n }}"
            [task.rows]
            foreach = { row = { csv = "samples.csv" } }
            inputs = { reads = "{{ row.url }}" }
            run = "echo {{ row.sample }} {{ inputs.reads }}"
            [task.globbed]
            foreach = { f = { glob = "reads/*.fq.gz" } }
            inputs = { f = "{{ f }}" }
            outputs = { o = "out/{{ f.stem }}.txt" }
            run = "zcat {{ inputs.f }} {{ f }} {{ f.name }} {{ f.dir }}{{ f.ext }} > {{ outputs.o }}"
            "#,
        ),
    ]);
    let workflow = project.load_with(&[]).expect("a good file");
    let shown: Vec<String> =
        workflow.tasks().iter().map(|task| format!("{}: {}", task.name, script(task))).collect();
    assert_eq!(
        shown,
        [
            "product[a=x,n=0]: echo x 1",
            "product[a=x,n=1]: echo x 2",
            "product[a=y,n=0]: echo y 1",
            "product[a=y,n=1]: echo y 2",
            "zipped[a=x,n=1]: echo x 1",
            "zipped[a=y,n=2]: echo y 2",
            "rows[sample=a,lane=1]: echo a 1",
            "rows[sample=a,lane=2]: echo a 2",
            "globbed[f=reads/s1.fq.gz]: zcat reads/s1.fq.gz reads/s1.fq.gz s1.fq.gz reads.fq.gz > out/s1.txt",
            "globbed[f=reads/s2.fq.gz]: zcat reads/s2.fq.gz reads/s2.fq.gz s2.fq.gz reads.fq.gz > out/s2.txt",
        ]
    );
}

#[test]
fn parameters_are_set_by_type() {
    let project = Project::new(&[(
        "flow.toml",
        r#"
        [workflow]
        params = { n = 1, x = 0.5, on = true, text = "a", list = [1, 2] }
        [task.t]
        run = "{{ n + 1 }} {{ params.x }} {{ 'yes' if on else 'no' }} {{ text }} {{ list }}"
        "#,
    )]);
    let set = [("n", "4"), ("x", "2"), ("on", "false"), ("text", "b c"), ("list", "[\"u\"]")];
    let workflow = project.load_with(&set).expect("good parameters");
    assert_eq!(script(&workflow.tasks()[0]), "5 2.0 no 'b c' u");
    let plain = project.load_with(&[]).expect("a good file");
    assert_eq!(script(&plain.tasks()[0]), "2 0.5 yes a 1 2");
    assert_ne!(plain.identity(), workflow.identity());
    assert_eq!(plain.identity(), project.load_with(&[]).expect("a good file").identity());
    for wrong in [("m", "1"), ("n", "x"), ("on", "1"), ("list", "1")] {
        let errors = project.load_with(&[wrong]).expect_err("a wrong parameter");
        insta::assert_snapshot!(format!("set_{}_{}", wrong.0, wrong.1), project.shown(&errors));
    }
}

#[test]
fn includes_bring_tasks_and_inherit_defaults() {
    let project = Project::new(&[
        (
            "flow.toml",
            "include = ['sub/more.toml', 'sub/other.toml']\n[workflow]\nparams = {p = 1}\n\
             [defaults]\nretries = 2\ncores = 2\nenv = {A = '1'}\n[task.a]\nrun = 'echo {{ q }}'",
        ),
        (
            "sub/more.toml",
            "include = 'other.toml'\n[workflow]\nname = 'no'\nparams = {p = 2, q = 3}\n\
             [defaults]\ncores = 4\n[task.b]\nrun = 'echo {{ p }}'\nenv = {B = '2'}\nretries = 0",
        ),
        ("sub/other.toml", "[task.c]\nrun = 'true'"),
    ]);
    let workflow = project.load_with(&[]).expect("a good file");
    assert_eq!(workflow.name(), "flow");
    let tasks = workflow.tasks();
    assert_eq!(names(tasks), ["a", "b", "c"]);
    assert_eq!((script(&tasks[0]), script(&tasks[1])), ("echo 3", "echo 1"));
    let options = |at: usize| (tasks[at].options.resources.cores, tasks[at].options.retry.retries);
    assert_eq!((options(0), options(1)), ((2, 2), (4, 0)));
    let env: Vec<(&str, &str)> =
        tasks[1].options.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("A", "1"), ("B", "2")]);
}

#[test]
fn the_graph_grows_from_lines_and_json() {
    let mut workflow = load(
        r#"
        [task.split]
        outputs = { list = "parts/list.txt" }
        run = "split > {{ outputs.list }}"
        [task.part]
        foreach = { p = { from = "split.list" } }
        outputs = { o = "parts/{{ p }}.out", more = "parts/{{ p }}.json" }
        run = "work {{ p }} > {{ outputs.o }}; list {{ p }} > {{ outputs.more }}"
        [task.again]
        foreach = { q = { from = "part.more", format = "json" } }
        inputs = { o = "parts/{{ q.of }}.out" }
        run = "again {{ q.n }} {{ inputs.o }}"
        [task.reads_one]
        inputs = { x = "parts/b.out" }
        run = "cat {{ inputs.x }}"
        [task.all]
        inputs = { all = { from = "part.o" } }
        run = "cat {{ inputs.all }}"
        [task.last]
        after = ["again"]
        run = "true"
        [task.free]
        inputs = { x = "data/b.out" }
        run = "cat {{ inputs.x }}"
        "#,
    );
    assert_eq!(names(workflow.tasks()), ["split", "free"]);
    assert!(workflow.tasks()[0].options.generates && !workflow.tasks()[1].options.generates);
    assert_eq!(workflow.families().count(), 7);
    assert!(grown(&mut workflow, "free", "").is_empty());
    let first = grown(&mut workflow, "split", "b\nc\n");
    assert_eq!(names(&first), ["part[p=b]", "part[p=c]", "reads_one", "all"]);
    assert!(first[0].options.generates);
    assert_eq!(script(&first[3]), "cat parts/b.out parts/c.out");
    assert!(grown(&mut workflow, "split", "d\n").is_empty(), "reported twice");
    assert!(grown(&mut workflow, "part[p=c]", "").is_empty(), "not all are done");
    assert!(!workflow.is_complete());
    let mut read = |path: &str| match path {
        "parts/b.json" => Ok(br#"[{"of": "b", "n": 1}, {"of": "b", "n": 2}]"#.to_vec()),
        "parts/c.json" => Ok(b"[]".to_vec()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    let second = workflow.grow("part[p=b]", &mut read).expect("growth");
    assert_eq!(names(&second), ["again[of=b,n=1]", "again[of=b,n=2]", "last"]);
    assert_eq!(script(&second[1]), "again 2 parts/b.out");
    assert_eq!(second[2].after, [second[0].name.clone(), second[1].name.clone()]);
    assert!(workflow.is_complete());
}

#[test]
fn what_is_dormant_depends_on_what_the_file_says() {
    let workflow = load(
        r#"
        [workflow]
        params = { base = "https://host.example", dir = "work" }
        [task.list]
        outputs = { list = "list" }
        run = "ls"
        [task.part]
        foreach = { p = { from = "list.list" } }
        inputs = { data = "{{ params.base }}/{{ p }}.csv" }
        outputs = { o = "{{ dir }}/{{ p }}.csv" }
        run = "part"
        [task.smooth]
        foreach = { p = { from = "list.list" } }
        inputs = { o = "work/{{ p }}.csv" }
        outputs = { o = "smooth/{{ p }}.csv" }
        run = "smooth"
        [task.one]
        inputs = { o = "smooth/a.csv" }
        run = "one"
        [task.last]
        inputs = { o = { from = "smooth.o" } }
        after = ["one"]
        run = "last"
        "#,
    );
    let dormant = workflow.dormant();
    let depends: Vec<_> =
        dormant.iter().map(|dormant| (dormant.name, dormant.depends_on.clone())).collect();
    assert_eq!(
        depends,
        [
            ("part", vec!["list"]),
            ("smooth", vec!["list", "part"]),
            ("one", vec!["smooth"]),
            ("last", vec!["smooth", "one"]),
        ]
    );
    assert!(load("[task.t]\nrun = 'a'").dormant().is_empty());
}

#[test]
fn an_empty_list_makes_no_tasks_and_an_empty_from() {
    let mut workflow = load(
        r#"
        [task.split]
        outputs = { list = "list" }
        run = "split"
        [task.part]
        foreach = { p = { from = "split" } }
        outputs = { o = "{{ p }}.out" }
        run = "work"
        [task.all]
        inputs = { all = { from = "part" } }
        argv = ["cat", "{{ inputs.all }}"]
        "#,
    );
    let grown = grown(&mut workflow, "split", "\n");
    assert_eq!(names(&grown), ["all"]);
    assert_eq!(grown[0].command, Command::Argv(["cat".to_owned()].into()));
    assert!(grown[0].inputs.is_empty());
}

#[test]
fn what_a_generator_wrote_may_be_wrong() {
    let text = |format: &str| {
        format!(
            "[task.split]\noutputs = {{ list = 'list' }}\nrun = 'split'\n[task.part]\nforeach = {{ p \
             = {{ from = 'split.list', format = '{format}' }} }}\noutputs = {{ o = 'out/{{{{ p }}}}' \
             }}\nrun = 'work {{{{ p }}}}'\n"
        )
    };
    for (name, format, bytes) in [
        ("escape", "lines", &b"../../etc/passwd\n"[..]),
        ("twice", "lines", b"a\na\n"),
        ("same_path", "lines", b"a\n./a\n"),
        ("not_utf8", "lines", b"a\n\xff\n"),
        ("not_json", "json", b"[1, 2"),
        ("a_row", "json", b"[{\"a\": 1}]"),
        ("gone", "lines", b"GONE"),
    ] {
        let project = Project::new(&[("flow.toml", &text(format))]);
        let mut workflow = project.load_with(&[]).expect("a good file");
        let mut read = |_: &str| match bytes {
            b"GONE" => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
            bytes => Ok(bytes.to_vec()),
        };
        let errors = workflow.grow("split", &mut read).expect_err("a wrong output");
        insta::assert_snapshot!(format!("growth_{name}"), project.shown(&errors));
    }
}

#[test]
fn a_cycle_of_tasks_that_are_not_known_yet_is_found() {
    let text = r#"
        [task.list]
        inputs = { x = "parts/a.out" }
        outputs = { list = "list" }
        run = "ls"
        [task.part]
        foreach = { p = { from = "list.list" } }
        outputs = { o = "parts/{{ p }}.out" }
        run = "work"
        "#;
    insta::assert_snapshot!("dormant_cycle", mistake(text));
    // A file that is there is a source: only the pattern would make it a cycle.
    let project = Project::new(&[("flow.toml", text), ("parts/a.out", "")]);
    assert_eq!(names(project.load_with(&[]).expect("no cycle").tasks()), ["list"]);
}

#[test]
fn files_get_their_names_in_the_scratch_directory() {
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let workflow = load(&format!(
        r#"
        [task.tree]
        outputs = {{ tree = "tree/", log = {{ path = "/abs/-log", optional = true }} }}
        run = "make {{{{ outputs.tree }}}} {{{{ outputs.log }}}}"
        [task.t]
        inputs.url = {{ urls = ["https://a/x/y.gz?q", "ftp://b/z"], sha256 = "{sha256}" }}
        inputs.path = ["data/./a", "../up/b", {{ path = "/abs/c", as = "dir/c" }}]
        inputs.tree = "tree"
        inputs.dash = "-dash"
        inputs.maybe = {{ path = "maybe", optional = true }}
        inputs.one = {{ from = "tree.log" }}
        run = "{{{{ inputs.path }}}} {{{{ inputs.dash }}}} {{{{ inputs.one }}}}"
        "#
    ));
    let [tree, task] = workflow.tasks() else { unreachable!("two tasks") };
    assert_eq!(script(tree), "make tree ./-log");
    assert_eq!((tree.outputs[0].kind, tree.outputs[1].optional), (Kind::Directory, true));
    let scratch: Vec<&str> = task.inputs.iter().map(|input| input.scratch_path.as_ref()).collect();
    assert_eq!(scratch, ["y.gz", "data/a", "b", "dir/c", "tree", "-dash", "maybe", "-log"]);
    assert_eq!(script(task), "data/a b dir/c ./-dash ./-log");
    assert_eq!(task.inputs[4].kind, Kind::Directory, "what it is comes from who writes it");
    assert!(task.inputs[6].optional);
    assert_eq!(task.inputs[0].sha256, sha256.parse().ok());
    let labels: Vec<&str> = task.inputs.iter().map(|input| input.label.as_ref()).collect();
    assert_eq!(labels, ["url", "path", "path", "path", "tree", "dash", "maybe", "one"]);
}

#[test]
fn one_instance_can_be_taken() {
    let workflow = load(
        r#"
        [task.align]
        foreach = { s = ["a", "b"] }
        outputs = { bam = "{{ s }}.bam", logs = ["{{ s }}.1", "{{ s }}.2"] }
        run = "align"
        [task.call]
        foreach = { s = ["a", "b"] }
        inputs = { bam = { from = "align[s={{ s }}].bam" }, logs = { from = "align[s={{ s }}].logs" } }
        after = ["align[s={{ s }}]"]
        run = "call {{ inputs.bam }} {{ inputs.logs }}"
        "#,
    );
    let call = &workflow.tasks()[3];
    assert_eq!(script(call), "call b.bam b.1 b.2");
    assert_eq!(call.after, ["align[s=b]".into()]);
}

#[test]
fn the_shell_suits_the_script() {
    let shell = |run: &str| {
        let workflow = load(&format!("[task.t]\nrun = \"{run}\""));
        match &workflow.tasks()[0].command {
            Command::Shell { shell, .. } => shell.join(" "),
            Command::Argv(_) | Command::Template { .. } | Command::Function { .. } => String::new(),
        }
    };
    assert_eq!(shell("a || b"), "/bin/sh -e -c");
    assert_eq!(shell("{{ 1 | raw }}"), "/bin/sh -e -c");
    assert_eq!(shell("a | b"), "bash -e -o pipefail -c");
}

#[test]
fn lines_may_end_as_those_of_windows_do() {
    let unix = "[task.t]\nrun = '''\ncat a\ncat b\n'''\n[task.u]\nrun = \"\"\"a\\\n  b\nc\"\"\"\n";
    let (windows, unix) = (load(&unix.replace('\n', "\r\n")), load(unix));
    assert_eq!(script(&windows.tasks()[0]), "cat a\ncat b\n");
    assert_eq!(script(&windows.tasks()[1]), "ab\nc");
    assert_eq!(windows.identity(), unix.identity(), "the plan is the same");
    let wrong = "[task.t]\nrun = '''\ncat\ncat {{ x }}'''\n";
    assert_eq!(mistake(&wrong.replace('\n', "\r\n")), mistake(wrong), "so are the places");
}

#[test]
fn an_empty_foreach_is_a_warning() {
    let workflow = load("[task.t]\nforeach = { f = { glob = 'none/*' } }\nrun = 'true'");
    assert!(workflow.tasks().is_empty());
    assert_eq!(workflow.warnings().len(), 1);
    let warning = &workflow.warnings()[0];
    assert!(warning.to_string().contains("no values"));
    assert_eq!(warning.line(), Some(2));
    assert!(warning.located().contains("flow.toml:2: `f` has no values"), "{}", warning.located());
}

#[test]
fn every_mistake_is_shown_with_its_place() {
    for (name, text) in mistakes::MISTAKES {
        let shown = mistakes(&[
            ("flow.toml", text),
            ("bad.csv", "a,b\n1\n"),
            ("good.csv", "sample,lane\na,1\n"),
            ("loop.toml", "include = ['flow.toml']"),
            ("dup.toml", "[task.t]\nrun = 'b'\n"),
        ]);
        insta::assert_snapshot!(*name, shown);
    }
    insta::assert_snapshot!("no_file", mistakes(&[("other.toml", "")]));
}

#[test]
fn no_task_may_write_a_workflow_file() {
    let task = |output: &str| {
        format!(
            "include = ['sub/part.toml']\n[task.t]\noutputs = {{ o = '{output}' }}\nrun = 'a'\n"
        )
    };
    let shown = |output: &str| {
        let project = Project::new(&[
            ("flow.toml", &task(output)),
            ("sub/part.toml", "[task.part]\nrun = 'b'\n"),
            ("sub/real.toml", ""),
        ]);
        std::os::unix::fs::symlink("sub", project.0.path().join("link")).expect("a link");
        match project.load_with(&[]) {
            Ok(workflow) => format!("no mistake: {} tasks", workflow.tasks().len()),
            Err(errors) => project.shown(&errors),
        }
    };
    insta::assert_snapshot!("writes_itself", shown("./flow.toml"));
    insta::assert_snapshot!("writes_included", shown("sub/../sub//part.toml"));
    for other in ["link/part.toml", "sub/", "link"] {
        let replaces = shown(other).contains("would replace a workflow file");
        assert_eq!(replaces, other != "link", "{other}");
    }
    for free in ["out/flow.toml", "sub/real.toml", "sub/flow.toml", "part.toml", "new/sub"] {
        assert_eq!(shown(free), "no mistake: 2 tasks", "{free}");
    }
    // In the middle of a run, too.
    let project = Project::new(&[(
        "flow.toml",
        "[task.g]\noutputs = { l = 'l' }\nrun = 'a'\n[task.t]\nforeach = { x = { from = 'g.l' } }\n\
         outputs = { o = '{{ x }}' }\nrun = 'a'\n",
    )]);
    let mut workflow = project.load_with(&[]).expect("a good file");
    let errors = workflow.grow("g", &mut |_| Ok(b"flow.toml\n".to_vec())).expect_err("itself");
    assert!(errors.to_string().contains("would replace a workflow file"), "{errors}");
}

#[test]
fn the_examples_of_the_reference_are_true() {
    let reference = std::fs::read_to_string("docs/workflow-file.md").expect("the reference");
    let examples: Vec<&str> = reference
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(example, _)| example))
        .collect();
    assert!(examples.len() >= 7, "{} examples", examples.len());
    for example in examples {
        let workflow = load(example);
        assert!(!workflow.tasks().is_empty(), "{example}");
        assert!(workflow.warnings().is_empty(), "{example}");
    }
}

#[test]
fn a_generator_without_tasks_makes_nothing() {
    let workflow = load(
        "[task.a]\nforeach = { f = { glob = 'none/*' } }\noutputs = { l = '{{ f.stem }}' }\nrun = 'a'\n\
         [task.b]\nforeach = { x = { from = 'a.l' } }\nrun = 'b {{ x }}'\n\
         [task.c]\nafter = ['b']\nrun = 'c'\n",
    );
    assert_eq!(names(workflow.tasks()), ["c"]);
    assert!(workflow.is_complete());
}

#[test]
fn the_order_of_reports_does_not_matter() {
    let text = "[task.a]\noutputs = { l = 'l' }\nrun = 'a'\n[task.b]\nforeach = { x = { from = 'a.l' } \
                }\noutputs = { l = 'b/{{ x }}' }\nrun = 'b'\n[task.c]\nforeach = { y = { from = 'b.l' \
                } }\nrun = 'c {{ y }}'\n";
    let mut workflow = load(text);
    let mut read = |path: &str| Ok(if path == "l" { b"1\n".to_vec() } else { b"z\n".to_vec() });
    assert!(workflow.grow("b[x=1]", &mut read).expect("growth").is_empty());
    let grown = workflow.grow("a", &mut read).expect("growth");
    assert_eq!(names(&grown), ["b[x=1]", "c[y=z]"]);
}

#[test]
fn a_value_in_quotes_is_a_warning() {
    let shown = |run: &str| {
        let workflow = load(&format!("[task.t]\ninputs = {{ x = 'a b' }}\nrun = '''\n{run}'''"));
        workflow.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(shown("cat \"{{ inputs.x }}\""), ["this value is quoted twice"]);
    assert!(shown("cat {{ inputs.x }} \"{{ inputs.x | raw }}\" \"of {{ name }}\"").is_empty());
}
