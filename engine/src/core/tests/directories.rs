//! Files inside of directories that are written anew.

use super::*;

/// `p` is done again while a file of its directory is being looked at.
fn directory_rewritten_while_read(plan: &str, published: &str) -> Script {
    let options = Options { keep_going: true, ..Options::default() };
    let mut script = Script::new(plan, History::default(), options);
    script.run(&format!(
        "start           => recall p
         join 0 1        =>
         miss p          => launch p.1@0
         ended p         => publish p.1
         published p     => recall b, stage d/f@0
         miss b          => launch b.1@0
         ended b missing => recall p known
         miss p          => launch p.2@0
         ended p         => publish p.2
         {published}"
    ));
    script
}

/// Found by the simulator: `a` got the key of a file of before.
#[test]
fn what_was_read_of_a_directory_while_it_was_written_anew_is_not_believed() {
    let plan = "p: -> d/; b: d/ -> y; a: d/f -> x";
    let mut script = directory_rewritten_while_read(plan, "published p new => recall b");
    script.run(
        "staged d/f@0 old => stage d/f@0
         staged d/f@0 new => recall a",
    );
    let mut script = directory_rewritten_while_read(plan, "published p new => recall b");
    script.run(
        "unstaged d/f@0 permanent => stage d/f@0
         unstaged d/f@0 permanent => failed a (permanent)",
    );
}

#[test]
fn what_was_read_of_a_directory_that_is_left_out_meanwhile_is_not_there() {
    let plan = "p: -> d/?; b: d/? -> y; a: d/f? -> x";
    let left_out = "published p without d => recall a, recall b";
    let mut script = directory_rewritten_while_read(plan, left_out);
    script.run("staged d/f@0 old =>");
}

#[test]
fn a_file_that_is_not_in_a_directory_any_more_fails_who_reads_it_and_not_who_wrote_it() {
    check_keep_going(
        "p: -> d/; b: d/ -> y; a: d/f -> x; c: d/f? -> z",
        "start                => recall p
         join 0 1             =>
         miss p               => launch p.1@0
         ended p              => publish p.1
         published p          => recall b, stage d/f@0
         staged d/f@0         => recall a, recall c
         miss b               => launch b.1@0
         ended b missing      => recall p known
         miss p               => launch p.2@0
         ended p              => publish p.2
         published p new      => recall b, stage d/f@0
         unstaged d/f@0 missing => failed a (input missing), recall c",
    );
}
