//! What is drawn: nodes and arrows, without any form.

use std::collections::{BTreeMap, BTreeSet};

use keelboat_engine::core::{Graph, GraphError};
use keelboat_engine::{FileId, Source, TaskId, TaskSpec};
use keelboat_staging::redact;

use crate::cli::past::declaration_of;
use crate::workflow::Dormant;

/// With more tasks, those of one declaration are drawn as one.
const TASKS_MAX: usize = 200;

/// Nodes and arrows.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    pub(super) name: String,
    /// Tasks in the workflow.
    pub(super) tasks: usize,
    /// Whether tasks of one declaration are one node.
    pub(super) collapsed: bool,
    pub(super) nodes: Vec<Node>,
    /// From, to: positions in `nodes`.
    pub(super) arrows: BTreeSet<(usize, usize)>,
}

/// How the workflow grows while it runs.
#[derive(Debug)]
pub(super) struct Growth<'a> {
    /// Declarations without tasks so far.
    pub(super) dormant: Vec<Dormant<'a>>,
    /// Declarations whose tasks come of what others write, and these.
    pub(super) growing: Vec<(&'a str, Vec<&'a str>)>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) label: String,
    pub(super) kind: NodeKind,
}

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    Task,
    /// A declaration with so many tasks.
    Declaration(usize),
    /// A declaration whose tasks are known only when others have run.
    Later,
    File,
}

impl Node {
    /// What is written in it: its name, and a second line for some.
    pub(super) fn lines(&self) -> Vec<String> {
        match self.kind {
            NodeKind::Task | NodeKind::File => vec![self.label.clone()],
            NodeKind::Declaration(1) => vec![self.label.clone(), "1 task".to_owned()],
            NodeKind::Declaration(count) => vec![self.label.clone(), format!("{count} tasks")],
            NodeKind::Later => vec![self.label.clone(), "known later".to_owned()],
        }
    }
}

impl Drawing {
    /// Draws tasks, and files if asked for, unless there are too many.
    pub(super) fn of(
        name: &str,
        tasks: Vec<TaskSpec>,
        growth: &Growth<'_>,
        files: bool,
    ) -> Result<Self, GraphError> {
        let mut graph = Graph::default();
        graph.add(tasks)?;
        let count = graph.tasks().len();
        let collapsed = count > TASKS_MAX;
        let mut drawing =
            Self { name: name.to_owned(), tasks: count, collapsed, ..Self::default() };
        let nodes = drawing.add_tasks(&graph);
        if files && !collapsed {
            drawing.add_files(&graph, &nodes);
        } else {
            drawing.add_arrows(&graph, &nodes);
        }
        drawing.add_growth(&graph, &nodes, growth);
        Ok(drawing)
    }

    /// The node of each task.
    fn add_tasks(&mut self, graph: &Graph) -> Vec<usize> {
        let mut by_declaration: BTreeMap<&str, usize> = BTreeMap::new();
        let mut nodes = Vec::with_capacity(graph.tasks().len());
        for task in graph.tasks() {
            let name: &str = &task.spec.name;
            if !self.collapsed {
                nodes.push(self.add(name, NodeKind::Task));
                continue;
            }
            let declaration = declaration_of(name);
            let node = *by_declaration
                .entry(declaration)
                .or_insert_with(|| self.add(declaration, NodeKind::Declaration(0)));
            if let NodeKind::Declaration(count) = &mut self.nodes[node].kind {
                *count += 1;
            }
            nodes.push(node);
        }
        for (task, node) in graph.tasks().iter().zip(&nodes) {
            let node = &mut self.nodes[*node];
            if *task.spec.name == *node.label {
                node.kind = NodeKind::Task;
            }
        }
        nodes
    }

    fn add(&mut self, label: &str, kind: NodeKind) -> usize {
        self.nodes.push(Node { label: label.to_owned(), kind });
        self.nodes.len() - 1
    }

    fn arrow(&mut self, from: usize, to: usize) {
        if from != to {
            self.arrows.insert((from, to));
        }
    }

    fn add_arrows(&mut self, graph: &Graph, nodes: &[usize]) {
        for (task, node) in graph.tasks().iter().zip(nodes) {
            let makers = task.inputs.iter().filter_map(|file| graph.file(*file).producer);
            for maker in makers {
                self.arrow(nodes[maker.index()], *node);
            }
            self.add_order(
                graph,
                nodes,
                task.spec.after.iter().filter_map(|name| graph.find(name)),
                *node,
            );
        }
    }

    fn add_order(
        &mut self,
        graph: &Graph,
        nodes: &[usize],
        before: impl Iterator<Item = TaskId>,
        node: usize,
    ) {
        debug_assert_eq!(graph.tasks().len(), nodes.len(), "a node for each task");
        for task in before {
            self.arrow(nodes[task.index()], node);
        }
    }

    fn add_files(&mut self, graph: &Graph, nodes: &[usize]) {
        let mut drawn: BTreeMap<FileId, usize> = BTreeMap::new();
        for (task, node) in graph.tasks().iter().zip(nodes) {
            for file in task.inputs.iter().chain(&task.outputs) {
                if drawn.contains_key(file) {
                    continue;
                }
                let label = match &graph.file(*file).source {
                    Source::Path(path) => path.to_string(),
                    Source::Urls(urls) => urls.first().map(|url| redact(url)).unwrap_or_default(),
                };
                let at = self.add(&label, NodeKind::File);
                drawn.insert(*file, at);
                if let Some(maker) = graph.file(*file).producer {
                    self.arrow(nodes[maker.index()], at);
                }
            }
            for file in &task.inputs {
                self.arrow(drawn[file], *node);
            }
            self.add_order(
                graph,
                nodes,
                task.spec.after.iter().filter_map(|name| graph.find(name)),
                *node,
            );
        }
    }

    /// What is known later, after what its declaration says comes first; and arrows to what has
    /// grown, from where it has.
    fn add_growth(&mut self, graph: &Graph, nodes: &[usize], growth: &Growth<'_>) {
        let mut by_declaration: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (task, node) in graph.tasks().iter().zip(nodes) {
            by_declaration.entry(declaration_of(&task.spec.name)).or_default().insert(*node);
        }
        for dormant in &growth.dormant {
            let node = self.add(dormant.name, NodeKind::Later);
            by_declaration.entry(dormant.name).or_default().insert(node);
        }
        let dormant = growth.dormant.iter().map(|dormant| (dormant.name, &dormant.depends_on));
        let growing = growth.growing.iter().map(|(name, generators)| (*name, generators));
        let nodes_of = |name: &str| by_declaration.get(name).into_iter().flatten();
        for (name, before) in dormant.chain(growing) {
            for from in before.iter().flat_map(|before| nodes_of(before)) {
                for to in nodes_of(name) {
                    self.arrow(*from, *to);
                }
            }
        }
    }
}
