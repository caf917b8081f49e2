//! Commands in containers: by a tool that is really there, and by one that only shows what it was
//! told.

#![expect(clippy::print_stdout, reason = "tests say why they are skipped")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::processes::{send, wait_until, wait_until_none};
use crate::project::Project;

/// Long enough for a container on a loaded machine.
const SOON: Duration = Duration::from_mins(1);

/// As apptainer does it, but for the image: what is not bound is not there, and of the environment
/// only what is for the container.
const APPTAINER: &str = r#"#!/bin/bash
set -eu
printf '%s\n' "$@" > "@outside/argv"
[ "$1" = exec ]; shift
root=$(mktemp -d "@outside/root.XXXXXX")
for top in bin lib lib64 usr dev proc; do
    if [ -d /$top ]; then mkdir "$root/$top"; fi
done
binds=() pwd=/
while [ "${1#--}" != "$1" ]; do
    case $1 in
        --bind) binds+=("$2"); shift 2 ;;
        --pwd) pwd=$2; shift 2 ;;
        --cleanenv|--no-home|--x-*) shift ;;
        *) echo "what is $1?" >&2; exit 255 ;;
    esac
done
printf '%s\n' "$1" > "@outside/image"; shift
env=()
while IFS= read -r -d '' line; do
    case $line in APPTAINERENV_*) env+=("${line#APPTAINERENV_}") ;; esac
done < /proc/self/environ
export root pwd; inner=$(printf '%s\n' "${binds[@]}"); export inner
exec unshare --mount --propagation private /bin/bash -eu -c '
    for top in bin lib lib64 usr dev proc; do
        if [ -d /$top ]; then mount --rbind /$top "$root/$top"; fi
    done
    while IFS= read -r bind; do
        from=${bind%%:*}
        if [ -d "$from" ]; then mkdir -p "$root$from"; else
            mkdir -p "$(dirname "$root$from")"; touch "$root$from"; fi
        mount --bind "$from" "$root$from"
        case $bind in *:ro) mount -o remount,bind,ro "$root$from" ;; esac
    done <<< "$inner"
    cd "$root"
    exec chroot . /usr/bin/env -i --chdir="$pwd" PATH=/usr/bin:/bin "$@"
' unshare "${env[@]}" "$@"
"#;

/// A tool in a directory of its own, first in the PATH of what is run.
fn install(project: &Project, name: &str, script: &str) -> PathBuf {
    let directory = project.outside("tools");
    std::fs::create_dir_all(&directory).expect("a tool");
    let place = directory.join(name);
    std::fs::write(&place, script.replace("@outside", &project.mark())).expect("a tool");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).expect("a tool");
    directory
}

