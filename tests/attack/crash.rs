//! `kill -9` at random moments: the same command finishes, with the right bytes, nothing that was
//! durable runs again, and no process is left over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::bout::{Bout, attack};
use crate::chance::Chance;
use crate::processes::{send, wait_until_none, wardens};
use crate::project::{Project, Run, Running};
use crate::server::Server;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        attack("crash::killed_at_random_moments", killed_at_random_moments),
        attack("crash::killed_while_the_memo_store_is_fed", killed_while_it_is_fed),
    ]
}

/// The longest time from the start of an engine to its death, for every second engine. The others
/// live until they have completed some tasks, and a little longer: a slow machine gets as far.
const LIFE_MAX: Duration = Duration::from_millis(700);
const COMPLETED_MAX: u64 = 25;
const AFTER_COMPLETED_MAX: Duration = Duration::from_millis(30);

/// How exactly moments are met.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Names that the first task reads from the network; each makes three tasks.
const NAMES: usize = 60;

/// Tasks that save how far they came, and how far they go.
const SAVERS: usize = 13;
const STEPS: usize = 12;

/// One list, three tasks for each of 60 names, five that fail at first, 13 that save how far they
/// came, and one over all: 200. Some outputs are sent elsewhere.
const WORKFLOW: &str = r#"
[workflow]
name = "crash"
params = { base = "" }

[defaults]
retries = 2
backoff = "5ms"

[task.list]
inputs = { names = "{{ params.base }}/names.txt" }
outputs = { names = "work/names.txt" }
run = "@count list; cp {{ inputs.names }} {{ outputs.names }}"

[task.clean]
foreach = { sample = { from = "list.names" } }
inputs = { raw = "{{ params.base }}/raw/{{ sample }}.txt" }
outputs = { clean = "work/clean/{{ sample }}.txt" }
run = "@count clean[sample={{ sample }}]; tr a-z A-Z < {{ inputs.raw }} > {{ outputs.clean }}"

[task.split]
foreach = { sample = { from = "list.names" } }
inputs = { clean = "work/clean/{{ sample }}.txt" }
outputs = { parts = { path = "out/parts/{{ sample }}", directory = true } }
run = '''
@count split[sample={{ sample }}]
mkdir -p {{ outputs.parts }}/deep
head -n 3 {{ inputs.clean }} > {{ outputs.parts }}/head
tail -n 3 {{ inputs.clean }} > {{ outputs.parts }}/deep/tail
'''

[task.join]
foreach = { sample = { from = "list.names" } }
inputs = { parts = { path = "out/parts/{{ sample }}", directory = true }, clean = "work/clean/{{ sample }}.txt" }
outputs = { joined = { path = "out/{{ sample }}.txt", to = "@outside/sent/{{ sample }}.txt" }, size = "out/{{ sample }}.size" }
run = '''
@count join[sample={{ sample }}]
cat {{ inputs.clean }} > {{ outputs.joined }}
wc -c < {{ inputs.clean }} > {{ outputs.size }}
'''

[task.moody]
foreach = { number = { range = [0, 5] } }
inputs = { names = "work/names.txt" }
outputs = { table = "out/moody-{{ number }}.txt" }
run = '''
@count moody[number={{ number }}]
echo {{ number }} > {{ outputs.table }}
sort -r {{ inputs.names }} >> {{ outputs.table }}
[ "$KEELBOAT_ATTEMPT" -gt 1 ]
'''

[task.saver]
foreach = { number = { range = [0, 13] } }
checkpoint = "state/"
outputs = { table = "out/saver-{{ number }}.txt" }
run = '''
@count saver[number={{ number }}]
at=$(cat state/at 2>/dev/null || echo 0)
while [ "$at" -lt 12 ]; do
  sleep 0.02
  at=$((at + 1))
  echo "$at" > state/new
  mv state/new state/at
  echo "$at" >> @outside/steps/{{ number }}
done
seq 1 "$at" > {{ outputs.table }}
'''

[task.all]
inputs = { joined = { from = "join.joined" }, moody = { from = "moody.table" }, saved = { from = "saver.table" } }
outputs = { all = { path = "out/all.txt", to = "@outside/sent/all.txt" } }
run = "@count all; cat {{ inputs.joined }} {{ inputs.moody }} {{ inputs.saved }} > {{ outputs.all }}"
"#;

const TASKS: usize = 1 + 3 * NAMES + 5 + SAVERS + 1;

/// Tasks that were shown as completed so far.
fn completed(engine: &Running) -> u64 {
    engine.said().matches("\"event\":\"completed\"").count() as u64
}

