//! What a task's document says of it, look by look.

use std::collections::BTreeSet;

use keelboat_engine::FailureClass;
use serde::Deserialize;

use super::answer::shown;
use crate::protocol::TransferError;

/// Faults that do not go away by themselves: after a few looks without anything new, the task is
/// ended rather than waited for until its deadline.
const HOPELESS: &[&str] =
    &["FILE_NOT_FOUND", "PERMISSION_DENIED", "NOT_A_DIRECTORY", "IS_A_DIRECTORY"];

/// The part of a task's document that matters here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TaskDocument {
    pub(super) status: String,
    nice_status: Option<String>,
    nice_status_short_description: Option<String>,
    pub(super) faults: u64,
    pub(super) bytes_transferred: u64,
    subtasks_succeeded: u64,
    pub(super) subtasks_skipped_errors: u64,
    pub(super) is_paused: bool,
    pub(super) fatal_error: Option<Fatal>,
}

/// Why a task failed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fatal {
    #[serde(deserialize_with = "text")]
    pub(super) code: String,
    #[serde(deserialize_with = "text")]
    pub(super) description: String,
}

/// One of a task's events.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    #[serde(deserialize_with = "text")]
    code: String,
    #[serde(deserialize_with = "text")]
    description: String,
    #[serde(deserialize_with = "text")]
    details: String,
}

/// One file that a task went past.
#[derive(Debug, Deserialize)]
pub(super) struct Skipped {
    pub(super) source_path: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) error_code: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) error_details: String,
}

/// Why tasks of a collection are paused.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PauseInfo {
    pause_rules: Vec<PauseRule>,
    source_pause_message: Option<String>,
    destination_pause_message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PauseRule {
    message: Option<String>,
}

impl PauseInfo {
    /// The words of those who have paused it.
    pub(super) fn reason(self) -> String {
        let rules = self.pause_rules.into_iter().filter_map(|rule| rule.message);
        let all = rules.chain(self.source_pause_message).chain(self.destination_pause_message);
        let all: Vec<String> =
            all.map(|text| shown(&text)).filter(|text| !text.is_empty()).collect();
        if all.is_empty() { "no reason is given".into() } else { all.join("; ") }
    }
}

/// A text that may be null.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

/// What one look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// It goes on. `advanced`: there is something new since the last look.
    Active {
        advanced: bool,
        has_faults: bool,
    },
    /// It will not get further by itself.
    Hopeless {
        code: String,
    },
    Succeeded,
    Failed,
}

/// The looks at one task.
#[derive(Debug)]
pub(super) struct Watch {
    looks_max: u32,
    bytes: u64,
    succeeded: u64,
    faults: u64,
    /// Looks in a row that showed the same hopeless fault, and more faults than before.
    hopeless: u32,
}

impl Watch {
    pub(super) const fn new(looks_max: u32) -> Self {
        Self { looks_max, bytes: 0, succeeded: 0, faults: 0, hopeless: 0 }
    }

    pub(super) fn look(&mut self, task: &TaskDocument) -> Look {
        match task.status.as_str() {
            "SUCCEEDED" => return Look::Succeeded,
            "FAILED" => return Look::Failed,
            _ => {}
        }
        let advanced =
            task.bytes_transferred > self.bytes || task.subtasks_succeeded > self.succeeded;
        let has_faults = task.faults > self.faults;
        let code = task.nice_status.as_deref().filter(|code| HOPELESS.contains(code));
        match code {
            None => self.hopeless = 0,
            Some(_) if advanced => self.hopeless = 0,
            Some(_) if has_faults => self.hopeless += 1,
            Some(_) => {}
        }
        self.bytes = task.bytes_transferred;
        self.succeeded = task.subtasks_succeeded;
        self.faults = task.faults;
        match code {
            Some(code) if self.hopeless >= self.looks_max => {
                Look::Hopeless { code: code.to_owned() }
            }
            _ => Look::Active { advanced, has_faults },
        }
    }
}