fn run_in(project: &Project, tools: &Path) -> crate::project::Run {
    let mut command = project.command(&["run", "flow.toml", "--json"]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", tools.display()));
    project.start(command).wait()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

const WORKFLOW: &str = r#"
[workflow]
params = { image = "docker.io/library/alpine@sha256:0000000000000000000000000000000000000000000000000000000000000000" }

[defaults]
container = "{{ image }}"

[task.made]
inputs     = { text = "words.txt" }
outputs    = { sorted = "out/sorted.txt" }
checkpoint = "state"
env        = { SECRET = "s3cr3t" }
run        = '''
sort {{ inputs.text }} | uniq > {{ outputs.sorted }}
echo "$SECRET $KEELBOAT_TASK" >> {{ outputs.sorted }}
ls -d "$KEELBOAT_CHECKPOINT_DIR" && touch state/there
if [ -e "@outside/counts" ]; then echo 'all is seen' >&2; exit 1; fi
'''

[task.plain]
container = false
run       = "ls @outside/counts"
"#;

#[test]
fn a_container_sees_its_directory_and_its_own_environment_and_nothing_else() {
    if !is_root() {
        return println!("skipped: mounting needs root");
    }
    let project = Project::new(WORKFLOW);
    project.write("words.txt", "b\na\nb\n");
    project.write("keelboat.toml", "[containers]\ntool = \"apptainer\"\nargs = [\"--x-quiet\"]\n");
    let tools = install(&project, "apptainer", APPTAINER);
    let run = run_in(&project, &tools);
    assert_eq!(run.code(), Some(0), "{}\n{}", run.stdout, run.stderr);
    assert_eq!(project.read("out/sorted.txt"), "a\nb\ns3cr3t made\n");
    let argv = std::fs::read_to_string(project.outside("argv")).unwrap();
    assert!(!argv.contains("s3cr3t"), "{argv}");
    assert!(argv.contains("\n--x-quiet\n"), "{argv}");
    let image = std::fs::read_to_string(project.outside("image")).unwrap();
    assert!(image.starts_with("docker://docker.io/library/alpine@sha256:0000"), "{image}");
    assert!(!run.stderr.contains("without its digest"), "{}", run.stderr);
    // The image counts, and who runs it does not.
    std::fs::remove_file(project.path("keelboat.toml")).unwrap();
    let run = run_in(&project, &project.outside("no tools"));
    assert_eq!(run.code(), Some(0), "{}\n{}", run.stdout, run.stderr);
}

#[test]
fn a_long_script_is_seen_in_a_container() {
    if !is_root() {
        return println!("skipped: mounting needs root");
    }
    let long = "# ".to_owned() + &"x".repeat(200 << 10);
    let project = Project::new(&format!(
        "[task.t]\ncontainer = \"alpine:3\"\noutputs = {{ o = \"o\" }}\nrun = '''\necho hi > o\n{long}\n'''\n"
    ));
    let tools = install(&project, "apptainer", APPTAINER);
    let run = run_in(&project, &tools);
    assert_eq!(run.code(), Some(0), "{}\n{}", run.stdout, run.stderr);
    assert_eq!(project.read("o"), "hi\n");
    let told = format!("{}{}", run.stdout, run.stderr);
    assert_eq!(told.matches("alpine:3 is named without its digest").count(), 1, "{told}");
}

#[test]
fn without_a_tool_the_error_names_them() {
    let project = Project::new("[task.t]\ncontainer = \"alpine\"\nrun = \"true\"\n");
    let mut command = project.command(&["run", "flow.toml"]);
    let tools = install(&project, "nothing", "");
    command.env("PATH", tools);
    let run = project.start(command).wait();
    assert_eq!(run.code(), Some(1), "{}", run.stderr);
    let told = format!("{}{}", run.stdout, run.stderr);
    for part in ["apptainer, singularity, podman and docker", "apt-get install podman"] {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
}

/// What podman needs: on most machines nothing; where it has no rights to raise limits, or the cgroups
/// are of both kinds, more.
const PODMAN_ARGS: [&[&str]; 2] = [
    &[],
    &["--runtime=runc", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"],
];

/// A machine with podman, and an image that holds a busybox.
struct Podman {
    image: String,
    args: &'static [&'static str],
}

impl Podman {
    /// `None`: the test is skipped.
    fn new(test: &str) -> Option<Self> {
        let image = format!("localhost/keelboat-test-{}:{test}", std::process::id());
        let script = format!(
            "root=$(mktemp -d); mkdir \"$root/bin\" \"$root/tmp\"; \
             cp \"$(command -v busybox)\" \"$root/bin/busybox\"; \
             for name in sh cat sort uniq sleep touch true; do ln -s busybox \"$root/bin/$name\"; done; \
             tar -C \"$root\" -cf - . | podman import - {image}; rm -r \"$root\""
        );
        if let Err(error) = output("bash", &["-e", "-o", "pipefail", "-c", &script]) {
            println!("skipped: no image can be made, for lack of podman or busybox: {error}");
            return None;
        }
        for args in PODMAN_ARGS {
            let probe = [&["run", "--rm"], args, &[&image, "true"]].concat();
            match output("podman", &probe) {
                Ok(_) => return Some(Self { image, args }),
                Err(error) => println!("podman does not run like this: {error}"),
            }
        }
        println!("skipped: podman runs nothing here");
        None
    }

    /// The containers that run or are left.
    fn containers(&self) -> String {
        let filter = format!("ancestor={}", self.image);
        output("podman", &["ps", "--all", "--quiet", "--filter", &filter]).expect("podman ps")
    }

    fn wait_until_none(&self) {
        let none = || self.containers().is_empty().then_some(());
        wait_until("no container is left", SOON, none);
    }

    fn project(&self, tool: &str, workflow: &str) -> Project {
        let project = Project::new(&workflow.replace("@image", &self.image));
        let settings = format!("[containers]\ntool = \"{tool}\"\nargs = {:?}\n", self.args);
        project.write("keelboat.toml", settings);
        project
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Err(error) = output("podman", &["rmi", "--force", &self.image]) {
            println!("an image is left: {error}");
        }
    }
}

/// What a program says, or what it says of its failure.
fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let told = Command::new(program).args(args).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if told.status.success() { Ok(text(&told.stdout)) } else { Err(text(&told.stderr)) }
}

/// A client that is no parent of what it runs, as docker's is: what it started goes on without it.
const DOCKER: &str = r#"#!/bin/bash
case $1 in
    info) echo '["name=seccomp,profile=builtin"]'; exit 0 ;;
    run) shift; args=()
        for arg in "$@"; do case $arg in
            --name=*) name=${arg#--name=} ;;
            --init|--log-driver=*) continue ;;
        esac; args+=("$arg"); done
        trap 'podman kill --signal TERM "$name" >/dev/null' TERM
        setsid podman run --detach --log-driver=k8s-file "${args[@]}" >/dev/null || exit 125
        podman wait "$name" > "@outside/code.$name" & wait $! || wait $!
        exit "$(cat "@outside/code.$name")" ;;
    *) exec podman "$@" --time=0 ;;