/// A time that is shorter than that.
fn moment(chance: &mut Chance, at_most: Duration) -> Duration {
    Duration::from_micros(chance.below(at_most.as_micros().try_into().expect("short")))
}

/// The files of the workflow, on a server with faults.
fn serve() -> Server {
    let server = Server::start(17, 13);
    let names: Vec<String> = (0..NAMES).map(|at| format!("n{at:02}")).collect();
    server.put("/names.txt", names.join("\n") + "\n");
    for (at, name) in names.iter().enumerate() {
        let lines = (0..40 + 60 * at).map(|line| format!("{name} has line {line} of its own\n"));
        server.put(&format!("/raw/{name}.txt"), lines.collect::<String>());
    }
    server
}

/// One project from its first start to its end, over many deaths.
struct Life {
    project: Project,
    arguments: Vec<String>,
    /// How often each task had run when it was first seen to be done for good.
    durable: BTreeMap<String, usize>,
    deaths: usize,
    /// What was said of checkpoints, and warnings, in the order of engines.
    told: Vec<String>,
}

impl Life {
    fn new(workflow: &str, arguments: &[&str]) -> Self {
        Self {
            project: Project::new(workflow),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            durable: BTreeMap::new(),
            deaths: 0,
            told: Vec::new(),
        }
    }

    fn with_server(server: &Server) -> Self {
        let life = Self::new(WORKFLOW, &["-j", "4", "--set", &format!("base={}", server.base())]);
        std::fs::create_dir_all(life.project.outside("steps")).expect("a directory for steps");
        life
    }

