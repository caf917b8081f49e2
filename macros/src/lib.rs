//! The attribute `keelboat::task`: a function with the options that it is a task by.
//!
//! Deliberately absent: anything that runs. What it makes are calls of `keelboat::flow`.

mod options;
mod task;

use proc_macro::TokenStream;

/// Gives a function the options that it is a task by.
///
/// The function stays what it is. Beside it there is `NAME::task(&flow)`, which is what
/// `flow.function(NAME)` gives, with these options, and with a name also where it is passed as a
/// pointer.
///
/// | option | as |
/// |---|---|
/// | `name = "align"` | `.name(…)`; else its path, as without the attribute |
/// | `version = "3"` | `.version(…)` |
/// | `cores = 2`, `gpus = 1`, `priority = 5`, `retries = 3` | the methods of these names |
/// | `memory = "2 GiB"`, `disk = "50 GB"` | `.memory(…)`, `.disk(…)` |
/// | `timeout = "10 min"` | `.timeout(…)` |
/// | `executor = "gpu"`, `executor = ["gpu", "local"]` | `.executor(…)` of each |
/// | `cache = "off"` | `.cache(…)`: `"on"`, `"off"`, `"refresh"`, `"read-only"` or `"failures"` |
/// | `keep_scratch = "failed"` | `.keep_scratch(…)`: `"never"`, `"failed"` or `"always"` |
/// | `ignore = ["threads"]` | `.ignore(…)` of parameters by their names |
#[proc_macro_attribute]
pub fn task(options: TokenStream, function: TokenStream) -> TokenStream {
    let function = proc_macro2::TokenStream::from(function);
    match task::expand(options.into(), function.clone()) {
        Ok(expanded) => expanded.into(),
        Err(error) => {
            // The function is there all the same, so that nothing else is reported for lack of it.
            let mut tokens = error.into_compile_error();
            tokens.extend(function);
            tokens.into()
        }
    }
}