impl TaskDocument {
    /// Why it does not move, in Globus's words; `None`: it does, or is about to.
    pub(super) fn trouble(&self) -> Option<String> {
        let code = self.nice_status.as_deref().unwrap_or_default();
        if self.status == "INACTIVE" {
            return Some(format!("suspended: {code}; log in at app.globus.org to resume it"));
        }
        if matches!(code, "" | "OK" | "Queued") && !self.is_paused {
            return None;
        }
        let words = shown(self.nice_status_short_description.as_deref().unwrap_or_default());
        let faults = match self.faults {
            0 => String::new(),
            1 => ", 1 fault".into(),
            many => format!(", {many} faults"),
        };
        let code = shown(code);
        Some(if words.is_empty() {
            format!("{code}{faults}")
        } else {
            format!("{words} ({code}{faults})")
        })
    }
}

impl Event {
    /// One line of it.
    pub(super) fn shown(&self) -> String {
        shown(&format!("{}: {} {}", self.code, self.description, self.details))
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// The paths that it is about.
    pub(super) fn paths(&self) -> BTreeSet<String> {
        paths_in(&self.details)
    }
}

/// Globus writes the path of a fault on a line of its own: `File: /path`.
pub(super) fn paths_in(details: &str) -> BTreeSet<String> {
    let lines = details.lines().filter_map(|line| {
        let (word, path) = line.trim().split_once(": ")?;
        matches!(word, "File" | "Path").then(|| path.trim().to_owned())
    });
    lines.filter(|path| path.starts_with('/')).collect()
}

/// What the word of Globus for a fault means for a transfer.
pub(super) fn explain(code: &str, details: &str) -> TransferError {
    let separated = if details.is_empty() { "" } else { ": " };
    let found = format!("Globus says {}{separated}{}", shown(code), shown(details));
    match code {
        "FILE_NOT_FOUND" => TransferError::Missing { found },
        "PERMISSION_DENIED" => TransferError::Forbidden { found },
        "NO_SPACE_LEFT" | "QUOTA_EXCEEDED" => TransferError::Local {
            class: FailureClass::OutOfResources,
            found,
            hint: "free some space at the destination".into(),
        },
        "EXPIRED" => TransferError::Busy { found, retry_after: None },
        "CANCELED" => TransferError::Refused {
            found,
            hint: "somebody has cancelled the task; run the same command again".into(),
        },
        _ => TransferError::Refused {
            found,
            hint: "app.globus.org shows the task's events under Activity".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(json: &str) -> TaskDocument {
        serde_json::from_str(json).unwrap()
    }

    fn missing(faults: u64, bytes: u64) -> TaskDocument {
        task(&format!(
            r#"{{"status":"ACTIVE","nice_status":"FILE_NOT_FOUND","faults":{faults},
            "nice_status_short_description":"File Not Found","bytes_transferred":{bytes}}}"#
        ))
    }

    #[test]
    fn growing_faults_are_hopeless_after_a_few_looks_unless_something_moves() {
        let mut watch = Watch::new(3);
        for (faults, bytes) in [(1, 0), (2, 0), (2, 0), (3, 7), (4, 7), (5, 7)] {
            assert!(matches!(watch.look(&missing(faults, bytes)), Look::Active { .. }), "{faults}");
        }
        let code = "FILE_NOT_FOUND".to_owned();
        assert_eq!(watch.look(&missing(6, 7)), Look::Hopeless { code });
    }

    #[test]
    fn other_faults_may_go_away() {
        let mut watch = Watch::new(1);
        let json = r#"{"status":"ACTIVE","nice_status":"CONNECTION_RESET","faults":9}"#;
        let look = watch.look(&task(json));
        assert_eq!(look, Look::Active { advanced: false, has_faults: true });
        assert_eq!(task(json).trouble().as_deref(), Some("CONNECTION_RESET, 9 faults"));
    }

    #[test]
    fn what_is_well_is_no_trouble() {
        for nice in ["null", "\"OK\"", "\"Queued\""] {
            let json = format!(r#"{{"status":"ACTIVE","nice_status":{nice}}}"#);
            assert_eq!(task(&json).trouble(), None);
        }
        let paused = task(r#"{"status":"ACTIVE","is_paused":true,"nice_status":"PAUSED"}"#);
        assert!(paused.trouble().is_some());
    }

    #[test]
    fn paths_of_faults_are_found_in_their_details() {
        let found = paths_in("Error (transfer)\nFile: /a/b c\nMessage: No such file");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["/a/b c"]);
    }
}