esac
"#;

#[test]
fn podman_runs_a_command_and_what_it_writes_is_ours() {
    let Some(podman) = Podman::new("runs") else { return };
    let workflow = "[task.t]\ncontainer = \"@image\"\ninputs = { w = \"words.txt\" }\n\
         outputs = { o = \"out/o\" }\nenv = { GREETING = \"a b\" }\n\
         run = 'sort {{ inputs.w }} | uniq > {{ outputs.o }}; echo \"$GREETING\" >> {{ outputs.o }}'\n\
         [task.lost]\nafter = [\"t\"]\ncontainer = \"@image\"\nargv = [\"no-such-program\"]\n";
    let project = podman.project("podman", workflow);
    project.write("words.txt", "b\na\nb\n");
    let run = project.run(&[]);
    let told = format!("{}{}", run.stdout, run.stderr);
    assert_eq!(run.code(), Some(1), "{told}");
    assert_eq!(project.read("out/o"), "a\nb\na b\n", "{told}");
    let owner = project.path("out/o").metadata().expect("an output").uid();
    assert_eq!(owner, nix::unistd::geteuid().as_raw());
    assert!(told.contains("programs are looked for in the image"), "{told}");
    podman.wait_until_none();
}

#[test]
fn what_runs_in_a_container_ends_when_its_time_is_over() {
    let Some(podman) = Podman::new("time") else { return };
    let workflow = "[task.t]\ncontainer = \"@image\"\ntimeout = \"2s\"\n\
                    run = \"touch up; sleep 300\"\n";
    let project = podman.project("podman", workflow);
    let run = project.run(&[]);
    assert_eq!(run.code(), Some(1), "{}", run.stdout);
    assert!(run.stdout.contains("timed out"), "{}", run.stdout);
    assert_eq!(podman.containers(), "", "it was removed before its end was told");
}

#[test]
fn what_a_daemon_runs_ends_with_the_engine() {
    let Some(podman) = Podman::new("daemon") else { return };
    let workflow = "[task.t]\ncontainer = \"@image\"\nrun = \"sleep 300\"\n";
    let project = podman.project("docker", workflow);
    let tools = install(&project, "docker", DOCKER);
    let mut command = project.command(&["run", "flow.toml", "--json"]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", tools.display()));
    let running = project.start(command);
    wait_until("the container runs", SOON, || (!podman.containers().is_empty()).then_some(()));
    send(running.pid(), Signal::SIGKILL);
    podman.wait_until_none();
    wait_until_none(&project.mark());
}
