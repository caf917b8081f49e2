//! The JSON Schema of the workflow file, for editors.

/// The JSON Schema of the workflow file.
pub fn schema() -> serde_json::Value {
    serde_json::json!({})
}
