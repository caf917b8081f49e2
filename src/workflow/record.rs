//! What programs give to templates: values with names for their parts, which are JSON as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Error, ErrorKind};

/// A struct or a map of a program. Its fields have names; as a word of a command it is JSON.
#[derive(Debug)]
pub(crate) struct Record(BTreeMap<Arc<str>, Value>);

impl Record {
    pub(crate) fn of(fields: BTreeMap<Arc<str>, Value>) -> Value {
        Value::from_object(Self(fields))
    }

    /// The text of a value that is a record.
    pub(super) fn as_json(value: &Value) -> Result<String, Error> {
        let text = serde_json::to_string(value);
        text.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
    }
}

impl Object for Record {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_str()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.keys().map(|name| Value::from(name.clone())).collect())
    }
}
