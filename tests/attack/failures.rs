//! Tasks that fail in every way: nothing that needs them ever starts on what they left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::bout::{Bout, attack};
use crate::processes::wait_until_none;
use crate::project::{Project, Run};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        attack("failures::nothing_starts_on_what_failed", nothing_starts_on_what_failed),
        attack("failures::what_grows_after_the_end_is_not_seen", growing_outputs),
    ]
}

const TASKS: usize = 12;

/// How a task can fail. Each writes something first.
const WAYS: [(&str, &str); 5] = [
    ("by its exit code", "echo part > OUT; exit 3"),
    ("by a signal", "echo part > OUT; kill -SEGV $$"),
    ("with half a file", "{ echo part; false; } > OUT"),
    ("without a declared output", "echo part > another.txt"),
    ("with a directory in place of a file", "mkdir -p OUT/inside"),
];

/// Tasks in a graph: what each reads, and how it fails.
struct Graph {
    reads: Vec<Vec<usize>>,
    ways: BTreeMap<usize, usize>,
    /// Differs from run to run, so that all has to run again.
    round: usize,
}

impl Graph {
    fn random(bout: &mut Bout) -> Self {
        let reads = (0..TASKS).map(|at| {
            let count = bout.one_of(3).min(at);
            let read: BTreeSet<usize> = (0..count).map(|_| bout.one_of(at)).collect();
            read.into_iter().collect()
        });
        let reads = reads.collect();
        let failing = 1 + bout.one_of(3);
        let ways = (0..failing).map(|_| (bout.one_of(TASKS), bout.one_of(WAYS.len()))).collect();
        Self { reads, ways, round: 0 }
    }

    fn workflow(&self, fails: bool) -> String {
        let mut text = "[workflow]\nname = \"failures\"\n".to_owned();
        for (at, reads) in self.reads.iter().enumerate() {
            let inputs: Vec<String> = reads.iter().map(|at| format!("\"out/{at}.txt\"")).collect();
            let way = self.ways.get(&at).filter(|_| fails);
            let good = format!("cat {{{{ inputs.all }}}} /dev/null > OUT; echo {at} >> OUT");
            let what = way.map_or(good.as_str(), |way| WAYS[*way].1);
            let what = what.replace("OUT", "{{ outputs.out }}");
            write!(
                text,
                "[task.t{at}]\ninputs = {{ all = [{}] }}\noutputs = {{ out = \"out/{at}.txt\" }}\n\
                 run = '''@count t{at}\n: {}\n{what}'''\n",
                inputs.join(", "),
                self.round,
            )
            .expect("text");
        }
        text
    }

    /// Those that must not start: each needs one that fails.
    fn below_failures(&self) -> BTreeSet<usize> {
        let mut below = BTreeSet::new();
        for (at, reads) in self.reads.iter().enumerate() {
            if reads.iter().any(|from| self.ways.contains_key(from) || below.contains(from)) {
                below.insert(at);
            }
        }
        below
    }

    fn output(&self, at: usize) -> String {
        let reads = self.reads[at].iter().map(|from| self.output(*from));
        reads.collect::<String>() + &format!("{at}\n")
    }

    fn check_failed(&self, project: &Project, run: &Run, before: &BTreeMap<String, usize>) {
        run.assert_code(1);
        let below = self.below_failures();
        for at in 0..TASKS {
            let name = format!("t{at}");
            let ran = project.count(&name) - before.get(&name).copied().unwrap_or(0);
            let ways: Vec<&str> = self.ways.values().map(|way| WAYS[*way].0).collect();
            assert_eq!(ran, usize::from(!below.contains(&at)), "{name}: {ways:?}\n{}", run.said());
            let done = !below.contains(&at) && !self.ways.contains_key(&at);
            let path = format!("out/{at}.txt");
            if done {
                assert_eq!(project.read(&path), self.output(at), "{name}");
            } else if self.round == 0 {
                assert!(!project.exists(&path), "{path} of {name}, which did not succeed");
            }
        }
        let started: BTreeSet<String> = run.tasks("attempt_started").into_iter().collect();
        let skipped: BTreeSet<String> = run.tasks("skipped").into_iter().collect();
        let below: BTreeSet<String> = below.into_iter().map(|at| format!("t{at}")).collect();
        assert!(started.is_disjoint(&below), "{}", run.said());
        // One that fails itself may need another one that fails.
        assert_eq!(skipped, below, "{}", run.said());
    }
}

fn nothing_starts_on_what_failed(bout: &mut Bout) -> String {
    let graphs = bout.times(12, 1000);
    let mut failures = 0;
    for _ in 0..graphs {
        let mut graph = Graph::random(bout);
        let project = Project::new(&graph.workflow(true));
        let run = project.run(&["--keep-going"]);
        graph.check_failed(&project, &run, &BTreeMap::new());
        // With results of an earlier run in their places, which nobody may take for new ones.
        project.set_workflow(&graph.workflow(false));
        project.run_well(&[]);
        graph.round = 1;
        project.set_workflow(&graph.workflow(true));
        let before = project.count_all();
        let run = project.run(&["--keep-going"]);
        graph.check_failed(&project, &run, &before);
        project.set_workflow(&graph.workflow(false));
        project.run_well(&[]);
        for at in 0..TASKS {
            assert_eq!(project.read(format!("out/{at}.txt")), graph.output(at));
        }
        failures += 2 * graph.ways.len();
    }
    format!("{failures} failures of 5 kinds in {graphs} graphs: nothing that needs them started")
}

/// Writers that outlive the leader, each harder to find.
const WRITERS: [&str; 4] = [
    "WRITER &",
    "nohup WRITER >/dev/null 2>&1 &",
    "setsid WRITER &",
    "( setsid WRITER & ) ; sleep 0.01",
];

fn growing_outputs(bout: &mut Bout) -> String {
    let times = bout.times(8, 400);
    for at in 0..times {
        let writer = WRITERS[at % WRITERS.len()]
            .replace("WRITER", "sh -c 'while :; do echo more >> {{ outputs.out }}; done'");
        let wait = bout.chance.below(30);
        let workflow = format!(
            "[workflow]\nname = \"growing\"\n[task.grows]\noutputs = {{ out = \"grows.txt\" }}\n\
             run = '''\necho start > {{{{ outputs.out }}}}\n{writer}\nsleep 0.{wait:03}\n'''\n\
             [task.reads]\ninputs = {{ all = \"grows.txt\" }}\noutputs = {{ out = \"read.txt\" }}\n\
             run = \"cat {{{{ inputs.all }}}} > {{{{ outputs.out }}}}\"\n"
        );
        let project = Project::new(&workflow);
        let run = project.run_well(&[]);
        let (grown, read) = (project.read("grows.txt"), project.read("read.txt"));
        assert!(grown == read, "{writer}: {} bytes, then {}", read.len(), grown.len());
        let digest = keelboat_engine::Digest::of(grown.as_bytes()).to_hex();
        assert!(run.stdout.contains(&digest), "{writer}: the digest is not that of the file");
        wait_until_none(&project.mark());
        std::thread::sleep(Duration::from_millis(5));
        assert!(project.read("grows.txt") == grown, "{writer}: it grew after the end");
    }
    format!("{times} outputs whose writers live on: what was recorded is what was read, and stays")
}
