//! Short texts that stand for plans, for tests of this crate.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    CheckpointSpec, Command, Digest, InputSpec, Kind, Memoize, OutputSpec, Resources, Source,
    TaskSpec,
};

/// Tasks from `name: input input -> output output; …`.
///
/// `d/` is a directory, `x?` is optional, `u:x` a remote file, `name*2` takes two cores, `name+3`
/// has three retries, `name!` generates tasks, `name%` uses no earlier results, `name^` is forced,
/// `name&other` comes after another one, `name#3` takes 3 GiB, `name~50` saves checkpoints, each
/// 50 ms and at its end, `name~` only at its end; in this order: `name#3&other*2~50+3!^`.
/// `u:x@h` is at another host; `u:x=` declares the digest of the text `x`; `x>` is copied to an address.
pub(crate) fn tasks(text: &str) -> Vec<TaskSpec> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(task).collect()
}

fn task(text: &str) -> TaskSpec {
    let (head, files) = text.split_once(':').expect("a colon behind the name");
    let (inputs, outputs) = files.split_once("->").expect("an arrow");
    let (head, memoize) = match head.strip_suffix('%') {
        Some(head) => (head, Memoize::Off),
        None => head.strip_suffix('^').map_or((head, Memoize::On), |head| (head, Memoize::Refresh)),
    };
    let (head, generates) = head.strip_suffix('!').map_or((head, false), |head| (head, true));
    let (head, retries) = head.split_once('+').unwrap_or((head, "0"));
    let (head, checkpoint) =
        head.split_once('~').map_or((head, None), |(head, every)| (head, Some(every)));
    let (head, cores) = head.split_once('*').unwrap_or((head, "1"));
    let (head, after) =
        head.split_once('&').map_or((head, None), |(head, name)| (head, Some(name)));
    let (name, gib) = head.split_once('#').unwrap_or((head, "0"));
    let script = format!("make {name}");
    let command = Command::Shell { shell: Arc::new(["sh".to_owned()]), script: script.into() };
    let mut task = TaskSpec::new(name, command);
    task.options_mut().resources = Resources {
        cores: cores.parse().expect("cores"),
        memory: gib.parse::<u64>().expect("memory") << 30,
        ..Resources::NONE
    };
    task.options_mut().memoize = memoize;
    task.after = after.into_iter().map(Into::into).collect();
    Arc::make_mut(&mut task.options_mut().retry).retries = retries.parse().expect("retries");
    task.options_mut().generates = generates;
    task.options_mut().checkpoint = checkpoint.map(|every| {
        let every = every.parse().ok().map(Duration::from_millis);
        Arc::new(CheckpointSpec { directory: "state".into(), every })
    });
    task.inputs = inputs.split_whitespace().map(input).collect();
    task.outputs = outputs.split_whitespace().map(output).collect();
    task
}

fn parts(text: &str) -> (&str, Kind, bool) {
    let (text, optional) = text.strip_suffix('?').map_or((text, false), |text| (text, true));
    match text.strip_suffix('/') {
        Some(path) => (path, Kind::Directory, optional),
        None => (text, Kind::File, optional),
    }
}

fn input(text: &str) -> InputSpec {
    let (text, declared) = text.strip_suffix('=').map_or((text, false), |text| (text, true));
    let (path, kind, optional) = parts(text);
    let source = match path.strip_prefix("u:") {
        Some(name) => {
            let (name, host) = name.split_once('@').unwrap_or((name, "host"));
            Source::Urls(Arc::new([format!("http://{host}/{name}").into()]))
        }
        None => Source::Path(path.into()),
    };
    let name: Arc<str> = path.trim_start_matches("u:").into();
    let sha256 = declared.then(|| Digest::of(name.as_bytes()));
    InputSpec { label: name.clone(), scratch_path: name, source, sha256, kind, optional }
}

fn output(text: &str) -> OutputSpec {
    let (text, deliver) = text.strip_suffix('>').map_or((text, false), |text| (text, true));
    let (path, kind, optional) = parts(text);
    let path: Arc<str> = path.into();
    OutputSpec {
        label: path.clone(),
        path: path.clone(),
        scratch_path: path,
        kind,
        optional,
        captures: None,
        deliver_to: deliver.then(|| "s3://bucket/copy".into()),
    }
}
