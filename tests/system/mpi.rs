//! MPI programs: started by a launcher that is really there.

use crate::project::Project;

/// Each rank says which one it is.
const WORKFLOW: &str = r#"
[task.script]
mpi     = { ranks = 3 }
outputs = { o = "script.txt" }
run     = '''
$KEELBOAT_MPI_PREFIX sh -c 'echo "rank ${PMI_RANK-$OMPI_COMM_WORLD_RANK}"' | sort > {{ outputs.o }}
echo "$KEELBOAT_NODES $KEELBOAT_RANKS $KEELBOAT_RANKS_PER_NODE $KEELBOAT_CORES" >> {{ outputs.o }}
'''
cores   = 2

[task.program]
mpi     = { nodes = 1, ranks_per_node = 2 }
outputs = { o = "program/" }
argv    = ["sh", "-c", 'mkdir -p program; touch "program/${PMI_RANK-$OMPI_COMM_WORLD_RANK}"']
"#;

/// Open MPI starts nothing for root, nor more ranks than there are cores, unless it is told to.
const OPEN_MPI: [(&str, &str); 3] = [
    ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
    ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
    ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
];

#[test]
fn ranks_are_started_by_the_launcher_that_is_there() {
    let mut probe = std::process::Command::new("mpirun");
    let probe = probe.args(["-n", "2", "true"]).envs(OPEN_MPI).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return println!("skipped: there is no mpirun that runs");
    }
    let project = Project::new(WORKFLOW);
    let mut command = project.command(&["run", "flow.toml", "-j", "8"]);
    command.envs(OPEN_MPI);
    let run = project.start(command).wait();
    assert_eq!(run.code(), Some(0), "{}", run.stderr);
    assert_eq!(project.read("script.txt"), "rank 0\nrank 1\nrank 2\n1 3 3 6\n");
    assert!(project.exists("program/0") && project.exists("program/1"));
    // Who starts them is not in the key, and how many they are is.
    project.write("keelboat.toml", "[mpi]\nlauncher = \"srun\"\n");
    project.run_well(&[]);
    project.set_workflow(&WORKFLOW.replace("ranks_per_node = 2", "ranks_per_node = 3"));
    let run = project.run(&["program"]);
    assert!(run.stdout.contains("no srun in PATH"), "{}", run.stdout);
}
