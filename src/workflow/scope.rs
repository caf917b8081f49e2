//! What templates can see.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value};

/// What all instances of a task share.
#[derive(Debug)]
pub(super) struct Base {
    /// Names of the variables of `foreach`.
    pub(super) variables: Vec<Arc<str>>,
    pub(super) params: Arc<BTreeMap<Arc<str>, Value>>,
    /// The same as one value.
    pub(super) params_value: Value,
    pub(super) cores: u32,
    pub(super) memory_mib: u64,
}

/// What one instance sees.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) base: Arc<Base>,
    /// Values of the variables, in the order of [`Base::variables`].
    pub(super) values: Vec<Value>,
    pub(super) name: Arc<str>,
    /// Inputs and outputs, once their paths are known.
    pub(super) files: Option<(Value, Value)>,
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "inputs" => self.files.as_ref().map(|(inputs, _)| inputs.clone()),
            "outputs" => self.files.as_ref().map(|(_, outputs)| outputs.clone()),
            "params" => Some(self.base.params_value.clone()),
            "name" => Some(Value::from(self.name.clone())),
            "cores" => Some(Value::from(self.base.cores)),
            "memory_mib" => Some(Value::from(self.base.memory_mib)),
            _ => {
                let variables = &self.base.variables;
                match variables.iter().position(|variable| variable.as_ref() == key) {
                    Some(at) => self.values.get(at).cloned(),
                    None => self.base.params.get(key).cloned(),
                }
            }
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let mut names: Vec<Value> = self.base.variables.iter().map(Value::from).collect();
        names.extend(self.base.params.keys().map(Value::from));
        let files = if self.files.is_some() { ["inputs", "outputs"].as_slice() } else { &[] };
        names.extend(
            files
                .iter()
                .chain(&["params", "name", "cores", "memory_mib"])
                .map(|name| Value::from(*name)),
        );
        Enumerator::Values(names)
    }
}

/// The files of a task by label: each a path, or a list of paths.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) labels: Arc<[Arc<str>]>,
    pub(super) values: Vec<Value>,
}

impl Object for Files {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let at = self.labels.iter().position(|label| label.as_ref() == key)?;
        self.values.get(at).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.labels.iter().map(Value::from).collect())
    }
}

/// A path as templates see it: one that begins with `-` is not to be taken for an option.
pub(super) fn path_value(path: &Arc<str>) -> Value {
    if path.starts_with('-') {
        return Value::from(format!("./{path}"));
    }
    Value::from(path.clone())
}
