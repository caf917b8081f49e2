//! What stands at the path of an output and was not made by a task is never lost.

use crate::project::Project;

const FLOW: &str = r#"
[workflow]
name = "kept"

[task.file]
outputs = { a = "a.txt" }
run = "echo made > {{ outputs.a }}"

[task.tree]
outputs = { d = { path = "data", directory = true } }
run = "mkdir -p {{ outputs.d }}; echo made > {{ outputs.d }}/new.txt"

[task.maybe]
outputs = { o = { path = "o.txt", optional = true } }
run = "true"
"#;

/// What was kept aside in all runs, by its last two names.
fn kept(project: &Project) -> Vec<(String, Vec<u8>)> {
    let all = project.files(".keelboat/runs");
    let kept = all.into_iter().filter_map(|(path, bytes)| {
        let path = path.to_string_lossy().into_owned();
        let (_, name) = path.split_once("/replaced/")?;
        Some((name.to_owned(), bytes))
    });
    kept.collect()
}

#[test]
fn files_of_the_user_are_kept_aside() {
    let project = Project::new(FLOW);
    project.write("a.txt", "precious");
    project.write("data/mine.txt", "precious too");
    project.write("o.txt", "and this");
    let run = project.run_well(&[]);
    assert!(run.stdout.contains("is kept as"), "{}", run.stdout);
    assert_eq!(project.read("a.txt"), "made\n");
    assert!(!project.exists("o.txt"));
    let mut found = kept(&project);
    found.sort();
    let expected =
        [("a.txt", "precious"), ("data/mine.txt", "precious too"), ("o.txt", "and this")];
    let expected = expected.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
    assert_eq!(found, expected);
}

#[test]
fn an_edited_result_is_kept_and_made_whole_again() {
    let project = Project::new(FLOW);
    project.run_well(&[]);
    std::fs::remove_file(project.path("a.txt")).expect("removed");
    project.write("a.txt", "edited by hand");
    project.write("data/added.txt", "added by hand");
    project.run_well(&[]);
    assert_eq!(project.read("a.txt"), "made\n");
    assert!(!project.exists("data/added.txt"));
    let names: Vec<String> = kept(&project).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"a.txt".to_owned()), "{names:?}");
    assert!(names.contains(&"data/added.txt".to_owned()), "{names:?}");
}

#[test]
fn results_that_the_cache_has_are_replaced_without_a_word() {
    let project = Project::new(FLOW);
    project.run_well(&[]);
    project.set_workflow(&FLOW.replace("echo made", "echo otherwise"));
    let run = project.run_well(&[]);
    assert!(!run.stdout.contains("is kept as"), "{}", run.stdout);
    assert_eq!(project.read("a.txt"), "otherwise\n");
    assert!(kept(&project).is_empty());
}
