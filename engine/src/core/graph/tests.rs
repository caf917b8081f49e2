//! Edges, errors and growth.

use super::*;
use crate::testing::tasks;

fn add(text: &str) -> Result<Graph, GraphError> {
    let mut graph = Graph::default();
    graph.add(tasks(text)).map(|_| graph)
}

fn error(text: &str) -> String {
    add(text).map_or_else(|error| error.to_string(), |_| "no error".to_owned())
}

#[test]
fn paths_make_edges() {
    let graph = add("a: x -> y; b: y z -> w; c: y -> v").expect("a good graph");
    let y = graph.task(TaskId(0)).outputs[0];
    assert_eq!(graph.task(TaskId(1)).inputs[0], y);
    let reader = |task| Reader { task: TaskId(task), input: 0 };
    let readers: Vec<_> = graph.readers(y).collect();
    assert_eq!(readers, [reader(1), reader(2)]);
    assert_eq!(graph.file(y).producer, Some(TaskId(0)));
    assert_eq!(graph.file_count(), 5);
}

#[test]
fn circles_are_named() {
    assert_eq!(
        error("a: z -> x; b: x -> y; c: y -> z; d: z -> q"),
        "tasks wait for each other in a circle: a -> c -> b -> a"
    );
    assert_eq!(error("a: x -> x"), "tasks wait for each other in a circle: a -> a");
}

#[test]
fn two_writers_are_named() {
    assert_eq!(
        error("a: -> x; b: -> x"),
        "x is written by a and by b: expected one writer for each path"
    );
}

#[test]
fn two_tasks_of_one_name_are_named() {
    assert_eq!(error("a: -> x; a: -> y"), "two tasks are named a: expected each name once");
}

#[test]
fn a_file_in_a_directory_output_waits_for_it() {
    let graph = add("a: -> d/; b: d/f/g -> x").expect("a good graph");
    let inner = graph.file(graph.task(TaskId(1)).inputs[0]);
    assert_eq!((inner.producer, inner.inside_output), (Some(TaskId(0)), true));
    assert!(error("a: -> d/; b: -> d/x").contains("lies in the directory d"));
    assert!(error("a: d/x -> d/").contains("circle"));
}

#[test]
fn growth_is_all_or_none() {
    let mut graph = add("a: s -> x").expect("a good graph");
    assert!(graph.add(tasks("b: -> y; c: -> x")).is_err());
    assert!(graph.add(tasks("b: -> s")).is_err(), "s is a source file already");
    assert_eq!(graph.tasks().len(), 1);
    assert_eq!(graph.add(tasks("b: x -> y")), Ok(TaskId(1)));
}

#[test]
fn what_is_read_already_is_not_written_later() {
    let mut graph = add("a: d/e/s u:z= in/t -> x; b: -> o/p/q").expect("a good graph");
    let mut error = |text: &str| graph.add(tasks(text)).expect_err("an error").to_string();
    assert!(error("c: -> in/t").starts_with("in/t is written by c, but a was already reading it"));
    assert!(error("c: -> d/").starts_with("d/e/s is written by c, but a"));
    assert!(error("c: -> d/e/").starts_with("d/e/s is written by c, but a"));
    assert_eq!(
        error("c: -> o/"),
        "o/p/q (written by b) lies in the directory o (written by c): \
         expected outputs apart from each other"
    );
    assert!(error("c: -> in/t/u/; d: -> in/t/u/v").contains("lies in the directory in/t/u"));
    assert_eq!(graph.add(tasks("c: -> e/; d: -> o/p/r; e: -> f")), Ok(TaskId(2)));
}

#[test]
fn a_declared_digest_makes_a_source_of_its_own_but_no_output() {
    let graph = add("a: s s= t= -> x; b: x= s= t= -> y").expect("a good graph");
    let (a, b) = (graph.task(TaskId(0)), graph.task(TaskId(1)));
    assert_ne!(a.inputs[0], a.inputs[1]);
    assert_eq!(b.inputs, [a.outputs[0], a.inputs[1], a.inputs[2]]);
    let mut graph = graph;
    let error = graph.add(tasks("c: -> t")).expect_err("t is read").to_string();
    assert!(error.starts_with("t is written by c, but a was already reading it"), "{error}");
}