    /// Steps that were taken, and that each was taken once: nothing that was saved is done again.
    fn check_steps(&self) {
        for number in 0..SAVERS {
            let path = self.project.outside(&format!("steps/{number}"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let steps: Vec<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
            let grows = steps.is_sorted_by(|before, after| before < after);
            assert!(
                grows && steps.last() <= Some(&STEPS),
                "saver {number} took {steps:?}\n{}",
                self.told.join("\n")
            );
        }
    }

    /// What was sent is what is here.
    fn check_sent(&self, expected: &BTreeMap<PathBuf, Vec<u8>>) {
        let mut sent = 0;
        for (path, bytes) in expected {
            let name = path.strip_prefix("out").ok().and_then(|name| name.to_str());
            let is_sent = |name: &&str| *name == "all.txt" || name.starts_with('n');
            // `n07.txt`, and not `n07.size`.
            let is_text = path.extension().is_some_and(|extension| extension == "txt");
            let Some(name) = name.filter(is_sent).filter(|_| is_text) else { continue };
            let there = std::fs::read(self.project.outside(&format!("sent/{name}")));
            assert!(there.is_ok_and(|there| there == *bytes), "{name} was not sent, or not whole");
            sent += 1;
        }
        assert_eq!(sent, NAMES + 1);
    }

    fn start(&self) -> Running {
        self.project.start_run(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn run(&self) -> Run {
        self.start().wait()
    }

    /// Starts the engine and kills it; `None` when it was killed, its end when it was faster.
    fn die(&mut self, chance: &mut Chance) -> Option<Run> {
        if chance.below(2) == 0 {
            let completed = chance.below(COMPLETED_MAX);
            self.die_after(completed, moment(chance, AFTER_COMPLETED_MAX), chance)
        } else {
            self.die_after(0, moment(chance, LIFE_MAX), chance)
        }
    }

    /// Kills the engine when it has completed so many tasks and then lived for so long.
    fn die_after(&mut self, wanted: u64, life: Duration, chance: &mut Chance) -> Option<Run> {
        let mut engine = self.start();
        while !engine.has_ended() && completed(&engine) < wanted {
            std::thread::sleep(LOOK_EVERY);
        }
        let death = Instant::now() + life;
        while !engine.has_ended() && Instant::now() < death {
            std::thread::sleep(LOOK_EVERY);
        }
        let alone = chance.below(4) > 0;
        if !alone {
            // Before it can notice that its warden is gone, too.
            engine.signal(Signal::SIGSTOP);
            for warden in wardens(&self.project.mark()) {
                send(warden, Signal::SIGKILL);
            }
        }
        let run = if engine.has_ended() { engine.wait() } else { engine.kill() };
        self.note_durable(&run);
        if run.code().is_some() {
            return Some(run);
        }
        self.deaths += 1;
        // Otherwise the next engine meets what the dead one has left.
        if alone && chance.below(2) == 0 {
            wait_until_none(&self.project.mark());
        }
        None
    }

    /// What was shown as completed was durable before.
    fn note_durable(&mut self, run: &Run) {
        self.told.push(format!("engine {}", self.deaths + 1));
        let kinds = ["checkpoint_saved", "checkpoint_restored", "warning"];
        let told = run.events().into_iter().filter(|event| {
            kinds.iter().any(|kind| event["event"] == *kind)
                || event["event"] == "attempt_started"
                    && event["task"].as_str().is_some_and(|task| task.starts_with("saver"))
        });
        self.told.extend(told.map(|event| event.to_string()));
        for task in run.tasks("completed") {
            let count = self.project.count(&task);
            assert!(count > 0, "{task} is said to be done, but did not run");
            let before = self.durable.insert(task.clone(), count);
            assert_eq!(before, None, "{task} was completed twice");
        }
    }

    fn check_end(&self, last: &Run, tasks: usize, expected: &BTreeMap<PathBuf, Vec<u8>>) {
        last.assert_code(0);
        wait_until_none(&self.project.mark());
        for (task, count) in &self.durable {
            assert_eq!(self.project.count(task), *count, "{task} ran again after it was durable");
        }
        assert_eq!(self.project.count_all().len(), tasks);
        let found = files(&self.project);
        let paths = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(&found), paths(expected));
        for (path, bytes) in &found {
            assert!(Some(bytes) == expected.get(path), "{} holds other bytes", path.display());
        }
        assert_eq!(last.tasks("undelivered"), Vec::<String>::new());
        let again = self.run();
        again.assert_code(0);
        assert_eq!(again.tasks("reused").len(), tasks, "{}", again.said());
        let left = std::fs::read_dir(self.project.path(".keelboat/scratch")).expect("scratch");
        assert_eq!(left.count(), 0, "scratch directories are left over");
    }
}

fn files(project: &Project) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = project.files("out");
    files.append(&mut project.files("work"));
    files
}

fn undisturbed(server: &Server) -> BTreeMap<PathBuf, Vec<u8>> {
    let life = Life::with_server(server);
    let run = life.run();
    run.assert_code(0);
    assert_eq!(run.tasks("completed").len(), TASKS, "{}", run.said());
    files(&life.project)
}

fn killed_at_random_moments(bout: &mut Bout) -> String {
    let kills = bout.times(50, 1000);
    let server = serve();
    let expected = undisturbed(&server);
    let chance = &mut bout.chance;
    let (mut killed, mut lives, mut durable) = (0, 0, 0);
    while killed < kills {
        let mut life = Life::with_server(&server);
        let last = loop {
            if killed + life.deaths >= kills {
                let run = life.run();
                life.note_durable(&run);
                break run;
            }
            if let Some(run) = life.die(chance) {
                break run;
            }
        };
        life.check_end(&last, TASKS, &expected);
        life.check_steps();
        life.check_sent(&expected);
        killed += life.deaths;
        lives += 1;
        durable += life.durable.len();
    }
    format!(
        "{killed} kills over {lives} runs of {TASKS} tasks: none of {durable} acknowledged tasks ran \
         again, no step of a checkpoint was taken twice, digests and what was sent are equal"
    )
}

/// So many results that they are brought to the memo store while the run is at work.
const MANY: &str = r#"
[workflow]
name = "many"
[task.many]
foreach = { at = { range = [0, 400] } }
outputs = { out = "out/{{ at }}.txt" }
run = "@count many[at={{ at }}]; echo {{ at }} > {{ outputs.out }}"
"#;

fn killed_while_it_is_fed(bout: &mut Bout) -> String {
    let runs = bout.times(3, 100);
    let chance = &mut bout.chance;
    let expected = (0..400).map(|at| (format!("out/{at}.txt").into(), format!("{at}\n").into()));
    let expected = expected.collect();
    let mut kills = 0;
    for _ in 0..runs {
        let mut life = Life::new(MANY, &["-j", "4"]);
        let last = loop {
            // Results of earlier engines count towards the 256 that wake the store.
            let wanted = chance.below(if life.deaths == 0 { 300 } else { 60 });
            let life_after = moment(chance, AFTER_COMPLETED_MAX);
            if let Some(run) = life.die_after(wanted, life_after, chance) {
                break run;
            }
        };
        life.check_end(&last, 400, &expected);
        kills += life.deaths;
    }
    format!("{kills} kills over {runs} runs of 400 tasks: nothing acknowledged ran again")
}
