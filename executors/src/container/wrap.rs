//! The command line of each tool. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelboat_engine::Command;

use super::{ContainerError, ContainerTool, Found, User};
use crate::{LaunchSpec, MARK_VARIABLE};

/// What an attempt's container is.
pub(super) struct Contained<'a> {
    pub(super) image: &'a str,
    /// What it is called.
    pub(super) name: String,
    /// What its processes carry in their environment.
    pub(super) mark: String,
    /// Files beside the attempt's directory that it sees.
    pub(super) read_only: &'a [PathBuf],
    /// From the settings.
    pub(super) args: &'a [String],
}

/// The attempt whose command is the tool's.
pub(super) fn wrap(
    found: &Found,
    contained: &Contained<'_>,
    spec: LaunchSpec,
) -> Result<LaunchSpec, ContainerError> {
    let inner = match &spec.command {
        Command::Shell { shell, script } => {
            shell.iter().cloned().chain([script.to_string()]).collect()
        }
        Command::Argv(argv) => argv.to_vec(),
        Command::Template { .. } | Command::Function { .. } => {
            return Err(ContainerError::NoCommand);
        }
    };
    let image = image_for(found.tool, contained.image)?;
    let program = found.program.to_string_lossy().into_owned();
    let (mut argv, env, cleanup) = match found.tool {
        ContainerTool::Apptainer => apptainer(found, contained, &spec, "APPTAINERENV_")?,
        ContainerTool::Singularity => apptainer(found, contained, &spec, "SINGULARITYENV_")?,
        ContainerTool::Podman | ContainerTool::Docker => docker(found, contained, &spec)?,
    };
    argv.insert(0, program);
    argv.extend(contained.args.iter().cloned());
    argv.push(image);
    argv.extend(inner);
    Ok(LaunchSpec { command: Command::Argv(Arc::from(argv)), env, cleanup, ..spec })
}

/// Arguments up to those of the settings, the environment of the tool, and what removes what is left.
type Parts = (Vec<String>, BTreeMap<String, String>, Vec<String>);

/// Runs the command as a child, without isolating more than the files. Variables with a prefix are
/// those of the container, so that none of them bends the tool.
fn apptainer(
    found: &Found,
    contained: &Contained<'_>,
    spec: &LaunchSpec,
    prefix: &str,
) -> Result<Parts, ContainerError> {
    let directory = mountable(found.tool, &spec.directory)?;
    let mut argv = words(&["exec", "--cleanenv", "--no-home", "--bind", &directory]);
    for path in contained.read_only {
        let path = mountable(found.tool, path)?;
        argv.extend(["--bind".to_owned(), format!("{path}:{path}:ro")]);
    }
    argv.extend(words(&["--pwd", &directory]));
    let own = [(MARK_VARIABLE, &contained.mark)];
    let all = spec.env.iter().map(|(name, value)| (&**name, value)).chain(own);
    let env = all.map(|(name, value)| (format!("{prefix}{name}"), value.clone())).collect();
    Ok((argv, env, Vec::new()))
}

/// What runs is not below the tool's process: it is called by a name, and removed by it.
fn docker(
    found: &Found,
    contained: &Contained<'_>,
    spec: &LaunchSpec,
) -> Result<Parts, ContainerError> {
    let directory = mountable(found.tool, &spec.directory)?;
    let mut argv = words(&["run", "--rm", "--log-driver=none", "--entrypoint="]);
    if found.tool == ContainerTool::Docker {
        // The first process of a container does not hear of SIGTERM without it.
        argv.push("--init".to_owned());
    }
    argv.push(format!("--name={}", contained.name));
    match found.user {
        User::Own => {}
        User::Same { user, group } => argv.push(format!("--user={user}:{group}")),
        User::Kept { user, group } => {
            argv.extend(["--userns=keep-id".to_owned(), format!("--user={user}:{group}")]);
        }
        User::Root => argv.push("--user=0:0".to_owned()),
    }
    if let Some(memory) = spec.memory {
        argv.push(format!("--memory={memory}b"));
    }
    argv.push(format!("--mount=type=bind,source={directory},target={directory}"));
    for path in contained.read_only {
        let path = mountable(found.tool, path)?;
        argv.push(format!("--mount=type=bind,source={path},target={path},readonly"));
    }
    argv.push(format!("--workdir={directory}"));
    // By name: values would be seen by all who list processes.
    let names = spec.env.keys().map(String::as_str).chain([MARK_VARIABLE]);
    argv.extend(names.map(|name| format!("--env={name}")));
    let mut cleanup = words(&[&found.program.to_string_lossy(), "rm", "--force"]);
    if found.tool == ContainerTool::Podman {
        cleanup.extend(words(&["--ignore", "--time=0"]));
    }
    cleanup.push(contained.name.clone());
    Ok((argv, spec.env.clone(), cleanup))
}

/// How the tool calls an image.
fn image_for(tool: ContainerTool, image: &str) -> Result<String, ContainerError> {
    let is_apptainer = matches!(tool, ContainerTool::Apptainer | ContainerTool::Singularity);
    match image.split_once("://") {
        Some(_) if is_apptainer => Ok(image.to_owned()),
        None if is_apptainer => Ok(format!("docker://{image}")),
        None => Ok(image.to_owned()),
        Some(("docker", rest)) => Ok(rest.to_owned()),
        Some(_) => Err(ContainerError::Image { tool, image: image.to_owned() }),
    }
}

/// A path as it can stand in an option.
fn mountable(tool: ContainerTool, path: &Path) -> Result<String, ContainerError> {
    let text = path.to_str().filter(|text| !text.contains([',', ':', '"', '\n']));
    let refused = || ContainerError::Path { tool, path: path.to_owned() };
    text.map(str::to_owned).ok_or_else(refused)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keelboat_engine::{AttemptId, TaskId};

    use super::*;

    const IMAGE: &str = "docker.io/library/alpine@sha256:00";

    fn spec() -> LaunchSpec {
        let env = [("KEELBOAT_TASK", "t"), ("SECRET", "s3cr3t")];
        LaunchSpec {
            attempt: AttemptId { task: TaskId(3), ordinal: 2 },
            command: Command::Shell {
                shell: words(&["/bin/sh", "-e", "-c"]).into(),
                script: "cat a > b".into(),
            },
            directory: "/p/.keelboat/scratch/t.2".into(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            stdout: "/o".into(),
            stderr: "/e".into(),
            timeout: None,
            memory: None,
            grace: Duration::from_secs(5),
            cleanup: Vec::new(),
        }
    }

    fn wrapped(tool: ContainerTool, user: User, image: &str, spec: LaunchSpec) -> LaunchSpec {
        let found = Found { tool, program: format!("/bin/{}", tool.name()).into(), user };
        let contained = Contained {
            image,
            name: "keelboat-kb-1-t3.2".to_owned(),
            mark: "kb-1:t3.2".to_owned(),
            read_only: &["/p/.keelboat/scratch/t.2.script".into()],
            args: &words(&["--network=none"]),
        };
        wrap(&found, &contained, spec).unwrap()
    }

    /// One argument a line.
    fn lines(spec: &LaunchSpec) -> String {
        let Command::Argv(argv) = &spec.command else { panic!("no list of arguments") };
        argv.join("\n")
    }

    #[test]
    fn apptainer_runs_what_it_is_given_with_variables_of_its_own() {
        let made = wrapped(ContainerTool::Apptainer, User::Own, IMAGE, spec());
        let expected = "/bin/apptainer\nexec\n--cleanenv\n--no-home\n--bind\n\
            /p/.keelboat/scratch/t.2\n--bind\n\
            /p/.keelboat/scratch/t.2.script:/p/.keelboat/scratch/t.2.script:ro\n--pwd\n\
            /p/.keelboat/scratch/t.2\n--network=none\n\
            docker://docker.io/library/alpine@sha256:00\n/bin/sh\n-e\n-c\ncat a > b";
        assert_eq!(lines(&made), expected);
        let env: Vec<_> = made.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            env,
            [
                "APPTAINERENV_KEELBOAT_PROCESS_OF=kb-1:t3.2",
                "APPTAINERENV_KEELBOAT_TASK=t",
                "APPTAINERENV_SECRET=s3cr3t",
            ]
        );
        assert!(made.cleanup.is_empty(), "its processes are below it");
    }

    #[test]
    fn singularity_has_another_prefix() {
        let made = wrapped(ContainerTool::Singularity, User::Own, "library://a/b:1", spec());
        assert!(lines(&made).contains("\nlibrary://a/b:1\n"));
        assert!(made.env.contains_key("SINGULARITYENV_SECRET"));
    }

    #[test]
    fn podman_keeps_the_user_and_takes_variables_by_name() {
        let user = User::Kept { user: 1000, group: 100 };
        let limited = LaunchSpec { memory: Some(1 << 20), ..spec() };
        let made = wrapped(ContainerTool::Podman, user, IMAGE, limited);
        let expected = "/bin/podman\nrun\n--rm\n--log-driver=none\n--entrypoint=\n\
            --name=keelboat-kb-1-t3.2\n--userns=keep-id\n--user=1000:100\n--memory=1048576b\n\
            --mount=type=bind,source=/p/.keelboat/scratch/t.2,target=/p/.keelboat/scratch/t.2\n\
            --mount=type=bind,source=/p/.keelboat/scratch/t.2.script,\
            target=/p/.keelboat/scratch/t.2.script,readonly\n\
            --workdir=/p/.keelboat/scratch/t.2\n\
            --env=KEELBOAT_TASK\n--env=SECRET\n--env=KEELBOAT_PROCESS_OF\n--network=none\n\
            docker.io/library/alpine@sha256:00\n/bin/sh\n-e\n-c\ncat a > b";
        assert_eq!(lines(&made), expected);
        assert_eq!(made.env["SECRET"], "s3cr3t");
        let cleanup = "/bin/podman rm --force --ignore --time=0 keelboat-kb-1-t3.2";
        assert_eq!(made.cleanup.join(" "), cleanup);
    }

    #[test]
    fn docker_is_told_the_user_and_what_to_remove() {
        let user = User::Same { user: 1000, group: 100 };
        let argv = LaunchSpec { command: Command::Argv(words(&["ls", "-l"]).into()), ..spec() };
        let made = wrapped(ContainerTool::Docker, user, "docker://alpine:3", argv);
        let expected = "/bin/docker\nrun\n--rm\n--log-driver=none\n--entrypoint=\n--init\n\
            --name=keelboat-kb-1-t3.2\n--user=1000:100\n";
        assert!(lines(&made).starts_with(expected), "{}", lines(&made));
        assert!(lines(&made).ends_with("--network=none\nalpine:3\nls\n-l"), "{}", lines(&made));
        assert_eq!(made.cleanup.join(" "), "/bin/docker rm --force keelboat-kb-1-t3.2");
        let rootless = wrapped(ContainerTool::Docker, User::Root, IMAGE, spec());
        assert!(lines(&rootless).contains("\n--user=0:0\n"));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let found = Found { tool: ContainerTool::Docker, program: "/d".into(), user: User::Root };
        let refused = |image, spec| {
            let (name, mark) = (String::new(), String::new());
            let contained = Contained { image, name, mark, read_only: &[], args: &[] };
            wrap(&found, &contained, spec).unwrap_err().failure().to_string()
        };
        assert!(refused("oras://host/image", spec()).contains("cannot run the image"));
        let odd = LaunchSpec { directory: "/a,b".into(), ..spec() };
        assert!(refused("alpine", odd).contains("/a,b"));
    }
}
